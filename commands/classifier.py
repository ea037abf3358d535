"""The classifier that an inverter needs, trained first where it is missing."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from commands.config_files import find_config
from runtime.processes import one_process_environment
from runtime.run import Run, wait_for_trainings

PROGRAM = Path(__file__).resolve().parents[1] / "cli.py"


def trained_classifier(root: Path, name: str, arguments: Mapping[str, Any], train: bool) -> Path:
    """The best checkpoint of a classifier config's newest run that has ended by itself.

    Where there is none, the config is trained, or its interrupted training goes on, once: others wait at a lock file
    and then find it.

    Args:
        root: The folder of all runs.
        name: The config's.
        arguments: What the training shares with the inverter's, by key; null values are not given.
        train: Whether to train it at all.

    Raises:
        FileNotFoundError: It is missing and is not to be trained, or there is no such config.
        ChildProcessError: The training failed.
    """
    command = f"python cli.py fit --config {name}.yaml"
    if not Run.newest(root, name, "best", finished=True):
        find_config(f"{name}.yaml")
    (root / name).mkdir(parents=True, exist_ok=True)
    with FileLock(root / name / "train.lock"):
        run = Run.newest(root, name, "best", finished=True)
        if run is None and train:
            wait_for_trainings(root, name)
            run = Run.newest(root, name, "best", finished=True)
        if run is None and not train:
            raise FileNotFoundError(f"no trained classifier in {root / name}; train it with: {command}")
        if run is None:
            print(f"no trained classifier in {root / name} yet; training it first: {command}", flush=True)
            given = [f"--{key}={_text(value)}" for key, value in arguments.items() if value is not None]
            status = _run([sys.executable, str(PROGRAM), *command.split()[2:], "--ckpt_path=auto", *given])
            run = Run.newest(root, name, "best", finished=True)
            if status or run is None:
                raise ChildProcessError(f"training the classifier failed (status {status}); to try it alone: {command}")
    return run.best


def _text(value: Any) -> str:
    """A value as the command line takes it."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _run(call: Sequence[str]) -> int:
    """A command's exit status. A signal that ends this process ends the command in order, before."""
    with subprocess.Popen(call, env=one_process_environment()) as child:
        try:
            return child.wait()
        except BaseException:
            child.terminate()
            child.wait()
            raise
