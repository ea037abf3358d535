"""Where runs lie: runs/<config name>/<start time>/checkpoints/{last,best}.ckpt."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from callbacks.atomic import remove_temporaries

UNFINISHED = "unfinished"  # a file in the folder of a run whose training has not ended by itself
LOCK = "training.lock"  # held by the process that trains it


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
        except (NotADirectoryError, PermissionError) as error:
            raise OSError(f"cannot make the folder {folder} ({error.strerror}); give another one") from error


def run_folder_of(checkpoint: Path) -> Path | None:
    """The run that wrote a checkpoint; None where it does not lie in a run's folder."""
    return checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else None


@contextmanager
def training(folder: Path) -> Iterator[None]:
    """The training of a run: others can wait for it, and see afterwards whether it ended by itself.

    Raises:
        ValueError: Another process trains it.
    """
    try:
        with FileLock(folder / LOCK, timeout=0):
            (folder / UNFINISHED).touch()
            for place in (folder, folder / "checkpoints"):
                remove_temporaries(place)
            yield
            (folder / UNFINISHED).unlink()
    except Timeout as error:
        raise ValueError(
            f"another process is training {folder}; wait for its end, or leave out --ckpt_path to train anew; if no "
            f"process does, delete {folder / LOCK}"
        ) from error


def wait_for_trainings(root: Path, name: str) -> None:
    """Until no process trains a run of this config."""
    for mark in sorted((root / name).glob(f"*/{UNFINISHED}")):
        lock = FileLock(mark.parent / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"another process is training {mark.parent} and holds {LOCK} there; waiting for its end", flush=True)
            lock.acquire()
        lock.release()


def newest_checkpoint(root: Path, name: str, kind: str, finished: bool = False) -> Path | None:
    """The checkpoint "best" or "last" of the newest run of a config that has one; or of the newest finished run."""
    found = sorted((root / name).glob(f"*/checkpoints/{kind}.ckpt"), key=lambda path: path.parent.parent.name)
    if finished:
        found = [path for path in found if not (path.parent.parent / UNFINISHED).exists()]
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
