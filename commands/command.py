"""One command: which run it is about, and which processes take part."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from commands import BY_FIRST_PROCESS, OF_DATA, VERBS
from commands.fit import Fit
from commands.parser import ParsedCommand
from runtime.lightning import set_folder
from runtime.processes import check_started, in_all_processes
from runtime.run import Run, check_name, find_checkpoint


class Command(ParsedCommand):
    """One command line, parsed and instantiated; `run` does it."""

    def run(self) -> None:
        """Do it, in all processes that take part."""
        check_started(self.trainer)
        alone = self.verb in BY_FIRST_PROCESS
        if alone and not self.trainer.is_global_zero:
            return
        if self.verb == "fit":
            self.datamodule.check_processes(self.trainer.world_size)
        if self.settings.name is not None:
            check_name(self.settings.name)
        # Every process looks, for all must know whether a training begins; what the first one finds is taken.
        checkpoint = self._checkpoint()
        with self._run(checkpoint) if self.trainer.is_global_zero else nullcontext() as run:
            if alone:
                self._ask(run, checkpoint)
            elif self.verb in VERBS:
                in_all_processes(self.trainer, lambda: self._ask(*self._agreed(run, checkpoint)))
            else:
                fit = Fit(self, checkpoint)
                classifier = fit.classifier()
                in_all_processes(self.trainer, lambda: fit.run(*self._agreed(run, checkpoint, classifier)))

    def _checkpoint(self) -> Path | None:
        """The checkpoint to go on from or to ask, if any."""
        wanted = self.settings.get("ckpt_path") or (None if self.verb in ("fit", *OF_DATA) else "best")
        called = self.settings.name
        if wanted == "auto":
            newest = Run.called(self.root, self.name, called) if called else Run.newest(self.root, self.name, "last")
            begins = self.verb == "fit" and not (newest and newest.last.is_file())
            wanted = None if begins else "last"
        return find_checkpoint(self.root, self.name, wanted, called) if wanted else None

    @contextmanager
    def _run(self, checkpoint: Path | None) -> Iterator[Run]:
        """A block with the run of the checkpoint, or with a new one. If it is trained, no other process can meanwhile.

        Raises:
            ValueError: Another process does, or the checkpoint is of another run than the one that is named.
        """
        called, run = self.settings.name, checkpoint and Run.of(checkpoint)
        if self.verb in OF_DATA:
            yield Run(self.root, self.name, self.root / self.name)
        elif not run:
            with Run.new(self.root, self.name, called, training=self.verb == "fit") as run:
                yield run
        elif called and run.folder.resolve() != Run.called(self.root, self.name, called).folder.resolve():
            raise ValueError(f"--ckpt_path is {checkpoint}, which is not of the run --name {called}; give one of both")
        else:
            with run.held() if self.verb == "fit" else nullcontext():
                yield run

    def _agreed(self, *found: Run | Path | None) -> tuple[Any, ...]:
        """What the first process has found, a run and more, in every process; they are in one process group."""
        agreed: tuple[Any, ...] = self.trainer.strategy.broadcast(found)
        set_folder(self.trainer, agreed[0].folder)
        return agreed

    def _ask(self, run: Run | None, checkpoint: Path | None) -> None:
        """Run a verb of ours."""
        assert run is not None
        set_folder(self.trainer, run.folder)
        arguments = self.verb_arguments()
        if "ckpt_path" in arguments:
            arguments["ckpt_path"] = checkpoint
        getattr(self.trainer, self.verb)(**arguments)
