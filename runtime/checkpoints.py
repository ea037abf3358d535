"""Checkpoint files: written whole or not at all, plain tensors and numbers only, nothing in them is executed."""

import io
import pickletools
import re
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from lightning_fabric.plugins import TorchCheckpointIO
from torch import Tensor, nn

from inverters.archive import pickle_of_archive
from runtime.files import replacing


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """The contents of a checkpoint file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not a whole checkpoint, or holds more than plain tensors and numbers.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    try:
        length = check_archive(path)
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        check_plain(checkpoint, length)
    except UnpicklingError as error:
        raise ValueError(
            f"{path} is no checkpoint, or holds objects other than tensors and numbers, which are not loaded"
        ) from error
    except Exception as error:  # neither zipfile nor torch promises a list of what a broken file raises
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(f"{path} is not a whole checkpoint ({reason}); give another one") from error
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("state_dict"), dict):
        raise ValueError(f"{path} is not a checkpoint of this application: it has no state_dict")
    if not all(isinstance(value, Tensor) for value in checkpoint["state_dict"].values()):
        raise ValueError(f"{path} is not a checkpoint of this application: its state_dict holds more than tensors")
    return checkpoint


LONGEST_PICKLE = 2**22  # bytes; a tensor takes some 150, a process 8000 of random states. Reading it takes seconds.
WRITTEN = re.compile(  # what a checkpoint of plain tensors and numbers asks for by name
    r"collections OrderedDict|torch\._utils _rebuild_tensor_v[23]|torch\.storage UntypedStorage|torch u?int(16|32|64)|"
    r"torch (Float|Double|Half|BFloat16|Bool|Byte|Char|Short|Int|Long|ComplexFloat|ComplexDouble)Storage"
)


def check_archive(path: str | Path) -> int:
    """The length of a checkpoint file's pickle, before anything of it is loaded.

    Raises:
        ValueError: It is damaged, or made to fill the memory: torch.save compresses nothing.
        UnpicklingError: It asks for more than plain tensors and numbers.
    """
    pickle = pickle_of_archive(path, LONGEST_PICKLE)
    for opcode, argument, _ in pickletools.genops(pickle):
        if opcode.name in ("GLOBAL", "INST", "STACK_GLOBAL") and not WRITTEN.fullmatch(str(argument)):
            raise UnpicklingError(f"it asks for {argument}")
    return len(pickle)


def check_plain(checkpoint: Any, length: int) -> None:
    """Raises ValueError where a checkpoint is no tree of tensors and numbers, as large as its file.

    Args:
        checkpoint: As it was loaded.
        length: Of its pickle, in bytes. Each value of a tree takes one; parts that are used again and again take fewer
            than they hold, and may even hold themselves.
    """
    left, found = length, [("", checkpoint, 0)]
    while found:
        name, value, depth = found.pop()
        if isinstance(value, Tensor):
            if value.nbytes > value.untyped_storage().nbytes():
                raise ValueError(f"its {name} has more numbers than the file")
        elif isinstance(value, dict | list | tuple):
            left -= len(value)
            if left < 0 or depth > 50:
                raise ValueError("it holds parts again and again, or in each other without an end")
            items = value.items() if isinstance(value, dict) else enumerate(value)
            found += [(str(key), inner, depth + 1) for key, inner in items]


# What a run needs to go on, beside its weights.
RESUMED = {
    "loops": dict, "callbacks": dict, "optimizer_states": list, "lr_schedulers": list, "global_step": int,
    "random_states": list,
}  # fmt: skip


def check_resumable(checkpoint: dict[str, Any], source: str | Path) -> None:
    """Raises ValueError where a checkpoint lacks what a training needs to go on, as those of old versions do."""
    for key, kind in RESUMED.items():
        if not isinstance(checkpoint.get(key), kind):
            raise ValueError(
                f"{source} cannot be resumed: it has no {key}, as one of a version before 0.4; test it, or leave out "
                f"--ckpt_path to train anew"
            )


def check_fit(module: nn.Module, state_dict: dict[str, Tensor], source: str | Path) -> None:
    """Raises ValueError, naming the first tensor, where a checkpoint's do not fit the module, or are no numbers."""
    expected = module.state_dict()
    problem = None
    for name, value in expected.items():
        if name not in state_dict:
            problem = f"it lacks {name}"
        elif state_dict[name].shape != value.shape:
            problem = f"its {name} is {list(state_dict[name].shape)} where {list(value.shape)} is needed"
        if problem:
            break
    else:
        surplus = [name for name in state_dict if name not in expected]
        if surplus:
            problem = f"it has {surplus[0]}, which this model lacks"
    if problem:
        raise ValueError(f"{source} is the checkpoint of another model: {problem}; give that model's config")
    parameters = dict(module.named_parameters())
    for name, value in expected.items():
        _check_values(name, state_dict[name], value.dtype, name in parameters, source)


def _check_values(name: str, saved: Tensor, dtype: torch.dtype, is_parameter: bool, source: str | Path) -> None:
    """Raises ValueError where what a checkpoint holds for one tensor of a module has no values, or none to use."""
    if saved.is_meta or saved.layout != torch.strided or saved.is_quantized:
        raise ValueError(f"{source} has no plain values of {name}, as something else saved it; give another checkpoint")
    # Floats may be wider or narrower than the module's, which can be cast for a precision after this.
    if saved.is_floating_point() != dtype.is_floating_point or not (saved.is_floating_point() or saved.dtype == dtype):
        raise ValueError(f"{source} has {name} as {saved.dtype} where {dtype} is needed; give another checkpoint")
    # A buffer of a network may hold infinity by design, as a mask does.
    if saved.is_floating_point() and not (saved.isfinite() if is_parameter else ~saved.isnan()).all():
        raise ValueError(
            f"{source} holds NaN or infinity in {name}: its training diverged; give an earlier checkpoint, or train "
            f"anew with a lower learning rate"
        )


class CheckpointFiles(TorchCheckpointIO):
    """How Lightning saves and loads; its own would write into another file system's temporary folder first."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        buffer = io.BytesIO()  # torch.save hides the error of a full disk
        torch.save(checkpoint, buffer)
        with replacing(Path(path)) as file:
            file.write(buffer.getbuffer())

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = True) -> dict[str, Any]:
        return load_checkpoint(path)
