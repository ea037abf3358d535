"""How does the training go? Learning rate, norm of the gradient, and speed."""

import time
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from runtime.datamodule import datamodule_of
from runtime.lightning import gradient_scale, logs_this_step
from runtime.metrics_csv import IMAGES_PER_SECOND


class TrainingCurves(Callback):
    """Logs `train/learning_rate`, `train/gradient_norm` and `train/images_per_second`, at the steps that are logged.

    The rate is that of the first group of weights; the norm is of all gradients of the step, before they are clipped;
    the speed is that of the steps since the last that was logged, without validations and what follows them. At any
    other step nothing is read from the device.
    """

    def __init__(self) -> None:
        self.batches, self.seconds = 0, 0.0
        self.since: float | None = None  # when the clock was last started; None where it stands still

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.batches, self.seconds, self.since = 0, 0.0, None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self.since is None:
            self.since = time.monotonic()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.since is not None:
            self.seconds, self.since = self.seconds + time.monotonic() - self.since, None

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        if logs_this_step(trainer):
            gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
            pl_module.log("train/learning_rate", optimizer.param_groups[0]["lr"])
            pl_module.log("train/gradient_norm", get_total_norm(gradients) / gradient_scale(trainer))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.batches += 1
        if logs_this_step(trainer) and self.since is not None:
            now = time.monotonic()
            seconds = self.seconds + now - self.since
            pl_module.log(IMAGES_PER_SECOND, self.batches * datamodule_of(trainer).batch_size / max(seconds, 1e-9))
            self.batches, self.seconds, self.since = 0, 0.0, now
