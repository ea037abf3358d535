"""The classifier that an inverter needs, trained first where it is missing."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock

from callbacks.processes import one_process_environment
from callbacks.run_folders import newest_checkpoint, wait_for_trainings


def trained_classifier(root: Path, name: str, program: Path, arguments: Sequence[str], train: bool) -> Path:
    """The best checkpoint of a classifier config's newest run that has ended by itself.

    Where there is none, the config is trained, or its interrupted training goes on, once: others wait at a lock file
    and then find it.

    Args:
        root: The folder of all runs.
        name: Of the config.
        program: cli.py.
        arguments: That the training shares with the inverter's.
        train: Whether to train it at all.

    Raises:
        FileNotFoundError: It is missing and is not to be trained.
        ChildProcessError: The training failed.
    """
    command = f"python cli.py fit --config {name}.yaml"
    (root / name).mkdir(parents=True, exist_ok=True)
    with FileLock(root / name / "train.lock"):
        found = newest_checkpoint(root, name, "best", finished=True)
        if found is None and train:
            wait_for_trainings(root, name)
            found = newest_checkpoint(root, name, "best", finished=True)
        if found is None and not train:
            raise FileNotFoundError(f"no trained classifier in {root / name}; train it with: {command}")
        if found is None:
            print(f"no trained classifier in {root / name} yet; training it first: {command}", flush=True)
            call = [sys.executable, str(program), "fit", "--config", f"{name}.yaml", "--ckpt_path=auto", *arguments]
            status = _run(call)
            found = newest_checkpoint(root, name, "best", finished=True)
            if status or found is None:
                raise ChildProcessError(f"training the classifier failed (status {status}); to try it alone: {command}")
    return found


def _run(call: Sequence[str]) -> int:
    """A command's exit status. A signal that ends this process ends the command in order, before."""
    with subprocess.Popen(call, env=one_process_environment()) as child:
        try:
            return child.wait()
        except BaseException:
            child.terminate()
            child.wait()
            raise
