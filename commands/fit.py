"""Lightning's own verbs on one run, fit, validate, test and predict, with everything of ours around them."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from itertools import pairwise
from pathlib import Path
from shlex import join

from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.exceptions import SIGTERMException

from callbacks.bits_per_dim import BitsPerDim
from callbacks.cache_activations import CacheActivations
from callbacks.calibrate import Calibrate
from callbacks.cost_estimate import CostEstimate, say_beforehand
from callbacks.cross_entropy import CrossEntropy
from callbacks.exact_resume import ExactResume
from callbacks.initialise_from_data import InitialiseFromData
from callbacks.interruption import Interruption
from callbacks.keep_updates import KeepUpdates
from callbacks.listens_to_h import ListensToH
from callbacks.network_accuracy import NetworkAccuracy
from callbacks.parts_of_loss import PartsOfLoss
from callbacks.patience import Patience
from callbacks.predictions import Predictions
from callbacks.results import ClassifierResults, InverterResults
from callbacks.step_progress import StepProgress
from callbacks.stop_at_nan import StopAtNaN
from callbacks.training_curves import TrainingCurves
from callbacks.weight_averaging import WarmWeightAveraging
from callbacks.without_training import WithoutTraining
from commands.classifier import trained_classifier
from commands.config_files import find_config, read_config, smaller_config
from commands.network_weights import check_source, load_network
from commands.parser import ParsedCommand
from commands.recipe import recipe
from commands.run_labels import labels_of, plain
from commands.sentences import of_a_peer, of_the_device
from inverters import Inverter
from inverters.classifier import ONE_CLASS, Classifier
from inverters.compiled import of_compiler
from inverters.network_by_name import named
from runtime.checkpoints import check_fit, check_resumable, load_checkpoint
from runtime.files import write_all
from runtime.metrics_csv import MetricsCSV
from runtime.run import Run, find_checkpoint, new_folder
from runtime.wandb_run import WandbRun, finish_wandb, wandb_run


class Fit:
    """One command that Lightning runs: what comes before its processes join, and what they do together.

    Args:
        command: Parsed and instantiated.
        checkpoint: To go on from, or to test; None for a new training.
    """

    def __init__(self, command: ParsedCommand, checkpoint: Path | None) -> None:
        self.command, self.checkpoint = command, checkpoint
        self.trainer, self.model, self.data = command.trainer, command.model, command.datamodule
        self.is_inverter = isinstance(self.model, Inverter)
        self.trains = not isinstance(self.model, Inverter) or self.model.density.trained
        self.interruption = Interruption()
        self.sample_grid = command.config_init[command.verb].sample_grid
        published, commit = command.config_init[command.verb].published, current_commit()
        self.results = (
            InverterResults(commit, published, command.settings.num_agreement, self.sample_grid)
            if self.is_inverter else ClassifierResults(commit, published)
        )  # fmt: skip

    def classifier(self) -> Path | None:
        """The checkpoint of the classifier that a new inverter needs, which is trained first where it is missing."""
        command, settings = self.command, self.command.settings
        if command.verb != "fit":
            return None
        self._check_clipping()
        self.interruption.listen()
        if self.checkpoint or not isinstance(self.model, Inverter):
            return None
        check_source(self.model, settings.classifier)
        if not settings.classifier:
            return None
        if settings.classifier.endswith(".ckpt"):
            return find_checkpoint(command.root, command.name, settings.classifier)
        name = Path(settings.classifier).stem
        if name == command.name:
            raise ValueError(f"--classifier {name} is this config itself; give the name of a classifier's")
        if self.data.num_classes < 2:
            raise ValueError(ONE_CLASS)
        self._check_classifier(name)
        self._say_cost(name)
        not_its = (*self.data.LOADING, "left_out_classes")  # it has all classes
        shared = {
            "trainer.default_root_dir": str(command.root),
            "trainer.accelerator": settings.trainer.accelerator,
            "trainer.devices": 1,
            "trainer.deterministic": settings.trainer.deterministic,
            # Everything that decides which image is where, and where they lie.
            "data": settings.data.class_path,
            **{f"data.{key}": value for key, value in settings.data.init_args.items() if key not in not_its},
        }
        with self._until_interrupted():
            return trained_classifier(command.root, name, self.data, shared, settings.train_classifier, command.presets)

    def _check_clipping(self) -> None:
        """Raises ValueError where one norm would be of two players' gradients, each of which would slow the other."""
        clipped, by_value = self.trainer.gradient_clip_val, self.trainer.gradient_clip_algorithm == "value"
        if clipped and not by_value and isinstance(self.model, Inverter) and self.model.density.own_groups():
            raise ValueError(
                f"--trainer.gradient_clip_val {clipped} clips the norm of the generator's and its discriminator's "
                f"gradients together, so that each would slow the other; leave it out, or give "
                f"--trainer.gradient_clip_algorithm value"
            )

    def _check_classifier(self, classifier: str) -> None:
        """Raises ValueError where a classifier would be trained now, and is another network than is inverted."""
        ours = named(self.model.representation.network)
        if ours is None or Run.newest(self.command.root, classifier, "best"):
            return
        model = read_config(find_config(f"{classifier}.yaml")).get("model")
        if ours.name not in str(model):
            raise ValueError(
                f"the classifier {classifier} is another network than {ours.name}; give --classifier null and the "
                f"weights of this one (--model.weights FILE, pretrained or untrained), or the config of its classifier"
            )

    @rank_zero_only
    def _say_cost(self, classifier: str) -> None:
        """Before a classifier is trained for an inverter that a CPU would need days for."""
        smaller, steps = smaller_config(self.command.name), self.command.settings.trainer.max_steps
        missing = Run.newest(self.command.root, classifier, "best") is None
        if self.trains and smaller and missing and steps > 0 and self.trainer.strategy.root_device.type == "cpu":
            size = self.data.batch_size // self.trainer.world_size
            say_beforehand(self.model, self.data.image_shape, steps, size, smaller)

    def run(self, run: Run, checkpoint: Path | None, classifier: Path | None) -> None:
        """Do it, in every process, with what all have agreed on.

        Args:
            run: Held by the first process, where it is trained.
            checkpoint: To go on from, or to test; None for a new training.
            classifier: Whose weights go into a new inverter, if any.
        """
        command, verb, self.checkpoint = self.command, self.command.verb, checkpoint
        first_step, wandb_id = 0, None
        if self.trainer.precision == "64-true":  # Lightning does so after the average and a checkpoint have had float32
            self.model.double()
        if self.checkpoint:
            saved = load_checkpoint(self.checkpoint)
            if isinstance(self.model, Inverter):
                self.model.check_layer(saved, self.checkpoint)
            check_fit(self.model, saved["state_dict"], self.checkpoint)
            self.data.check(saved, self.checkpoint)
            if isinstance(self.model, Inverter | Classifier):
                self.model.load_state_dict(saved["state_dict"])
                self.model.check_network(saved, self.checkpoint)
            if verb == "fit":
                check_resumable(saved, self.checkpoint)
                first_step, wandb_id = saved["global_step"], saved.get("wandb_id")
        elif isinstance(self.model, Inverter):
            load_network(self.model, classifier, self.data)  # before a logger begins: it may be refused
        self.trainer.callbacks += self._callbacks(run)  # type: ignore[attr-defined] # it has
        self.trainer.loggers = self._loggers(run, first_step, wandb_id)
        arguments = command.verb_arguments() | {"ckpt_path": self.checkpoint and str(self.checkpoint)}
        if verb != "fit":
            with self._until_interrupted(self.checkpoint):
                getattr(self.trainer, verb)(**arguments, weights_only=True)
            if verb == "test":
                self._say_results(run)
            return
        rank_zero_only(print)(f"{command.name}: run folder {run.folder}", flush=True)
        with (
            run.in_training() if self.trainer.is_global_zero else nullcontext(),
            self._until_interrupted(self.checkpoint, first_step),
        ):
            if not command.settings.trainer.fast_dev_run:  # which leaves nothing
                self._save_config(run)
                if self.trainer.is_global_zero:
                    its = recipe(command.settings, self.data)
                    steps = int(self.trainer.max_steps) if self.trains else 0
                    run.begin_training(its, steps, anew=not first_step)
            if self.trains:
                if command.settings.compile and self.is_inverter:
                    self.model.compile_steps(self.trainer.strategy.root_device.type)
                self.trainer.fit(**arguments, weights_only=True)
            elif not self.checkpoint:
                self._without_training(run)
            if self.trainer.is_global_zero and not command.settings.trainer.fast_dev_run:
                steps = self.trainer.global_step
                run.end_training(steps * self.data.batch_size, steps)
                self._log_files(run, classifier)
        if command.settings.test_after_fit and not command.settings.trainer.fast_dev_run:
            with self._until_interrupted():
                self.trainer.test(
                    self.model, datamodule=self.data, ckpt_path=str(run.best), verbose=False, weights_only=True
                )
            self._say_results(run)

    def _without_training(self, run: Run) -> None:
        """What a training leaves, of a generator that has nothing to train."""
        if not self.trainer.fast_dev_run:  # type: ignore[attr-defined] # it has
            self.trainer.limit_val_batches = 1  # nothing is chosen by it
        self.trainer.validate(self.model, datamodule=self.data, verbose=False)
        if not self.command.settings.trainer.fast_dev_run:
            for path in (run.best, run.last):
                self.trainer.save_checkpoint(path)

    def _callbacks(self, run: Run) -> list[Callback]:
        settings, verb = self.command.settings, self.command.verb
        monitor, mode = self.model.monitor
        callbacks: list[Callback] = []
        if self.is_inverter:
            callbacks += [InitialiseFromData(), BitsPerDim(), PartsOfLoss(), ListensToH()]
            callbacks += [self.results, self.sample_grid]
            if self.trains:
                callbacks += [
                    WarmWeightAveraging(settings.averaging_decay),
                    Calibrate(),  # after the averaged weights are swapped in
                ]
        else:
            callbacks += [CrossEntropy(), self.results]
        if verb == "fit":
            callbacks += [StopAtNaN(settings.trainer.log_every_n_steps or 50), ExactResume()]
            callbacks += (
                [TrainingCurves(), Patience(monitor, mode, settings.patience)] if self.trains else [WithoutTraining()]
            )
            if self.is_inverter:
                callbacks.append(NetworkAccuracy())
                if self.trains:
                    callbacks.append(CostEstimate(smaller_config(self.command.name)))
                if self.trains and settings.cache_activations != "none":
                    callbacks.append(CacheActivations(run.activations, settings.cache_activations))
            if settings.keep_updates:
                callbacks.append(KeepUpdates(settings.keep_updates))
        if verb == "predict":
            callbacks.append(Predictions())
        callbacks.append(self.interruption)  # after the averaged weights are swapped out
        if settings.trainer.enable_progress_bar is not False:
            callbacks.append(StepProgress())
        if verb == "fit" and self.trains:
            folder = str(run.checkpoints)
            callbacks += [
                ModelCheckpoint(folder, run.best.stem, monitor=monitor, mode=mode, enable_version_counter=False),
                ModelCheckpoint(folder, run.last.stem, save_on_train_epoch_end=False, enable_version_counter=False),
            ]
        return callbacks

    def _loggers(self, run: Run, first_step: int, wandb_id: str | None) -> list[Logger]:
        wanted = self.command.config_init[self.command.verb].trainer.logger
        if wanted not in (None, True):
            return wanted if isinstance(wanted, list) else [wanted] if wanted else []
        if self.command.verb != "fit" or self.command.settings.trainer.fast_dev_run:
            return []
        about = {
            "dataset": self.data.name, "network": self.model.network_name,
            "layer": self.model.representation.layer if isinstance(self.model, Inverter) else None,
        }  # fmt: skip
        command = self.command
        called = labels_of(run, command.words, command.settings.name, self.model, self.data)
        config = plain({**about, **command.settings.as_dict()})
        return [MetricsCSV(run.folder, first_step), wandb_run(run.name, run.folder, config, called, wandb_id)]

    def _log_files(self, run: Run, classifier: Path | None) -> None:
        """Of which classifier the trained weights are, and which they are, for whoever draws what came of what."""
        for logger in self.trainer.loggers:
            if isinstance(logger, WandbRun):
                if classifier:
                    its = Run.of(classifier)
                    logger.use_file(classifier, its.name if its else classifier.stem, "model")
                logger.log_file(run.best, run.name, "model")

    @rank_zero_only
    def _save_config(self, run: Run) -> None:
        path = run.config
        if self.checkpoint and path.exists():  # a resumed run
            path = new_folder(run.folder / "resumed") / path.name
        write_all({path: self.command.config_text().encode()})

    def _command_to_go_on(self) -> str:
        """What goes on with this run, or does it again where it has no checkpoint."""
        words, last = self.command.words, Run.of_trainer(self.trainer).last
        if self.command.verb == "fit" and last.is_file():
            pairs = pairwise(["", *words])
            kept = [w for before, w in pairs if "--ckpt_path" not in (before, w.split("=")[0])]
            words = [*kept, "--ckpt_path", str(last)]
        return join(["python", "cli.py", *words])

    @contextmanager
    def _until_interrupted(self, checkpoint: Path | None = None, first_step: int = 0) -> Iterator[None]:
        """A block that a signal may end; it then says how to go on.

        Args:
            checkpoint: That it begins with.
            first_step: The steps that this has done.

        Raises:
            ValueError: The checkpoint is whole, but does not hold what Lightning expects; seen at the first step.
        """
        try:
            yield
        except (TypeError, LookupError, AttributeError, RuntimeError) as error:
            loops = self.trainer.validate_loop, self.trainer.test_loop, self.trainer.predict_loop
            begun = self.trainer.global_step > first_step or any(loop.batch_progress.total.completed for loop in loops)
            of_another = of_a_peer(error) or of_the_device(error) or of_compiler(error)
            if checkpoint is None or begun or of_another:
                raise
            raise ValueError(
                f"{type(error).__name__} in a run that goes on from {checkpoint}, which was changed or is of "
                f"another version: {error}; give another checkpoint, or leave out --ckpt_path to train anew"
            ) from error
        except SIGTERMException:
            self.interruption.end()
            finish_wandb()  # before the queue ends this process
            self.interruption.leave(self.trainer, self._command_to_go_on())

    @rank_zero_only
    def _say_results(self, run: Run) -> None:
        print(f"\n{self.results.result.summary()}")
        print(f"  numbers         {run.folder / 'results.json'}")
        pictures = run.folder / "samples.png"
        if pictures.is_file():
            print(f"  pictures        {pictures}")


def current_commit() -> str | None:
    """The commit of this code, with "-dirty" where files differ from it; None outside a repository."""
    folder = str(Path(__file__).parent)
    try:
        described = subprocess.run(
            ["git", "-C", folder, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return None
    return described.stdout.strip()
