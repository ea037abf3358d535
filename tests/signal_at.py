"""Callbacks, named in a test's command line, that send signals at a chosen moment."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from pytorch_lightning import Callback
from pytorch_lightning.trainer.states import TrainerFn


class SignalAt(Callback):
    """To this process and its loader processes, in the batch that makes step `step` or in the validation after it.

    Args:
        step: Of training, from 1; 0 for the end of the training, when there is no step left.
        name: Of the signal.
        in_validation: Whether to wait for the validation.
        rank: Of the process that gets it.
    """

    def __init__(self, step: int, name: str = "SIGTERM", in_validation: bool = False, rank: int = 0) -> None:
        self.step, self.name, self.in_validation, self.rank = step, name, in_validation, rank

    def _send(self, trainer, now):
        if now and trainer.global_rank == self.rank:
            processes = (*multiprocessing.active_children(), multiprocessing.current_process())
            sending = "import os, sys; [os.kill(int(pid), int(sys.argv[1])) for pid in sys.argv[2:]]"
            number = str(int(signal.Signals[self.name]))
            # From outside, as a queue does: torch takes one from its parent for an order to a loader process.
            subprocess.run([sys.executable, "-c", sending, number, *(str(process.pid) for process in processes)])
            time.sleep(0.5 * (len(processes) > 1))  # so that a loader process that has died is noticed

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self._send(trainer, not self.in_validation and trainer.global_step == self.step - 1)

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        now = self.in_validation and trainer.global_step == self.step and batch_idx == 0
        self._send(trainer, now and trainer.state.fn == TrainerFn.FITTING)

    def on_train_end(self, trainer, pl_module):
        self._send(trainer, self.step == 0)


class KillWandb(Callback):
    """Kills W&B's own process after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == self.step:
            for process in Path("/proc").glob("[0-9]*"):
                words = (process / "cmdline").read_text().split("\0")
                if words[0].endswith("wandb-core") and str(os.getpid()) in words:
                    os.kill(int(process.name), signal.SIGKILL)


class LearningRate(Callback):
    """Sets the learning rate after a step, when its checkpoint is written."""

    def __init__(self, step: int, value: float) -> None:
        self.step, self.value = step, value

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.step:
            for group in trainer.optimizers[0].param_groups:
                group["lr"] = self.value
