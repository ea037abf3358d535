"""A signal ends a run in order: the batch is finished, a checkpoint written, and a SLURM job queued again."""

import contextlib
import os
import signal
import subprocess
import sys
from types import FrameType
from typing import Any, NoReturn

import pytorch_lightning as pl
from lightning_fabric.plugins.environments import SLURMEnvironment
from pytorch_lightning import Callback, LightningModule
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities.exceptions import SIGTERMException

from runtime.datamodule import datamodule_of
from runtime.lightning import begin_validation_anew, end_after_this_step, leave_signals_alone
from runtime.processes import Highest
from runtime.run import Run
from runtime.signals import SIGNALS, answer


class Interruption(Callback):
    """SIGTERM, SIGINT, SIGUSR1 and SIGHUP finish the batch, of training or validation, save `last.ckpt` and end it all.

    Lightning's own handler broadcasts from inside the handler, which deadlocks with two processes. Here it only sets a
    flag, on which all processes agree after each batch. SIGUSR1, which SLURM can send ahead of the time limit, puts a
    SLURM job back into the queue. A second SIGINT ends the run at once. SIGHUP comes from a terminal that is closed.

    A test or a prediction is ended at once, and so is what comes before the first step: there is nothing to save.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None  # by this process
        self.agreed: signal.Signals | None = None  # by any
        self.highest: Highest | None = None
        self.training = self.mid_validation = False
        self.validated_step = -1

    def listen(self) -> None:
        """End the run at once, from now on until the first step."""
        for number in SIGNALS:
            answer(number, self._end)

    def on_train_start(self, trainer: pl.Trainer, pl_module: LightningModule) -> None:
        self.training = True
        leave_signals_alone(trainer)
        # Here, as Lightning's handlers are in place by now; it puts back all that it found when the fit ends.
        for number in SIGNALS:
            answer(number, self._remember)

    def on_test_start(self, trainer: pl.Trainer, pl_module: LightningModule) -> None:
        if self._asked(trainer):  # since the last step of a fit, which ended by itself
            raise SIGTERMException
        self.listen()

    on_predict_start = on_test_start

    def _end(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        raise SIGTERMException

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self.received == number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = signal.Signals(number)

    def _asked(self, trainer: pl.Trainer) -> bool:
        """Whether any process has received a signal; every process asks at the same moment."""
        if trainer.world_size == 1:  # without a tensor, for whose value a GPU would have to be waited for
            self.agreed = self.received
            return self.agreed is not None
        if self.highest is None:
            self.highest = Highest()
        if number := self.highest.of_all(int(self.received or 0)):
            self.agreed = signal.Signals(number)
        return self.agreed is not None

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # Lightning then raises its exception after this step's validation and logging, when all of the step is done.
        # After the last batch of an epoch it would not.
        if not trainer.is_last_batch and self._asked(trainer):
            end_after_this_step(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: LightningModule) -> None:
        if trainer.is_last_batch and self._asked(trainer):
            raise SIGTERMException

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        if trainer.state.fn != TrainerFn.FITTING:
            return
        data = datamodule_of(trainer)
        fewest = len(data.datasets["val"]) // trainer.world_size // data.eval_batch_size
        # Some processes may have one batch more, which they cannot agree about.
        if batch_idx < fewest and self._asked(trainer):
            self.mid_validation = True
            raise SIGTERMException

    def on_validation_end(self, trainer: pl.Trainer, pl_module: LightningModule) -> None:
        self.validated_step = trainer.global_step  # `last.ckpt` is written at the same moment

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self.mid_validation:
            begin_validation_anew(checkpoint)

    def on_exception(self, trainer: pl.Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if not isinstance(exception, SIGTERMException) or trainer.state.fn != TrainerFn.FITTING or not self.training:
            return
        if self.validated_step != trainer.global_step:
            trainer.save_checkpoint(Run.of_trainer(trainer).last)

    def end(self) -> None:
        """From now on nothing but SIGINT disturbs what is left to do: W&B's files, and the job's place in the queue."""
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)

    def leave(self, trainer: pl.Trainer, command: str) -> NoReturn:
        """Say how to go on, put a SLURM job that got SIGUSR1 back into the queue, and exit as a shell expects.

        Args:
            trainer: That was interrupted.
            command: Which goes on, or does it again.
        """
        name = (self.agreed or self.received or signal.SIGTERM).name
        if trainer.is_global_zero:
            when = f" after step {trainer.global_step}" if self.training else ""
            with contextlib.suppress(OSError):  # whoever listened may be gone, after SIGHUP
                print(f"\nended by {name}{when}; go on with: {command}", flush=True)
            environment = getattr(trainer.strategy, "cluster_environment", None)
            if name == "SIGUSR1" and isinstance(environment, SLURMEnvironment) and environment.auto_requeue:
                array = os.environ.get("SLURM_ARRAY_JOB_ID")
                task = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ["SLURM_JOB_ID"]
                subprocess.run(["scontrol", "requeue", task], check=True)
            sys.exit(128 + signal.Signals[name])
        sys.exit(0)  # launchers would kill the first process when another one ends with an error
