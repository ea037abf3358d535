"""A resumed run goes on as the one that was stopped would have."""

import random
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.trainer.states import TrainerFn

from runtime.lightning import count_as_ended, fit_progress, saved_fit_progress
from runtime.processes import gathered


class ExactResume(Callback):
    """What an exact resume needs beside Lightning's own state: every process's random states, and W&B's id.

    In a new run every process gets a seed of its own, so that dropout differs between them. A run that is resumed by
    another number of processes does the same, and is then not the uninterrupted one bit for bit.
    """

    def __init__(self) -> None:
        self.states: list[dict[str, Any]] | None = None

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["random_states"] = gathered(trainer, random_states(pl_module.device))
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                checkpoint["wandb_id"] = logger.version

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Raises ValueError where the checkpoint does not say how far the run was."""
        if trainer.state.fn != TrainerFn.FITTING:
            return
        progress, steps = saved_fit_progress(checkpoint)
        if not same_form(progress, fit_progress(trainer)) or steps != checkpoint["global_step"]:
            raise ValueError("the checkpoint does not say how far its run was; give another one")
        self.states = checkpoint["random_states"]

    # Not at the start of the epoch, which is left out in a run that is resumed in the middle of one.
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.states and len(self.states) == trainer.world_size:
            set_random_states(self.states[trainer.global_rank], pl_module.device)
            return
        if self.states and trainer.is_global_zero:
            print(f"saved by {len(self.states)} processes, resumed by {trainer.world_size}: dropout will differ")
        offset = trainer.global_step * trainer.world_size + trainer.global_rank
        if offset:
            torch.manual_seed(torch.initial_seed() + offset)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        count_as_ended(trainer)  # for the row of the test that follows


def same_form(value: Any, pattern: Any) -> bool:
    """Whether two nestings of dictionaries have the same keys and kinds of values, and numbers are not negative."""
    if isinstance(pattern, dict):
        return (
            isinstance(value, dict)
            and value.keys() == pattern.keys()
            and all(same_form(value[key], pattern[key]) for key in pattern)
        )
    return type(value) is type(pattern) and (not isinstance(value, int) or value >= 0)


def random_states(device: torch.device) -> dict[str, Any]:
    """The states of torch, numpy and Python, as tensors and plain lists, which load without executing anything."""
    name, keys, *rest = np.random.get_state()
    version, internal, gauss = random.getstate()
    states = {
        "torch": torch.get_rng_state(),
        "numpy": [name, np.asarray(keys).tolist(), *rest],
        "python": [version, list(internal), gauss],
    }
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def set_random_states(states: dict[str, Any], device: torch.device) -> None:
    """Put back what `random_states` gave."""
    torch.set_rng_state(states["torch"])
    np.random.set_state(tuple(states["numpy"]))
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
