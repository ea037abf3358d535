"""The classifier that an inverter needs, trained first where it is missing."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from commands.config_files import find_config
from datamodules import ImageDataModule
from runtime.checkpoints import load_checkpoint
from runtime.files import locked
from runtime.processes import one_process_environment
from runtime.run import Run, wait_for_trainings

PROGRAM = Path(__file__).resolve().parents[1] / "cli.py"


def trained_classifier(
    root: Path, name: str, data: ImageDataModule, arguments: Mapping[str, Any], train: bool,
    presets: Sequence[Path] = (),
) -> Path:  # fmt: skip
    """The best checkpoint of a classifier config's newest run that saw this data and has ended by itself.

    Where there is none, the config is trained, or its interrupted training goes on, once: others wait at a lock file,
    which the training holds too, and then find it.

    Args:
        root: The folder of all runs.
        name: The config's.
        data: Of the inverter.
        arguments: What the training shares with the inverter's, by key; null values are not given.
        train: Whether to train it at all.
        presets: Which its config is given too.

    Raises:
        FileNotFoundError: It is missing and is not to be trained, or there is no such config.
        ChildProcessError: The training failed.
    """
    command, lock = f"python cli.py fit --config {name}.yaml", root / name / "train.lock"
    if not _newest(root, name, data, "best", finished=True):
        find_config(f"{name}.yaml")
    with locked(lock, announcement=f"another process is training {root / name} and holds {lock}; waiting") as handle:
        run = _newest(root, name, data, "best", finished=True)
        if run is None and train:
            wait_for_trainings(root, name)
            run = _newest(root, name, data, "best", finished=True)
        if run is None and not train:
            raise FileNotFoundError(f"no classifier trained on this data in {root / name}; train it with: {command}")
        if run is None:
            words = f"no classifier trained on this data in {root / name} yet; training it first: {command}"
            print(words, flush=True)
            given = [f"--config={preset}" for preset in presets]
            given += [f"--{key}={_text(value)}" for key, value in arguments.items() if value is not None]
            if interrupted := _newest(root, name, data, "last", finished=False):
                given.append(f"--ckpt_path={interrupted.last}")
            status = _run([sys.executable, str(PROGRAM), *command.split()[2:], *given], handle)
            run = _newest(root, name, data, "best", finished=True)
            if status or run is None:
                raise ChildProcessError(f"training the classifier failed (status {status}); to try it alone: {command}")
    return run.best


def _newest(root: Path, name: str, data: ImageDataModule, kind: str, finished: bool) -> Run | None:
    """The newest of those runs of a config that have ended by themselves, or have not, and saw this data."""
    for run in reversed(Run.all(root, name)):
        path = run.checkpoint(kind)
        if run.finished == finished and path.is_file():
            checkpoint = load_checkpoint(path)
            with suppress(ValueError):
                data.check(checkpoint, path, classifier=finished)
                return run
    return None


def _text(value: Any) -> str:
    """A value as the command line takes it."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _run(call: Sequence[str], lock: int) -> int:
    """A command's exit status. A signal that ends this process ends the command in order, before.

    The command holds the lock of this descriptor too: a signal that cannot be answered ends this process alone.
    """
    with subprocess.Popen(call, env=one_process_environment(), pass_fds=[lock]) as child:
        try:
            return child.wait()
        except BaseException:
            child.terminate()
            child.wait()
            raise
