"""Every private part of Lightning that is used here, so that an upgrade is one file to read (tried with 2.6.6)."""

import os
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from lightning_fabric.strategies.launchers.subprocess_script import _ChildProcessObserver
from pytorch_lightning.callbacks import WeightAveraging
from pytorch_lightning.cli import LightningCLI
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.strategies import DDPStrategy
from torch.optim.swa_utils import AveragedModel


class ParsedCLI(LightningCLI):
    """LightningCLI that parses and instantiates; the running is left to its owner, and checkpoints are not read."""

    def _parse_ckpt_path(self) -> None:
        """Lightning's lays the checkpoint's arguments over those of the command line."""

    def _run_subcommand(self, subcommand: str) -> None:
        """Lightning's runs it at the end of the constructor."""

    def verb_arguments(self) -> dict[str, Any]:
        """What the chosen verb is called with: model, data, and the arguments of its own."""
        return self._prepare_subcommand_kwargs(str(self.subcommand))

    def trainer_of(self, arguments: dict[str, Any]) -> pl.Trainer:
        """The trainer, from its arguments."""
        return self._instantiate_trainer(arguments, [])

    def subparser(self, verb: str) -> Any:
        """The parser of one verb."""
        return self._parser(verb)


def set_up_processes(strategy: DDPStrategy, buffers_are_equal: bool) -> None:
    """For a strategy that the user gives by its name: how its processes share gradients, and wait for each other.

    Args:
        strategy: Before its processes join.
        buffers_are_equal: Whether they are in all processes without being sent before each step.
    """
    assert strategy.parallel_devices is not None
    if strategy.parallel_devices[0].type == "cuda":
        # NCCL does not notice the death of a process, and waits for half an hour by default. Here at most for one that
        # alone measures the cost, compiles, takes statistics of 50 000 images or saves: minutes.
        strategy._timeout = timedelta(minutes=10)
    ours = {"gradient_as_bucket_view": True, "broadcast_buffers": not buffers_are_equal}
    strategy._ddp_kwargs = {**ours, **strategy._ddp_kwargs}


def say_before_killing(seconds: float = 10) -> None:
    """Have a process whose child has died end with a sentence: its own within some seconds, or the one here.

    Lightning's observer would kill it without a word, often while it says what the child's death has done to it.
    """

    def end(observer: _ChildProcessObserver) -> None:
        time.sleep(seconds)
        for child in observer._child_processes:
            child.kill()
        said = "error: another process of this run has ended; if it does not say why above, it was killed"
        print(said, file=sys.stderr, flush=True)
        os._exit(1)

    _ChildProcessObserver._terminate_all = end  # type: ignore[method-assign, assignment] # in its place


def set_folder(trainer: pl.Trainer, folder: Path) -> None:
    """Give a trainer the folder of its run, which its processes have agreed on since it was made."""
    trainer._default_root_dir = str(folder)  # type: ignore[attr-defined] # as its annotations lack all that it sets so


def logs_this_step(trainer: pl.Trainer) -> bool:
    """Whether Lightning gives what is logged at this training step to the loggers."""
    return trainer._logger_connector.should_update_logs or bool(trainer.fast_dev_run)  # type: ignore[attr-defined] # as above


def gradient_scale(trainer: pl.Trainer) -> float:
    """By how much gradients are larger than they should be before an optimiser's step, which in float16 it undoes."""
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    undone_by_it = getattr(trainer.optimizers[0], "_step_supports_amp_scaling", False)  # else by Lightning, before
    return float(scaler.get_scale()) if scaler and undone_by_it else 1.0


def leave_signals_alone(trainer: pl.Trainer) -> None:
    """Have several processes not ask each other before each step for a signal, for which a GPU would be waited for."""
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign] # in its place


def end_after_this_step(trainer: pl.Trainer) -> None:
    """Have Lightning raise its SIGTERMException when this step's validation and logging are done."""
    trainer._signal_connector.received_sigterm = True


def fit_progress(trainer: pl.Trainer) -> dict[str, Any]:
    """How far a fit is, as checkpoints have it."""
    return trainer.fit_loop.state_dict()


def count_as_ended(trainer: pl.Trainer) -> None:
    """Count the last step of a fit, and its epoch, as ended, as Lightning does only where it has made a step itself."""
    loop = trainer.fit_loop
    loop.epoch_loop._batches_that_stepped = trainer.global_step
    epochs = loop.epoch_progress.current
    epochs.processed = epochs.completed = epochs.ready  # type: ignore[attr-defined] # of a subclass


def saved_fit_progress(checkpoint: dict[str, Any]) -> tuple[Any, int | None]:
    """How far the fit of a checkpoint was, and its optimiser's steps; None where it does not say."""
    progress = checkpoint["loops"].get("fit_loop")
    try:
        steps: int = progress["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]["step"]["total"][
            "completed"
        ]
    except (TypeError, KeyError):
        return progress, None
    return progress, steps


def begin_validation_anew(checkpoint: dict[str, Any]) -> None:
    """Have the run that goes on from a checkpoint validate first, as one that was left in its first batch does."""
    progress = checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]
    nothing = dict.fromkeys(("ready", "started", "processed", "completed"), 0)
    progress["total"] = {**nothing, "ready": 1, "started": 1}
    progress["current"], progress["is_last_batch"] = nothing, False


def averaged_model(callback: WeightAveraging) -> AveragedModel:
    """The copy of the model that has the averaged weights, `module`, and how many updates it has had, on the CPU."""
    assert callback._average_model is not None
    return callback._average_model


def without_anonymous(logger: WandbLogger) -> None:
    """Have a logger leave out a setting that W&B warns of at every run, as it has no effect any more."""
    logger._wandb_init.pop("anonymous", None)


def make_offline(logger: WandbLogger) -> None:
    """Have a logger begin an offline run under another id, as W&B's service holds on to the one that failed."""
    logger._offline = True
    logger._wandb_init |= {"mode": "offline", "id": f"{logger._id}-offline"}


def is_offline(logger: WandbLogger) -> bool:
    """Whether a logger's run is, or will be, offline."""
    return bool(logger._offline)
