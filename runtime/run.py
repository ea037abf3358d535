"""A run and its folder: runs/<config name>/<start time>/, with the results of the config's latest test beside it."""

import contextlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytorch_lightning as pl
from filelock import FileLock, Timeout

from runtime.files import remove_temporaries


@dataclass(frozen=True)
class Run:
    """One training of a config, or one question that has no training.

    Args:
        root: The folder of all runs.
        name: The config's.
        folder: This run's own.
    """

    root: Path
    name: str
    folder: Path

    @classmethod
    def new(cls, root: Path, name: str) -> "Run":
        """A run that starts now, with a folder that did not exist."""
        return cls(root, name, new_folder(root / name))

    @classmethod
    def of(cls, checkpoint: Path) -> "Run | None":
        """The run that wrote a checkpoint; None where it does not lie in a run's folder."""
        return cls._in(checkpoint.parent.parent) if checkpoint.parent.name == "checkpoints" else None

    @classmethod
    def of_trainer(cls, trainer: pl.Trainer) -> "Run":
        """The run whose folder is the trainer's."""
        return cls._in(Path(trainer.default_root_dir))

    @classmethod
    def _in(cls, folder: Path) -> "Run":
        return cls(folder.parent.parent, folder.parent.name, folder)

    @classmethod
    def newest(cls, root: Path, name: str, kind: str, finished: bool = False) -> "Run | None":
        """The newest run of a config that has a checkpoint "best" or "last", and whose training has ended, if asked."""
        folders = sorted(path.parent.parent for path in (root / name).glob(f"*/checkpoints/{kind}.ckpt"))
        runs = [cls(root, name, folder) for folder in folders]
        return next((run for run in reversed(runs) if not (finished and run._unfinished.exists())), None)

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def best(self) -> Path:
        """The checkpoint with the best validation."""
        return self.checkpoints / "best.ckpt"

    @property
    def last(self) -> Path:
        """The checkpoint from which the run goes on."""
        return self.checkpoints / "last.ckpt"

    def update(self, step: int) -> Path:
        """The checkpoint that is kept after so many updates."""
        return self.checkpoints / f"update_{step:06d}.ckpt"

    @property
    def results(self) -> Path:
        """The folder of what was measured, the latest of all runs of the config."""
        return self.root / self.name

    @property
    def activations(self) -> Path:
        """The folder of representations that are kept on disk for all runs."""
        return self.root / "activations"

    @property
    def _unfinished(self) -> Path:
        """A file that is there while the training has not ended by itself."""
        return self.folder / "unfinished"

    @property
    def _lock(self) -> Path:
        """A file that is locked by the process that trains the run."""
        return self.folder / "training.lock"

    @contextmanager
    def in_training(self) -> Iterator[None]:
        """A block that trains this run: others can wait for it, and see afterwards whether it ended by itself.

        Raises:
            ValueError: Another process trains it.
        """
        try:
            with FileLock(self._lock, timeout=0):
                self._unfinished.touch()
                for folder in (self.folder, self.checkpoints):
                    remove_temporaries(folder)
                yield
                self._unfinished.unlink()
        except Timeout as error:
            raise ValueError(
                f"another process is training {self.folder}; wait for its end, or leave out --ckpt_path to train anew; "
                f"if no process does, delete {self._lock}"
            ) from error

    def remove_if_empty(self) -> None:
        """A run that was refused leaves no folder; one that holds files stays."""
        with contextlib.suppress(OSError):
            self.folder.rmdir()
            self.folder.parent.rmdir()


def new_folder(parent: Path) -> Path:
    """Make a folder named by the time, never one that exists. Raises OSError where none can be made."""
    start = time.strftime("%Y-%m-%d_%H-%M-%S")
    attempt = 1
    while True:
        folder = parent / (start if attempt == 1 else f"{start}_{attempt}")
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            attempt += 1
        except (NotADirectoryError, PermissionError) as error:
            raise OSError(f"cannot make the folder {folder} ({error.strerror}); give another one") from error


def wait_for_trainings(root: Path, name: str) -> None:
    """Until no process trains a run of this config."""
    for folder in sorted(path.parent for path in (root / name).glob("*/unfinished")):
        lock = FileLock(Run(root, name, folder)._lock)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"another process is training {folder} and holds {lock.lock_file}; waiting for its end", flush=True)
            lock.acquire()
        lock.release()


def find_checkpoint(root: Path, name: str, wanted: str) -> Path:
    """A checkpoint by path, or by "best" or "last" of a config's newest run.

    Raises:
        FileNotFoundError: There is none; the message gives the command that makes one.
    """
    if wanted in ("best", "last"):
        run = Run.newest(root, name, wanted)
        if run is None:
            raise FileNotFoundError(
                f"no {wanted} checkpoint in {root / name}; make one with: python cli.py fit --config {name}.yaml"
            )
        return run.best if wanted == "best" else run.last
    if not Path(wanted).is_file():
        raise FileNotFoundError(f"no checkpoint at {wanted}; give a file, or best or last for the newest run of {name}")
    return Path(wanted)
