"""Reading checkpoints safely: plain tensors and numbers only, nothing in them is executed."""

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """The contents of a checkpoint file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not a whole checkpoint, or holds more than plain tensors and numbers.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise ValueError(
            f"{path} is no checkpoint, or holds objects other than tensors and numbers, which are not loaded"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise ValueError(f"{path} is not a whole checkpoint ({str(error).splitlines()[0]})") from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise ValueError(f"{path} is not a checkpoint of this application: it has no state_dict")
    return checkpoint


def check_fit(module: nn.Module, state_dict: dict[str, Tensor], source: str | Path) -> None:
    """Raises ValueError, naming the first difference, where a checkpoint's tensors do not fit the module."""
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
