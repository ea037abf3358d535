"""Checkpoints are files that are written whole or not at all, and hold nothing that could be executed."""

import io
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins import TorchCheckpointIO

from callbacks.atomic import replacing
from inverters.checkpoints import load_checkpoint


class CheckpointFiles(TorchCheckpointIO):
    """Lightning's would write into another file system's temporary folder first, and move the file from there."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        buffer = io.BytesIO()  # torch.save hides the error of a full disk
        torch.save(checkpoint, buffer)
        with replacing(Path(path)) as file:
            file.write(buffer.getbuffer())

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = True) -> dict[str, Any]:
        return load_checkpoint(path)
