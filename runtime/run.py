"""A run and its folder, runs/<config name>/<start time, or the name it was given>/, with all that is measured of it."""

import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytorch_lightning as pl

from evaluations.run_order import RECORD, RunRecord, in_order, record_of
from runtime.computer import machine, versions
from runtime.files import json_bytes, locked, remove_temporaries, write_all


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
    @contextmanager
    def new(cls, root: Path, name: str, called: str | None = None, training: bool = False) -> Iterator["Run"]:
        """A block with a run that begins now; it leaves no folder where nothing was written into it.

        What was left by runs of the config that were killed before their first checkpoint is removed.

        Args:
            root: The folder of all runs.
            name: The config's.
            called: The run's, in place of the time. A run of this name that has no checkpoint begins again.
            training: No other process can train it in the block.

        Raises:
            OSError: No folder can be made.
            ValueError: There is a run of this name, or another process trains it.
        """
        config = root / name
        with ExitStack() as stack:
            with _config_locked(config):
                _remove_remains(root, name)
                records = [record for run in cls.all(root, name) if (record := record_of(run.folder))]
                run = cls(root, name, _made(config / called) if called else new_folder(config))
                if training:
                    stack.enter_context(run.held())
                if called:
                    run._check_free()
                stack.callback(run._remove_if_empty)
                if training:
                    run._unfinished.touch()
                number = 1 + max((record.number for record in records), default=0)
                record = RunRecord(
                    number=number, folder=run.folder.name, named=called is not None, machine=machine(),
                    versions=versions(),
                )  # fmt: skip
                write_all({run.folder / RECORD: json_bytes(record.to_json())})
            yield run

    @classmethod
    def of(cls, checkpoint: Path) -> "Run | None":
        """The run that wrote a checkpoint; None where it does not lie in a run's folder."""
        return cls._in(checkpoint.parent.parent) if checkpoint.parent.name == "checkpoints" else None

    @classmethod
    def of_config(cls, config: Path) -> "Run | None":
        """The run whose own config this is; None where it is any other file."""
        run = cls._in(config.absolute().parent)
        return run if run.config.name == config.name and (run.folder / RECORD).is_file() else None

    @classmethod
    def of_trainer(cls, trainer: pl.Trainer) -> "Run":
        """The run whose folder is the trainer's."""
        return cls._in(Path(trainer.default_root_dir))

    @classmethod
    def _in(cls, folder: Path) -> "Run":
        return cls(folder.parent.parent, folder.parent.name, folder)

    @classmethod
    def all(cls, root: Path, name: str) -> list["Run"]:
        """Every run of a config, from the oldest to the newest."""
        folders = (path for path in (root / name).glob("*/") if not path.name.startswith("."))
        return [cls(root, name, folder) for folder in in_order(folders)]

    @classmethod
    def called(cls, root: Path, name: str, called: str) -> "Run":
        """The run that has, or would have, a name of its own."""
        return cls(root, name, root / name / called)

    @classmethod
    def newest(cls, root: Path, name: str, kind: str) -> "Run | None":
        """The newest run of a config that has a checkpoint "best" or "last"."""
        return next((run for run in reversed(cls.all(root, name)) if run.checkpoint(kind).is_file()), None)

    @property
    def config(self) -> Path:
        """How its model, its data and its training were asked for."""
        return self.folder / "config.yaml"

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    def checkpoint(self, kind: str) -> Path:
        """The one called "best" or "last"."""
        return self.checkpoints / f"{kind}.ckpt"

    @property
    def best(self) -> Path:
        """The checkpoint with the best validation."""
        return self.checkpoint("best")

    @property
    def last(self) -> Path:
        """The checkpoint from which the run goes on."""
        return self.checkpoint("last")

    def update(self, step: int) -> Path:
        """The checkpoint that is kept after so many updates."""
        return self.checkpoints / f"update_{step:06d}.ckpt"

    @property
    def activations(self) -> Path:
        """The folder of representations that are kept on disk for all runs."""
        return self.root / "activations"

    @property
    def finished(self) -> bool:
        """Whether the training has ended by itself."""
        return not self._unfinished.exists()

    @property
    def _unfinished(self) -> Path:
        """A file that is there while the training has not ended by itself."""
        return self.folder / "unfinished"

    @property
    def _lock(self) -> Path:
        """A file that is locked by the process that trains the run."""
        return self.folder / "training.lock"

    @property
    def _results_lock(self) -> Path:
        """A file that is locked by the process that writes an answer."""
        return self.folder / "results.lock"

    @contextmanager
    def held(self) -> Iterator[None]:
        """A block in which no other process trains this run, nor adds to its metrics.

        Raises:
            ValueError: Another process does.
        """
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(self._lock, wait=False))
            except BlockingIOError as error:
                raise ValueError(
                    f"another process is training {self.folder}; wait for its end, which frees the run even where it "
                    f"is killed, or train anew: without --ckpt_path, or with another --name"
                ) from error
            yield

    @contextmanager
    def in_training(self) -> Iterator[None]:
        """A block that trains this run, which is held: one can see afterwards whether it ended by itself."""
        self._unfinished.touch()
        for folder in (self.folder, self.checkpoints):
            remove_temporaries(folder)
        yield
        self._unfinished.unlink(missing_ok=True)

    def begin_training(self, recipe: str, max_steps: int, anew: bool) -> None:
        """Keep how it is trained, as `RunRecord` has it; what goes on with other keys is of no one recipe."""
        if record := record_of(self.folder):
            same = anew or (record.recipe, record.max_steps) == (recipe, max_steps)
            self._keep(replace(record, images=None, recipe=recipe if same else None, max_steps=max_steps))

    def end_training(self, images: int, steps: int) -> None:
        """Keep what a training saw that has just ended by itself; versions up to 0.4 gave no record."""
        if record := record_of(self.folder):
            self._keep(replace(record, images=images, recipe=record.recipe if steps == record.max_steps else None))

    def _keep(self, record: RunRecord) -> None:
        write_all({self.folder / RECORD: json_bytes(record.to_json())})

    @property
    def training(self) -> RunRecord | None:
        """The record of a training that has ended by itself; None of one that has not."""
        return record_of(self.folder) if self.finished else None

    def write(self, files: Mapping[str, bytes | memoryview]) -> None:
        """Files of one answer, by their names, in place of those of an earlier one: all of them, the first one last."""
        with locked(self._results_lock):
            write_all({self.folder / name: content for name, content in files.items()})

    def _check_free(self) -> None:
        """Raises ValueError where the folder of a name holds more than a run that was killed before its checkpoint."""
        if any(self._content()) and (self.finished or self._has_come_to_something):
            raise ValueError(
                f"there is a run {self.folder} already; give another --name, or --ckpt_path last to go on with that one"
            )

    def _content(self) -> Iterator[Path]:
        """What lies in the folder beside the marks that a run begins with."""
        marks = {RECORD, self._lock.name, self._unfinished.name, self._results_lock.name}
        return (path for path in self.folder.iterdir() if path.name not in marks)

    @property
    def _has_come_to_something(self) -> bool:
        return any(self.checkpoints.glob("*.ckpt")) or (self.folder / "results.json").exists()

    def _remove_if_empty(self) -> None:
        config = self.folder.parent
        with _config_locked(config), suppress(OSError):
            if not any(self._content()):
                shutil.rmtree(self.folder)
            if [path.name for path in config.iterdir()] == [_config_lock(config).name]:
                _config_lock(config).unlink()
                config.rmdir()

    def _remove_if_killed(self) -> None:
        """Of a run that ended before its first checkpoint, and that the user did not name, nothing stays."""
        if self._is_remains:
            with suppress(OSError), locked(self._lock, wait=False, needed=True):
                if self._is_remains:  # and has not ended just now
                    shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def _is_remains(self) -> bool:
        record = record_of(self.folder)
        if not record and not any(self._content()):  # killed before the lock of its config was free again
            return True
        return not (self.finished or self._has_come_to_something or (record and record.named))


def _config_lock(config: Path) -> Path:
    return config / ".lock"


@contextmanager
def _config_locked(config: Path) -> Iterator[None]:
    """A block in which no other process begins or removes a run of a config. Raises OSError as `_made`."""
    _made(config)
    with locked(_config_lock(config)):
        yield


def _remove_remains(root: Path, name: str) -> None:
    """What killed processes have left of a config whose lock is held."""
    remove_temporaries(root / name)
    for run in Run.all(root, name):
        for folder in (run.folder, run.checkpoints):
            remove_temporaries(folder)
        run._remove_if_killed()


def _made(folder: Path, exist_ok: bool = True) -> Path:
    """A folder, which is made. Raises OSError with the remedy where it cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=exist_ok)
    except (NotADirectoryError, PermissionError, FileExistsError) as error:
        if isinstance(error, FileExistsError) and not exist_ok:
            raise
        raise OSError(f"cannot make the folder {folder} ({error.strerror}); give another one") from error
    return folder


def new_folder(parent: Path) -> Path:
    """Make a folder named by the time, never one that exists. Raises OSError where none can be made."""
    start = time.strftime("%Y-%m-%d_%H-%M-%S")
    attempt = 1
    while True:
        with suppress(FileExistsError):
            return _made(parent / (start if attempt == 1 else f"{start}_{attempt}"), exist_ok=False)
        attempt += 1


def check_name(name: str) -> None:
    """Raises ValueError where a run cannot be called so."""
    if Path(name).name != name or name[:1] in ("", ".") or not name.isprintable() or len(name.encode()) > 100:
        raise ValueError(
            f"--name {name!r} is no name for a folder; give at most 100 letters, digits and other signs without a "
            f"slash, and not a dot first"
        )


def wait_for_trainings(root: Path, name: str) -> None:
    """Until no process trains a run of this config."""
    for run in Run.all(root, name):
        if not run.finished:
            words = f"another process is training {run.folder} and holds {run._lock}; waiting for its end"
            with locked(run._lock, announcement=words):
                pass


def find_checkpoint(root: Path, name: str, wanted: str, called: str | None = None) -> Path:
    """A checkpoint by path, or by "best" or "last" of a config's newest run, or of the one that is called so.

    Raises:
        FileNotFoundError: There is none; the message gives the command that makes one.
    """
    if wanted in ("best", "last"):
        run = Run.called(root, name, called) if called else Run.newest(root, name, wanted)
        if run is None or not run.checkpoint(wanted).is_file():
            where, more = (run.folder, f" --name {called}") if run else (root / name, "")
            raise FileNotFoundError(
                f"no {wanted} checkpoint in {where}; make one with: python cli.py fit --config {name}.yaml{more}"
            )
        return run.checkpoint(wanted)
    if not Path(wanted).is_file():
        raise FileNotFoundError(f"no checkpoint at {wanted}; give a file, or best or last for the newest run of {name}")
    return Path(wanted)
