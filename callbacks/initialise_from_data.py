"""What an inverter takes from the training images before its first step."""

from typing import Any

import torch
from pytorch_lightning import Callback, Trainer

from datamodules.split import seen
from runtime.datamodule import datamodule_of


class InitialiseFromData(Callback):
    """Statistics of h over the training set, and the density's data-dependent initialisation from one fixed batch.

    The first process computes both, and the others get its numbers. A resumed run has them in its checkpoint.

    Args:
        num_images: In the fixed batch.
        max_images: At most so many training images for the statistics; a world draws new ones without end.
        batch_size: For the statistics.
    """

    def __init__(self, num_images: int = 64, max_images: int = 50_000, batch_size: int = 100) -> None:
        self.num_images, self.max_images, self.batch_size = num_images, max_images, batch_size

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        if pl_module.initialised:
            return
        dataset = datamodule_of(trainer).datasets["train"]
        size = min(len(dataset), self.max_images)
        batches = (
            seen(dataset.__getitems__(range(first, min(first + self.batch_size, size)))).to(pl_module.device)
            for first in range(0, size, self.batch_size)
        )
        first = dataset.first(min(self.num_images, size))
        if trainer.is_global_zero:
            with torch.random.fork_rng(devices=[]):
                pl_module.initialise(batches, *(x.to(pl_module.device) for x in (first["image"], seen(first))))
        if trainer.world_size > 1:
            for tensor in (*pl_module.parameters(), *pl_module.buffers()):
                torch.distributed.broadcast(tensor.data, 0)
