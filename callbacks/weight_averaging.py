"""Moving average of the weights, with a warm-up."""

from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import WeightAveraging
from pytorch_lightning.trainer.states import TrainerFn

from runtime.checkpoints import check_fit
from runtime.lightning import averaged_module


class WarmWeightAveraging(WeightAveraging):
    """Averages with decay min(d, (1 + t) / (10 + t)) at update t; validation, test and samples use the average.

    A constant 0.9995 would leave half of the initial weights in the average after 1500 steps.

    Args:
        decay: d (the paper's model: 0.9995; 0.999 for runs under 20 000 steps).
    """

    def __init__(self, decay: float = 0.9995) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay {decay} is not in [0, 1)")

        def average(averaged: Any, current: Any, num_averaged: Any) -> None:
            t = num_averaged.double()  # on the weights' device, whose value nobody waits for
            # In this form equal weights, such as frozen ones, stay equal to the last bit.
            steps = torch._foreach_sub(current, averaged)
            torch._foreach_mul_(steps, (1 - ((1 + t) / (10 + t)).clamp(max=decay)).to(steps[0].dtype))
            torch._foreach_add_(averaged, steps)

        super().__init__(use_buffers=False, multi_avg_fn=average)
        self.swapped_in = False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        averaged_module(self).to(pl_module.device)  # Lightning makes the copy before the model is there

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing: the average is of every step that the run has made, whatever its checkpoint says."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._latest_update_step = trainer.global_step

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_validation_epoch_start(trainer, pl_module)
        self.swapped_in = trainer.state.fn == TrainerFn.FITTING

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_validation_epoch_end(trainer, pl_module)
        self.swapped_in = False

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        # A validation was left: whoever saves a checkpoint now, after this callback, must not take one for the other.
        if self.swapped_in:
            self.on_validation_epoch_end(trainer, pl_module)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Raises ValueError where a run that goes on would train the average, as its own weights are missing."""
        # Lightning's own would put the raw weights back when a fit is followed by a test of its best checkpoint.
        if trainer.state.fn == TrainerFn.FITTING:
            current, average = checkpoint.get("current_model_state"), checkpoint.get("averaging_state")
            if not isinstance(current, dict) or not isinstance(average, dict):
                raise ValueError(f"{trainer.ckpt_path} cannot be resumed: it has only the averaged weights; test it")
            check_fit(pl_module, current, str(trainer.ckpt_path))
            super().on_load_checkpoint(trainer, pl_module, checkpoint)
