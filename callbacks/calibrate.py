"""What a generator fits on the validation images, such as the variance of an MSE decoder."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor

from datamodules.split import seen
from inverters.exact_float32 import exact_float32
from runtime.datamodule import datamodule_of


class Calibrate(Callback):
    """Calls the generator's `calibrate` before each validation of a fit, each process with its share of the images.

    Stands after the callback that averages weights: that one swaps the average in before a validation, so that the fit
    is to the weights which are validated, and swaps all buffers out again at its end. Every checkpoint holds the
    buffers of its latest validation. Validation and test of a checkpoint leave them as they are.

    Args:
        batch_size: Images at once.
    """

    def __init__(self, batch_size: int = 250) -> None:
        self.batch_size = batch_size
        self.calibrated: dict[str, Tensor] = {}

    @torch.no_grad()
    def on_validation_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        if trainer.state.fn == TrainerFn.FITTING:
            total = partial(trainer.strategy.reduce, reduce_op="sum")
            with trainer.precision_plugin.val_step_context(), exact_float32(pl_module.device):
                pl_module.density.calibrate(self._batches(trainer, pl_module), total)
            self.calibrated = {name: buffer.clone() for name, buffer in pl_module.density.named_buffers()}

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        # The weights in training have these buffers too, or the average would take their old ones at the next step.
        if trainer.state.fn == TrainerFn.FITTING:
            for name, buffer in pl_module.density.named_buffers():
                buffer.copy_(self.calibrated[name])

    def _batches(self, trainer: Trainer, pl_module: Any) -> Iterator[tuple[Tensor, Tensor]]:
        """This process's share of the validation images, with their contexts as the generator takes them."""
        split = datamodule_of(trainer).datasets["val"]
        mine = range(trainer.global_rank, len(split), trainer.world_size)
        for first in range(0, len(mine), self.batch_size):
            batch = split.__getitems__(mine[first : first + self.batch_size])
            yield batch["image"].to(pl_module.device), pl_module.context(seen(batch).to(pl_module.device))
