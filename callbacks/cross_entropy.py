"""How well does a classifier in training know its images?"""

from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from runtime.lightning import logs_this_step


class CrossEntropy(Callback):
    """Logs `train/cross_entropy_nats`, the mean of a global batch, at the steps that are logged."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if logs_this_step(trainer):  # several processes wait for each other's GPUs; all have as many images
            loss = outputs["loss"].detach().clone()
            pl_module.log("train/cross_entropy_nats", trainer.strategy.reduce(loss, reduce_op="mean"))
