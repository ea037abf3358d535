"""The classifier that an inverter needs, trained first where it is missing."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock

from callbacks.run_folders import newest_checkpoint

# Set by launchers of several processes; the classifier's training is one process of its own.
DISTRIBUTED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT")


def trained_classifier(root: Path, name: str, program: Path, arguments: Sequence[str], train: bool) -> Path:
    """The best checkpoint of a classifier config's newest run.

    Where there is none, the config is trained, once: other processes wait at a lock file and then find it.

    Args:
        root: The folder of all runs.
        name: Of the config.
        program: cli.py.
        arguments: That the training shares with the inverter's.
        train: Whether to train it at all.

    Raises:
        FileNotFoundError: It is missing and is not to be trained.
        RuntimeError: The training failed.
    """
    command = f"python cli.py fit --config {name}.yaml"
    (root / name).mkdir(parents=True, exist_ok=True)
    with FileLock(root / name / "train.lock"):
        found = newest_checkpoint(root, name, "best")
        if found is None and not train:
            raise FileNotFoundError(f"no trained classifier in {root / name}; train it with: {command}")
        if found is None:
            print(f"no trained classifier in {root / name} yet; training it first: {command}", flush=True)
            environment = {k: v for k, v in os.environ.items() if k not in DISTRIBUTED}
            call = [sys.executable, str(program), "fit", "--config", f"{name}.yaml", *arguments]
            status = subprocess.run(call, env=environment, check=False).returncode
            found = newest_checkpoint(root, name, "best")
            if status or found is None:
                raise RuntimeError(f"training the classifier failed with status {status}; to try it alone: {command}")
    return found
