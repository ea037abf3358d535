"""How well does the inverter model the images, in nats per image and in bits per dimension?"""

import math
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.trainer.states import TrainerFn
from torchmetrics import MeanMetric

from inverters.generators import bits_per_dim
from runtime.lightning import logs_this_step


class BitsPerDim(Callback):
    """Logs `{train,val,test}/nce_nats` and `{train,val,test}/bits_per_dim` from the steps' log-probabilities.

    Where a step gives none, its loss takes their place: that of a training step of what is not trained by likelihood,
    and all of a generator without one. A metric with summed states, so that the number does not depend on batches or
    processes; during training, the mean of a global batch, at the steps that are logged.
    """

    def __init__(self) -> None:
        self.mean = MeanMetric(nan_strategy="disable").set_dtype(torch.float64)  # by default it leaves NaN out

    def _log(self, pl_module: Any, stage: str, name: str, mean: Any) -> None:
        mean = torch.as_tensor(mean).float()
        if name == "loss":
            pl_module.log(f"{stage}/loss", mean)
            return
        num_dims = math.prod(pl_module.density.image_shape)
        pl_module.log(f"{stage}/nce_nats", mean)
        pl_module.log(f"{stage}/bits_per_dim", bits_per_dim(mean, num_dims))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not logs_this_step(trainer):  # several processes wait for each other's GPUs
            return
        name = _given(outputs)
        # Every process has as many images.
        mean = trainer.strategy.reduce(outputs[name].detach().mean(), reduce_op="mean")
        self._log(pl_module, "train", name, mean)

    def _start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.mean.to(pl_module.device).reset()

    def _update(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        self.mean.update(outputs[_given(outputs)])

    on_validation_epoch_start = on_test_epoch_start = _start
    on_validation_batch_end = on_test_batch_end = _update

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        mean = self.mean.compute()
        if trainer.state.fn == TrainerFn.VALIDATING and not mean.isfinite():
            raise ValueError(
                f"val/{pl_module.measure} is {mean:g}: the model has diverged, or cannot give these images"
            )
        self._log(pl_module, "val", pl_module.measure, mean)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        self._log(pl_module, "test", pl_module.measure, self.mean.compute())


def _given(outputs: dict[str, Any]) -> str:
    return "log_prob" if "log_prob" in outputs else "loss"
