"""What went wrong, in one sentence for the user."""

import difflib
import json
import re
import sys
import traceback
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import torch
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from commands.known_keys import KnownKeys
from commands.signatures import OURS, ROOT, class_names
from inverters.compiled import of_compiler

DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")  # as a class is named
KINDS = {
    "str": "a text", "int": "a whole number", "float": "a number", "bool": "true or false", "NoneType": "null",
    **dict.fromkeys(("list", "tuple", "Sequence"), "a list such as [1, 2]"), "dict": "keys with values",
}  # fmt: skip


def of_parser(message: str, known: KnownKeys) -> str:
    """The point of a parser's message, which can run to dozens of lines; for a misspelt name with the nearest one.

    Args:
        message: Of jsonargparse.
        known: What is given, and what may be.
    """
    unknown = re.search(r"Option '(.+?)' is not accepted|Key '(.+?)' is not expected|arguments: --([\w.]+)", message)
    if unknown:
        key = next(group for group in unknown.groups() if group)
        each = known.as_given(key)
        return known.unknown(str(each or key), each.key if each else key)
    keys = re.findall(r'Parser key "([^"]+)"', message) or re.findall(r"^([\w.]+): Expected", message)
    given = known.as_given(keys[-1]) if keys else None
    named = [each for each in known.given if isinstance(each.value, str) and each.value in message]
    for each in named:
        dotted = DOTTED.fullmatch(each.value) and not Path(each.value).exists()
        if dotted and each.keys[0] in ("model", "data", "trainer") and (problem := import_problem(each.value)):
            return f"{each}: {problem}"
    class_name = re.search(r"Expected a dot import path string: (\S+)", message)
    if class_name:
        near = difflib.get_close_matches(class_name[1], class_names(), n=1)
        hint = f"did you mean {near[0]!r}?" if near else "a class that is not ours is given as module.Class"
        return f"{f'{given}: ' if given else ''}no class {class_name[1]!r}; {hint}"
    bound = re.search(r"(\S+)?:? does not conform to restriction v(>=?)(\d+)(?: and v(<=?)(\d+))?", message)
    if bound and keys:
        value = bound[1] if bound[1] and bound[1][-1] != ":" else re.findall(r"Given value: (\S+)", message)[0]
        if bound[5]:
            inside = {">": "more than", ">=": "at least", "<": "less than", "<=": "at most"}
            return (
                f"{given or keys[-1]} is {value}; give {inside[bound[2]]} {bound[3]} and {inside[bound[4]]} {bound[5]}"
            )
        return f"{given or keys[-1]} is {value}; give at least {int(bound[3]) + (bound[2] == '>')}"
    if given is None:
        return " ".join(message.split())
    wanted = re.search(r"subclass of (?:<class ')?(\w+)|function that returns <class '(\w+)", message)
    named = [each for each in named if each.keys[: len(given.keys)] == given.keys]
    named = [each for each in named if DOTTED.fullmatch(each.value)] or named
    if wanted and named:
        name = wanted[1] or wanted[2]
        remedy = f"a subclass of {name}" + (", or a function annotated to return one" if "function" in message else "")
        remedy += ", or package:function" if name == "Module" else ""
        return f"{named[-1]} is {named[-1].value}, which is no {name}; give {remedy}"
    made = re.search(r"expects a function or a callable class: (.+?)\.* Got value", " ".join(message.split()))
    if made:
        return f"{given}: {made[1]}"
    kinds = [KINDS.get(kind, kind) for kind in re.findall(r"Expected a <class '(?:[\w.]+\.)?(\w+)'>", message)]
    kinds += re.findall(r"Expected a (typing\.Literal\[.+?\])", message)
    kinds += ["a number" if "to float" in message else "a whole number"] if "Not of type " in message else []
    kinds += ["a class"] if "subclass" in message or "callable class" in message else []
    kinds = [kind.replace("typing.Literal", "one of ") for kind in dict.fromkeys(kinds)]
    if kinds:
        return f"{given} is {json.dumps(given.value, default=str)}; give {' or '.join(kinds)}"
    return f"{given}: {' '.join(message.split())}"


def import_problem(class_path: str) -> str | None:
    """Why a class cannot be had, in one sentence; None where it can."""
    module_name, _, name = class_path.rpartition(".")
    try:
        module = import_module(module_name)
    except Exception as error:  # the module is the user's own
        if isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(f"{error.name}."):
            return f"no module {error.name} in this folder, on PYTHONPATH or installed, for {class_path}"
        last = traceback.extract_tb(error.__traceback__)[-1]
        what = f"{type(error).__name__} ({' '.join(str(error).split())})"
        return f"the module {module_name} cannot be imported: {what} in line {last.lineno} of {last.filename}"
    if hasattr(module, name):
        return None
    near = difflib.get_close_matches(name, dir(module), n=1)
    return f"the module {module_name} has no {name}" + (f"; did you mean {module_name}.{near[0]}?" if near else "")


def of_a_peer(error: BaseException) -> bool:
    """Whether it says no more than that another process is no longer there, or does not answer."""
    words = ("closed by peer", "Connection reset", "NCCL", "Watchdog")
    return isinstance(error, torch.distributed.DistError) or any(word in str(error) for word in words)


def of_memory(error: BaseException) -> bool:
    """Whether a GPU's memory is full."""
    return isinstance(error, torch.OutOfMemoryError) or bool(re.search("_ALLOC_FAILED|out of memory", str(error)))


def of_the_device(error: BaseException) -> bool:
    """Whether a GPU, its driver or its libraries say it."""
    words = "CUDA error|CUDA driver|cuDNN|CUDNN_STATUS|cuBLAS|CUBLAS_STATUS|CUFFT|device-side assert"
    return of_memory(error) or isinstance(error, torch.AcceleratorError) or bool(re.search(words, str(error)))


def of_constructor(error: BaseException) -> BaseException:
    """The error of a constructor that refuses its arguments, from in that of jsonargparse; any other as it is."""
    while "Does not validate against" in str(error) and (inner := error.__cause__ or error.__context__):
        error = inner
    return error


def of_error(error: BaseException) -> str:
    """What an error says, on one line."""
    error = of_constructor(error)
    text = " ".join(str(error).split())
    memory = re.search(r"you tried to allocate (\d+) bytes", text)
    if memory:
        return f"there is no room for {int(memory[1]):,} bytes of memory; lower the numbers that decide a model's size"
    if isinstance(error, OSError | ValueError | FloatingPointError | MisconfigurationException):
        return text
    first = re.split(r"\.? (?=GPU \d|CUDA kernel errors|Compile with|Search for)", text)[0]  # the rest is about torch
    if of_memory(error):
        return (
            f"the GPU's memory is full ({first}); lower --data.batch_size or --data.eval_batch_size, share the batch "
            f"among more GPUs (--trainer.devices), or end what else runs on this one"
        )
    if of_compiler(error):
        return (
            f"the model cannot be compiled here ({text[:300]}); see that a C++ compiler such as g++ is there, remove "
            f"torchinductor_* from the folder of temporary files, where one that was killed may have left half a file, "
            f"or leave out --compile"
        )
    if of_a_peer(error):
        return (
            f"another process of this run has ended; if it does not say why above, it was killed; or the processes "
            f"cannot reach each other; {text}"
        )
    if of_the_device(error):
        return (
            f"the GPU or its driver has failed ({first}); try again on another GPU (CUDA_VISIBLE_DEVICES), or with "
            f"CUDA_LAUNCH_BLOCKING=1, whose traceback has the place"
        )
    if place := place_of_ones_own(error):
        return f"{type(error).__name__} ({text}) {place}, which is no file of this application; mend it there"
    return f"{type(error).__name__}: {text}; this should not happen, so please report it"


def place_of_ones_own(error: BaseException) -> str | None:
    """Where a class of the user's own went wrong: its line and file, libraries left out; None for a mistake of ours."""
    ours = [ROOT / name for name in (*OURS, "runtime", "benchmarks", "cli.py")]
    libraries = [Path(sys.prefix), Path(sys.base_prefix)]
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_file() and not any(path.is_relative_to(library) for library in libraries):
            return None if any(path.is_relative_to(one) for one in ours) else f"in line {frame.lineno} of {path}"
    return None


def print_error(error: Exception, root: Path = Path("runs")) -> None:
    """Print the sentence of an error that is being handled, and keep its traceback in the folder of runs, if any."""
    log, where = root / "last_error.txt", ""
    if root.is_dir():  # none is made for a misspelt word
        with suppress(OSError):  # such as a full disk, which may be the error
            log.write_text(traceback.format_exc(), errors="backslashreplace")
            where = f" (traceback in {log})"
    rank = int(getattr(rank_zero_only, "rank", 0))
    sentence = f"error: {f'process {rank}: ' if rank else ''}{of_error(error)}{where}"
    encoding = sys.stderr.encoding or "utf-8"
    print(sentence.encode(encoding, errors="backslashreplace").decode(encoding), file=sys.stderr)
