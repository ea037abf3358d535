"""One command: which run it is about, and which processes take part."""

from pathlib import Path

from commands import BY_FIRST_PROCESS, OF_DATA, VERBS
from commands.fit import Fit
from commands.parser import ParsedCommand
from runtime.lightning import set_folder
from runtime.processes import in_all_processes
from runtime.run import Run, find_checkpoint


class Command(ParsedCommand):
    """One command line, parsed and instantiated; `run` does it."""

    def run(self) -> None:
        """Do it, in all processes that take part; a run that is refused leaves no folder."""
        alone = self.verb in BY_FIRST_PROCESS
        if alone and not self.trainer.is_global_zero:
            return
        if self.verb == "fit":
            self.datamodule.check_processes(self.trainer.world_size)
        checkpoint = self._checkpoint()
        run = self._run(checkpoint) if self.trainer.is_global_zero else None
        try:
            if alone:
                self._ask(run, checkpoint)
            elif self.verb in VERBS:
                in_all_processes(self.trainer, lambda: self._ask(self._agreed(run), checkpoint))
            else:
                fit = Fit(self, checkpoint)
                classifier = fit.classifier()
                in_all_processes(self.trainer, lambda: fit.run(self._agreed(run), classifier))
        finally:
            if run:
                run.remove_if_empty()

    def _checkpoint(self) -> Path | None:
        """The checkpoint to go on from or to ask, if any."""
        wanted = self.settings.get("ckpt_path") or (None if self.verb in ("fit", *OF_DATA) else "best")
        if wanted == "auto":
            begins = self.verb == "fit" and not Run.newest(self.root, self.name, "last")
            wanted = None if begins else "last"
        return find_checkpoint(self.root, self.name, wanted) if wanted else None

    def _run(self, checkpoint: Path | None) -> Run:
        """The run of the checkpoint, or a new one."""
        if self.verb in OF_DATA:
            return Run(self.root, self.name, self.root / self.name)
        return (checkpoint and Run.of(checkpoint)) or Run.new(self.root, self.name)

    def _agreed(self, run: Run | None) -> Run:
        """The first process's run, in every process; they are in one process group."""
        agreed = self.trainer.strategy.broadcast(run)
        assert agreed is not None
        set_folder(self.trainer, agreed.folder)
        return agreed

    def _ask(self, run: Run | None, checkpoint: Path | None) -> None:
        """Run a verb of ours."""
        assert run is not None
        set_folder(self.trainer, run.folder)
        arguments = self.verb_arguments()
        if "ckpt_path" in arguments:
            arguments["ckpt_path"] = checkpoint
        getattr(self.trainer, self.verb)(**arguments)
