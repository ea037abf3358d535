"""How large is the error of an MSE decoder? The variance with which it is a density."""

import math
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.trainer.states import TrainerFn

from callbacks.datamodule import datamodule_of
from inverters.mse_decoder import MSEDecoder


class FitVariance(Callback):
    """Sets an MSE decoder's variance to its mean squared error over the whole validation set, before each validation.

    That is the maximum-likelihood variance of a spherical Gaussian. Stands after the callback that averages weights:
    that one swaps the average in before a validation, so that the error is that of the weights which are validated, and
    swaps all buffers out again at its end. Every checkpoint holds the variance of its latest validation. Validation and
    test of a checkpoint leave the variance as it is; other densities have none.

    Args:
        batch_size: Images decoded at once.
    """

    def __init__(self, batch_size: int = 250) -> None:
        self.batch_size = batch_size
        self.variance = torch.tensor(math.nan)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING and isinstance(pl_module.density, MSEDecoder):
            self.variance = self._mean_squared_error(trainer, pl_module)
            pl_module.density.variance.copy_(self.variance)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # The weights in training have the variance too, or the average would take their old one at the next step.
        if trainer.state.fn == TrainerFn.FITTING and isinstance(pl_module.density, MSEDecoder):
            pl_module.density.variance.copy_(self.variance)

    @torch.no_grad()
    def _mean_squared_error(self, trainer: Trainer, pl_module: Any) -> torch.Tensor:
        """Over the validation set, a float64 scalar; every process takes its share of the images."""
        dataset = datamodule_of(trainer).datasets["val"]
        mine = range(trainer.global_rank, len(dataset), trainer.world_size)
        total = torch.zeros((), dtype=torch.float64, device=pl_module.device)
        for first in range(0, len(mine), self.batch_size):
            image = dataset.__getitems__(mine[first : first + self.batch_size])["image"].to(pl_module.device)
            with trainer.precision_plugin.val_step_context():
                mean = pl_module.density.mean(pl_module.context(image))
            total += (image.double() / 255 - mean.double()).square().sum()
        total = trainer.strategy.reduce(total, reduce_op="sum")
        return total / (len(dataset) * math.prod(pl_module.density.image_shape))
