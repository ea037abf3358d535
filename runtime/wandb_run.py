"""The run on Weights & Biases: with an account, or offline without asking anything."""

import contextlib
import logging
import os
import secrets
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import wandb
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.loggers.logger import rank_zero_experiment
from pytorch_lightning.utilities import rank_zero_only

from runtime.lightning import is_offline, make_offline, without_anonymous
from runtime.wandb_account import is_offline_by_default, labels, project, safe_id, say_if_offline, wandb_settings
from runtime.wandb_lineage import log_file, use_file

log = logging.getLogger("inverters.wandb")

# What the summary keeps of a curve; of all others, the last value.
BEST = {
    "val/nce_nats": "max", "val/h_gain_nats": "max", "val/accuracy": "max",
    "val/bits_per_dim": "min", "val/loss": "min", "val/cross_entropy_nats": "min",
    "val/step": "none",  # the step itself, by which the last weights are the best
}  # fmt: skip


class WandbRun(WandbLogger):
    """Lightning's logger, but no failure of W&B ends a training: all numbers and pictures are on disk too."""

    begun = failed = False

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The run; an offline one where the server cannot be reached."""
        begins = not self.begun
        try:
            run = super().experiment
        except Exception as error:  # W&B promises no list
            if is_offline(self):
                raise
            self._warn(f"cannot be reached ({error}); the run is offline")
            make_offline(self)
            run = super().experiment
        else:
            if begins:
                say_if_offline(run, str(self.save_dir))
        self.begun = True
        if begins:
            for name, summary in BEST.items():
                run.define_metric(name, step_metric="trainer/global_step", step_sync=True, summary=summary)
        return run

    @rank_zero_only
    def log_hyperparams(self, params: Any) -> None:
        """Like Lightning's."""
        self._unless_it_fails(lambda: super(WandbRun, self).log_hyperparams(params))

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Like Lightning's, but gives up W&B for the rest of the run where it fails."""
        self._unless_it_fails(lambda: super(WandbRun, self).log_metrics(metrics, step))

    @rank_zero_only
    def log_made(self, made: Callable[[], Mapping[str, Any]], step: int) -> None:
        """Log pictures and tables, of which the making may fail too."""
        self._unless_it_fails(lambda: super(WandbRun, self).log_metrics(made(), step))

    @rank_zero_only
    def log_file(self, path: Path, name: str, kind: str) -> None:
        """Say that the run made a file, of a name and kind; the file stays where it is."""
        self._unless_it_fails(lambda: log_file(self.experiment, path, name, kind))

    @rank_zero_only
    def use_file(self, path: Path, name: str, kind: str) -> None:
        """Say that the run uses what another one made."""
        self._unless_it_fails(lambda: use_file(self.experiment, path, name, kind))

    @rank_zero_only
    def summarise(self, numbers: dict[str, Any]) -> None:
        """Put numbers in the run's summary."""
        self._unless_it_fails(lambda: self.experiment.summary.update(numbers))

    def _unless_it_fails(self, function: Callable[[], Any]) -> None:
        if self.failed:
            return
        try:
            function()
        except Exception as error:
            self.failed = True
            self._warn(f"failed ({error}); the training goes on without it")

    def _warn(self, what: str) -> None:
        folder = Path(os.path.relpath(str(self.save_dir))) / "wandb"
        log.warning(
            f"Weights & Biases {what}, metrics.csv has all numbers. To upload later: wandb sync {folder}/*run-*"
        )


def wandb_run(
    name: str, folder: Path, config: dict[str, Any], called: Mapping[str, Any], run_id: str | None = None
) -> WandbRun:
    """The logger of a run. W&B itself is not touched before the first metric, and by the first process only.

    Online where there is an account, as WANDB_MODE says where it is set, and otherwise offline, in the run's folder.

    Args:
        name: Of the config.
        folder: Of the run.
        config: To group runs by.
        called: The run's `name`, `group`, `job_type` and `tags`.
        run_id: Of a run that is resumed, from its checkpoint.
    """
    run = WandbRun(
        project=project(),
        # Runs in other root folders may be called so too.
        id=safe_id(str(run_id or f"{name}-{folder.name}-{secrets.token_hex(3)}")),
        resume="allow",
        save_dir=folder.resolve(),  # its service may have been started in another working folder
        offline=is_offline_by_default(),
        config=config,
        settings=wandb_settings(),
        **labels(**called),
    )
    without_anonymous(run)
    return run


def finish_wandb() -> None:
    """End the W&B run, if there is one; what cannot be uploaded stays in its folder."""
    try:
        wandb.finish()
    except Exception as error:  # W&B promises no list
        print(f"Weights & Biases: {error}; upload later with wandb sync", file=sys.stderr)
        with contextlib.suppress(Exception):
            wandb.teardown()  # fails too, but is not tried again when Python ends
