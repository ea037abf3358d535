"""A run whose loss is no longer a number stops, and keeps its last good checkpoint."""

import math
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn

from inverters.inverter import Inverter
from runtime.run import Run

NEVER = torch.iinfo(torch.int64).max


class StopAtNaN(Callback):
    """Looks at loss, weights and validation every so many steps and before every checkpoint, which is not written then.

    Not at every step, as that would make a GPU wait for the CPU.

    Args:
        every_n_steps: Steps between two looks.
    """

    def __init__(self, every_n_steps: int) -> None:
        self.every_n_steps = every_n_steps
        self.first = torch.tensor(NEVER)  # step without a finite loss

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = torch.where(outputs["loss"].isfinite(), NEVER, trainer.global_step)
        self.first = torch.minimum(self.first.to(step.device), step)
        if trainer.global_step % self.every_n_steps == 0:
            self._check(trainer, pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._check(trainer, pl_module)

    def _check(self, trainer: Trainer, pl_module: Any) -> None:
        """Raises FloatingPointError, in every process, where one has seen a loss or a weight that is no number."""
        finite = all_finite(pl_module)
        # A weight of 1e30 is a number, and what comes of it is none.
        for name, validated in trainer.callback_metrics.items():
            if name.startswith("val/"):
                finite = finite & validated.isfinite().to(finite.device)
        here = torch.where(finite, NEVER, trainer.global_step)
        first = int(torch.minimum(self.first.to(here.device), here))  # all in one read
        if not trainer.strategy.reduce_boolean_decision(first < NEVER, all=False):
            return
        step = min(first, trainer.global_step)
        run = Run.of_trainer(trainer)
        kept = "no checkpoint was written before"
        if run.last.is_file():
            kept = f"{run.last} is the last checkpoint before, {run.best} the one of the best validation: --ckpt_path="
            kept += f"{run.best} goes on from that"
        raise FloatingPointError(
            f"the loss, a weight or a number of the validation is NaN or infinite at step {step}; "
            f"{likely_cause(pl_module)}; {kept}"
        )


def all_finite(module: nn.Module) -> Tensor:
    """Whether all weights are numbers, on their device."""
    weights: list[Tensor] = [
        weight for weight in module.parameters() if weight.numel() and weight.dtype.is_floating_point
    ]
    if not weights:
        return torch.tensor(True)
    # The largest of each, which is NaN where one is; the common norm of huge ones would be infinite.
    return torch.stack(torch._foreach_norm(weights, ord=math.inf)).isfinite().all()


def likely_cause(pl_module: Any) -> str:
    """With its remedy."""
    if isinstance(pl_module, Inverter) and not all_finite(pl_module.representation):
        return "the classifier has such weights: train it anew, or give another with --classifier"
    return f"most likely the learning rate {pl_module.lr:g} is too high: lower --model.lr"
