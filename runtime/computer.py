"""The machine that a run begins on, as its record has it."""

import os
import platform
from importlib.metadata import version

import torch

COMPUTE = ("torch", "pytorch-lightning", "numpy")  # whose versions may change numbers


def machine() -> str:
    """System, processor and accelerator; no name by which one could find it."""
    accelerator = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores{accelerator}"


def versions() -> dict[str, str]:
    """Of Python and of what computes, by their names."""
    return {"Python": platform.python_version(), **{name: version(name) for name in COMPUTE}}
