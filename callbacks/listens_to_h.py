"""Does the model listen to h? Validation images scored under the h of another image beside their own."""

from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from datamodules.split import seen
from inverters.generators import ConditionalDensity
from inverters.inverter import Inverter
from runtime.datamodule import datamodule_of

NUM_IMAGES = 64  # two passes of so few are a hundredth of the training between two validations


class ListensToH(Callback):
    """Logs `val/shuffled_nce_nats`, the NCE under the h of the next image, and `val/h_gain_nats`, what its own gains.

    Of the first validation images, cyclically, in IEEE float32: the same numbers in any number of processes. The gain
    is of the same images, of which `val/nce_nats` is not. A generator without a likelihood, or without h, has neither;
    nor has one by which an image is impossible under another's h.

    Stands before the callback that averages weights, which swaps the average out again in this hook.
    """

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Inverter)
        split = datamodule_of(trainer).datasets["val"]
        number = min(NUM_IMAGES, len(split))
        has_both = isinstance(pl_module.density, ConditionalDensity) and pl_module.representation.layer is not None
        if not has_both or number < 2:
            return
        sums = torch.zeros(2, dtype=torch.float64, device=pl_module.device)
        mine = range(trainer.global_rank, number, trainer.world_size)
        if mine:
            batch, others = split.__getitems__(mine), split.__getitems__([(i + 1) % number for i in mine])
            sums = torch.stack([_log_prob(pl_module, batch, seen(its)).sum() for its in (batch, others)])
        own, shuffled = trainer.strategy.reduce(sums, reduce_op="sum") / number
        if shuffled.isfinite():  # the run goes on, as its loss may
            pl_module.log("val/shuffled_nce_nats", shuffled.float())
            pl_module.log("val/h_gain_nats", (own - shuffled).float())


def _log_prob(inverter: Inverter, batch: Any, pictures: Tensor) -> Tensor:
    """log p(x | h) of a batch's images under the h of these pictures, [B] nats."""
    device = inverter.device
    return inverter.log_prob_in_parts({"image": batch["image"].to(device), "context_image": pictures.to(device)})
