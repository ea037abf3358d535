"""The data module of a run, which callbacks ask for images."""

from typing import Any

from pytorch_lightning import Trainer


def datamodule_of(trainer: Trainer) -> Any:
    """What was given to fit or test. Any: an ImageDataModule, which callbacks may not import."""
    return trainer.datamodule  # type: ignore[attr-defined] # Lightning sets it while it runs
