"""How well does the inverter model the images, in nats per image and in bits per dimension?"""

import math
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torchmetrics import MeanMetric

from inverters.densities import bits_per_dim


class BitsPerDim(Callback):
    """Logs `{train,val,test}/nce_nats` and `{train,val,test}/bits_per_dim` from the steps' log-probabilities.

    A metric with summed states, so that the number does not depend on batches or processes; during training, the
    mean of the latest global batch.
    """

    def __init__(self) -> None:
        self.mean = MeanMetric().set_dtype(torch.float64)

    def _log(self, pl_module: Any, stage: str, nce: Any) -> None:
        num_dims = math.prod(pl_module.density.image_shape)
        nce = torch.as_tensor(nce).float()
        pl_module.log(f"{stage}/nce_nats", nce, prog_bar=True)
        pl_module.log(f"{stage}/bits_per_dim", bits_per_dim(nce, num_dims))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # Every process has as many images.
        self._log(pl_module, "train", trainer.strategy.reduce(outputs["log_prob"].mean(), reduce_op="mean"))

    def _start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.mean.to(pl_module.device).reset()

    def _update(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        self.mean.update(outputs["log_prob"])

    on_validation_epoch_start = on_test_epoch_start = _start
    on_validation_batch_end = on_test_batch_end = _update

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._log(pl_module, "val", self.mean.compute())

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._log(pl_module, "test", self.mean.compute())
