"""A resumed run goes on as the one that was stopped would have."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor

from runtime.lightning import count_as_ended, fit_progress, saved_fit_progress
from runtime.optimizer_state import Configured
from runtime.processes import gathered


class ExactResume(Callback):
    """What an exact resume needs beside Lightning's own state: every process's random states, and W&B's id.

    In a new run every process gets a seed of its own, so that dropout differs between them. A run that is resumed by
    another number of processes does the same, and is then not the uninterrupted one bit for bit.

    What the command line says of the optimiser, such as its learning rate, holds from the resumed step on, and a line
    says so where it is not what it was.
    """

    def __init__(self) -> None:
        self.states: list[dict[str, Any]] | None = None
        self.optimizers: list[Configured] = []
        self.saved_optimizers: Any = None
        self.complete = True

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["random_states"] = gathered(trainer, random_states(pl_module.device))
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                checkpoint["wandb_id"] = logger.version

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Raises ValueError where the checkpoint does not say how far the run was, or with which random states."""
        if trainer.state.fn != TrainerFn.FITTING:
            return
        progress, steps = saved_fit_progress(checkpoint)
        if not same_form(progress, fit_progress(trainer)) or steps != checkpoint["global_step"]:
            raise ValueError("the checkpoint does not say how far its run was; give another one")
        self.states = checkpoint["random_states"]
        self.saved_optimizers = checkpoint.get("optimizer_states")
        for states in self.states:
            check_random_states(states)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.states is not None:  # Lightning restores optimisers after this hook
            schedulers = [config.scheduler for config in trainer.lr_scheduler_configs]
            self.optimizers = [
                Configured(optimizer, [s for s in schedulers if s.optimizer is optimizer])
                for optimizer in trainer.optimizers
            ]
            with naming(trainer.ckpt_path):
                for optimizer, saved in zip(self.optimizers, self.saved_optimizers or (), strict=False):
                    optimizer.check_groups(saved)

    # Not at the start of the epoch, which is left out in a run that is resumed in the middle of one.
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        names = parameter_names(pl_module)
        for optimizer in self.optimizers:
            with naming(trainer.ckpt_path):
                optimizer.check(names)
            changed = optimizer.apply()
            if changed and trainer.is_global_zero:
                print(f"from step {trainer.global_step} on with {'; '.join(changed)} as before", flush=True)
        self.complete = trainer.global_step == 0
        if self.states and len(self.states) == trainer.world_size:
            set_random_states(self.states[trainer.global_rank], pl_module.device)
            return
        if self.states and trainer.is_global_zero:
            print(f"saved by {len(self.states)} processes, resumed by {trainer.world_size}: dropout will differ")
        offset = trainer.global_step * trainer.world_size + trainer.global_rank
        if offset:
            torch.manual_seed(torch.initial_seed() + offset)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        if not self.complete:
            for resumed in self.optimizers:
                with naming(trainer.ckpt_path):
                    resumed.check_complete(parameter_names(pl_module))
            self.complete = True

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        count_as_ended(trainer)  # for the row of the test that follows


def parameter_names(module: LightningModule) -> dict[Tensor, str]:
    """The name of each parameter."""
    return {parameter: name for name, parameter in module.named_parameters()}


@contextmanager
def naming(source: Any) -> Iterator[None]:
    """A block whose ValueErrors say of which checkpoint they are, and what to do."""
    try:
        yield
    except ValueError as error:
        raise ValueError(
            f"{source} cannot be resumed: {error}; give another checkpoint, or leave out --ckpt_path to train anew"
        ) from error


def same_form(value: Any, pattern: Any) -> bool:
    """Whether two nestings of dictionaries have the same keys and kinds of values, and numbers are not negative."""
    if isinstance(pattern, dict):
        return (
            isinstance(value, dict)
            and value.keys() == pattern.keys()
            and all(same_form(value[key], pattern[key]) for key in pattern)
        )
    return type(value) is type(pattern) and (not isinstance(value, int) or value >= 0)


def check_random_states(states: Any) -> None:
    """Raises ValueError where `set_random_states` cannot put these back."""
    try:
        torch.Generator().set_state(states["torch"])
        name, keys, position, *rest = states["numpy"]
        np.random.RandomState().set_state((name, keys, position, *rest))
        version, internal, gauss = states["python"]
        random.Random().setstate((version, tuple(internal), gauss))
        if not 0 <= position <= len(keys):  # NumPy would read there
            raise ValueError(f"NumPy's position is {position}")
    except Exception as error:  # each library has its own ways to refuse one
        raise ValueError(f"the checkpoint's random states are not whole ({error}); give another one") from error


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
