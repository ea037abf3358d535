"""What is a loss made of? Its parts by name, and the step of a validation where the last weights are the best."""

from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torchmetrics import MeanMetric

from runtime.lightning import logs_this_step


class PartsOfLoss(Callback):
    """Logs `{train,val,test}/NAME` of each of the generator's `parts`: means of whole batches and splits.

    And `val/step` where no number chooses among weights: by its maximum the last validated are kept.
    """

    def __init__(self) -> None:
        self.means: dict[str, MeanMetric] = {}

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        names = pl_module.density.parts
        if names and logs_this_step(trainer):
            means = torch.stack([outputs[name].double().mean() for name in names])
            means = trainer.strategy.reduce(means, reduce_op="mean")  # every process has as many images
            for name, mean in zip(names, means.float(), strict=True):
                pl_module.log(f"train/{name}", mean)

    def _start(self, trainer: Trainer, pl_module: Any) -> None:
        self.means = {name: MeanMetric(nan_strategy="disable") for name in pl_module.density.parts}
        for mean in self.means.values():
            mean.set_dtype(torch.float64).to(pl_module.device)

    def _update(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        for name, mean in self.means.items():
            mean.update(outputs[name])

    on_validation_epoch_start = on_test_epoch_start = _start
    on_validation_batch_end = on_test_batch_end = _update

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        self._log(pl_module, "val")
        if pl_module.density.last_is_best:
            pl_module.log("val/step", float(trainer.global_step))

    def on_test_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        self._log(pl_module, "test")

    def _log(self, pl_module: Any, stage: str) -> None:
        for name, mean in self.means.items():
            pl_module.log(f"{stage}/{name}", mean.compute().float())
