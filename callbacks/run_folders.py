"""Where runs lie: runs/<config name>/<start time>/checkpoints/{last,best}.ckpt."""

import time
from pathlib import Path


def new_run_folder(root: Path, name: str) -> Path:
    """Make a folder for a run that starts now, never one that exists."""
    start = time.strftime("%Y-%m-%d_%H-%M-%S")
    attempt = 1
    while True:
        folder = root / name / (start if attempt == 1 else f"{start}_{attempt}")
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            attempt += 1


def run_folder_of(checkpoint: Path) -> Path | None:
    """The run that wrote a checkpoint; None where it does not lie in a run's folder."""
    return checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else None


def newest_checkpoint(root: Path, name: str, kind: str) -> Path | None:
    """The checkpoint "best" or "last" of the newest run of a config that has one."""
    found = sorted((root / name).glob(f"*/checkpoints/{kind}.ckpt"), key=lambda path: path.parent.parent.name)
    return found[-1] if found else None


def find_checkpoint(root: Path, name: str, wanted: str) -> Path:
    """A checkpoint by path, or by "best" or "last" of a config's newest run.

    Raises:
        FileNotFoundError: There is none; the message gives the command that makes one.
    """
    if wanted in ("best", "last"):
        path = newest_checkpoint(root, name, wanted)
        if path is None:
            raise FileNotFoundError(
                f"no {wanted} checkpoint in {root / name}; make one with: python cli.py fit --config {name}.yaml"
            )
        return path
    if not Path(wanted).is_file():
        raise FileNotFoundError(f"no checkpoint at {wanted}; give a file, or best or last for the newest run of {name}")
    return Path(wanted)
