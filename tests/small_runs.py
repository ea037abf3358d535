"""Small runs of the embedded digits, which tests of resume, faults, mutations and several processes begin with."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CLI = ROOT / "cli.py"
INVERTER = "inverter_mnist5k_fc3"
SMALL = [
    f"--config={INVERTER}.yaml", "--model.density.num_filters=4", "--data.batch_size=4", "--data.eval_batch_size=10",
    "--num_agreement=3", "--sample_grid.num_images=2", "--sample_grid.num_draws=1", "--trainer.accelerator=cpu",
    "--trainer.log_every_n_steps=1", "--data.num_train=100",
]  # fmt: skip
# One batch of validation and test, and a checkpoint after every step.
SHORT = [
    *SMALL, "--trainer.val_check_interval=1", "--trainer.limit_val_batches=1", "--trainer.limit_test_batches=1",
]  # fmt: skip

OWN_NETWORK = """
from collections import OrderedDict
from torch import nn


class TwoStages(nn.Sequential):
    def __init__(self, image_shape, num_classes, num_units: int = 5):
        size = image_shape[0] * image_shape[1] * image_shape[2]
        first = nn.Sequential(nn.Flatten(), nn.Linear(size, num_units), nn.Tanh())
        super().__init__(OrderedDict(first=first, scores=nn.Linear(num_units, num_classes)))
"""


def signal_at(step, name="SIGTERM", in_validation=False, rank=0):
    """The argument that has a run send itself a signal."""
    init = f"{{step: {step}, name: {name}, in_validation: {str(in_validation).lower()}, rank: {rank}}}"
    return f"--trainer.callbacks=[{{class_path: signal_at.SignalAt, init_args: {init}}}]"


def environment_of_its_own(**more):
    """For a command in a process of its own, on one thread, with a W&B of its own: it would join that of this one.

    None takes a variable away.
    """
    environment = {k: v for k, v in os.environ.items() if "WANDB" not in k}
    environment |= {"OMP_NUM_THREADS": "1", "WANDB_MODE": "offline", "WANDB_X_SAVE_REQUIREMENTS": "false"}
    environment |= {"PYTHONPATH": str(ROOT / "tests")} | more
    return {k: v for k, v in environment.items() if v is not None}


def command(folder, *arguments, launcher=(sys.executable,), status=0, **environment):
    """Runs cli.py in a process of its own; what it said."""
    call, environment = [*launcher, str(CLI), *arguments], environment_of_its_own(**environment)
    done = subprocess.run(call, env=environment, cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == status, done.stderr[-3000:]
    return done.stdout + done.stderr


def started(folder, *arguments, **pipes):
    """cli.py, in a process of its own that goes on."""
    call = [sys.executable, str(CLI), *arguments]
    return subprocess.Popen(call, cwd=folder, env=environment_of_its_own(), text=True, **pipes)


def wait_for(condition, seconds=180):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def the_run(folder, name=INVERTER):
    """The only run of a config that has a checkpoint."""
    (last,) = (folder / "runs" / name).glob("*/checkpoints/last.ckpt")
    return last.parent.parent


def run_with_results(name=INVERTER, root="runs"):
    """The folder of the only run of a config that has results."""
    (results,) = Path(root, name).glob("*/results.json")
    return results.parent


def result(name=INVERTER, root="runs"):
    """What is in them."""
    return json.loads((run_with_results(name, root) / "results.json").read_text())


def checkpoint_of(name=INVERTER, kind="last"):
    """Of that run, in the working folder."""
    return the_run(Path(), name) / "checkpoints" / f"{kind}.ckpt"


def write_short_config(folder, name, max_steps):
    """A config in a working folder, which comes before the one of the same name in configs/."""
    limits = f"max_steps: {max_steps}\n  limit_val_batches: 1\n  limit_test_batches: 1"
    text, count = re.subn(r"max_steps: \d+", limits, (ROOT / "configs" / f"{name}.yaml").read_text())
    assert count == 1
    (folder / f"{name}.yaml").write_text(text.replace("num_filters: 24", "num_filters: 4"))


def failure(capsys, *arguments):
    """The one sentence that a failing command prints."""
    from cli import main  # kill_trial.py, a program of its own, does without

    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    assert caught.value.code not in (0, None)
    said = capsys.readouterr().err.replace("\x1b[A", "")  # which a progress bar ends with where another is still open
    lines = [line for line in said.splitlines() if line.lstrip().startswith("error: ")]
    assert len(lines) == 1
    assert "should not happen" not in lines[0]
    return lines[0].lstrip()


class Hang(BaseException):
    """Not an Exception, which would be answered with a sentence."""


def stop(number, frame):
    raise Hang


@contextmanager
def at_most(seconds, num_bytes=None):
    """A mutation that makes something wait, or take so much more memory, ends the test."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    if num_bytes:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + num_bytes, limits[1]))
    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, limits)
