"""The data of a run."""

from pytorch_lightning import Trainer

from datamodules.images import ImageDataModule


def datamodule_of(trainer: Trainer) -> ImageDataModule:
    """What was given to fit or test."""
    data = trainer.datamodule  # type: ignore[attr-defined] # Lightning sets it while it runs
    assert isinstance(data, ImageDataModule)
    return data
