"""A run whose loss is no longer a number stops, and keeps its last good checkpoint."""

from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from inverters.inverter import Inverter


class StopAtNaN(Callback):
    """Looks at the loss every `log_every_n_steps` steps, at loss and weights before every checkpoint.

    Not at every step, as that would make a GPU wait for the CPU. No checkpoint is written of weights that are not
    finite.
    """

    def __init__(self) -> None:
        self.first: Tensor | None = None  # the first step without a finite loss, or a huge number

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        never = torch.iinfo(torch.int64).max
        step = torch.where(outputs["loss"].isfinite(), never, trainer.global_step)
        self.first = step if self.first is None else torch.minimum(self.first, step)
        if trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self._check(trainer, pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._check(trainer, pl_module)

    def _check(self, trainer: Trainer, pl_module: Any) -> None:
        """Raises FloatingPointError, in every process, where one has seen a loss or a weight that is not finite."""
        never = torch.iinfo(torch.int64).max
        first = never if self.first is None else int(self.first)
        if not all(parameter.isfinite().all() for parameter in pl_module.parameters()):
            first = min(first, trainer.global_step)
        if not trainer.strategy.reduce_boolean_decision(first < never, all=False):
            return
        step = min(first, trainer.global_step)
        last = Path(trainer.default_root_dir) / "checkpoints" / "last.ckpt"
        kept = f"{last} is the last good checkpoint" if last.is_file() else "no checkpoint was written before"
        raise FloatingPointError(
            f"the loss or a weight is NaN or infinite at step {step}; {likely_cause(pl_module)}; {kept}"
        )


def likely_cause(pl_module: Any) -> str:
    """With its remedy."""
    frozen = pl_module.representation.parameters() if isinstance(pl_module, Inverter) else []
    if not all(parameter.isfinite().all() for parameter in frozen):
        return "the classifier has such weights: train it anew, or give another with --classifier"
    return f"most likely the learning rate {pl_module.lr:g} is too high: lower --model.lr"
