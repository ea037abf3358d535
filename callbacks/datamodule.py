"""The data of a run, which callbacks ask for images."""

from typing import Any

from pytorch_lightning import Trainer
from torch import Tensor


def datamodule_of(trainer: Trainer) -> Any:
    """What was given to fit or test. Any: an ImageDataModule, which callbacks may not import."""
    return trainer.datamodule  # type: ignore[attr-defined] # Lightning sets it while it runs


def first_images(dataset: Any, num_images: int) -> dict[str, Tensor]:
    """A batch of the first images of a split; of all, where it has fewer."""
    batch: dict[str, Tensor] = dataset.__getitems__(range(min(num_images, len(dataset))))
    return batch
