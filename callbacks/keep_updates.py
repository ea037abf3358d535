"""The classifier after given numbers of updates, for the course of NCE over training (Nash et al. 2019, fig 5b)."""

from collections.abc import Sequence
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from runtime.run import Run


class KeepUpdates(Callback):
    """Keeps `checkpoints/update_NNNNNN.ckpt` after exactly these numbers of updates; 0 is the network as it was made.

    Args:
        updates: The numbers.
    """

    def __init__(self, updates: Sequence[int]) -> None:
        self.updates = frozenset(updates)

    def _keep(self, trainer: Trainer) -> None:
        if trainer.global_step in self.updates:
            path = Run.of_trainer(trainer).update(trainer.global_step)
            if not trainer.strategy.broadcast(path.is_file()):  # saving is done by all processes or by none
                trainer.save_checkpoint(path)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._keep(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._keep(trainer)
