"""Moving average of the weights, with a warm-up."""

from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import WeightAveraging
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor, nn

from runtime.checkpoints import check_fit
from runtime.lightning import averaged_model


class WarmWeightAveraging(WeightAveraging):
    """Averages with decay min(d, (1 + t) / (10 + t)) at update t; validation, test and samples use the average.

    A constant 0.9995 would leave half of the initial weights in the average after 1500 steps.

    Lightning's own averages one tensor after the other, and waits for a GPU at each.

    Args:
        decay: d (the paper's model: 0.9995; 0.999 for runs under 20 000 steps).
    """

    def __init__(self, decay: float = 0.9995) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay {decay} is not in [0, 1)")
        super().__init__(use_buffers=False)
        self.decay = decay
        self.swapped_in = False
        self.num_updates = 0  # t, of which a checkpoint has a tensor
        # Found once: to search a model for them at each step takes as long as to average.
        self.averaged: list[Tensor] = []
        self.current: list[Tensor] = []
        self.with_buffers: list[tuple[nn.Module, nn.Module]] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        averaged_model(self).module.to(pl_module.device)  # Lightning makes the copy before the model is there

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing: the average is of every step that the run has made, whatever its checkpoint says."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._latest_update_step = trainer.global_step
        model = averaged_model(self)
        self.num_updates = int(model.n_averaged)
        self.averaged, self.current = list(model.module.parameters()), list(pl_module.parameters())
        pairs = zip(model.module.modules(), pl_module.modules(), strict=True)
        self.with_buffers = [pair for pair in pairs if any(True for _ in pair[1].buffers(recurse=False))]

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step <= self._latest_update_step:
            return
        model, t = averaged_model(self), self.num_updates
        if t == 0:
            torch._foreach_copy_(self.averaged, self.current)
        else:  # equal weights, such as frozen ones, stay equal to the last bit
            torch._foreach_lerp_(self.averaged, self.current, 1 - min(self.decay, (1 + t) / (10 + t)))
        for pair in self.with_buffers:
            for mine, theirs in zip(*(module.buffers(recurse=False) for module in pair), strict=True):
                mine.copy_(theirs)
        model.n_averaged += 1
        self.num_updates += 1
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
