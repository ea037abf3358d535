"""The command line: python cli.py {fit,test,sample,distances,...} --config NAME.yaml ..."""

import signal
import sys

# Ctrl-C while the libraries are imported, which takes seconds. A job in the background may have been told to ignore it.
if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
    signal.signal(signal.SIGINT, lambda *_: sys.exit(130))

import argparse
import contextlib
import inspect
import os
import shlex
import subprocess
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NoReturn

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.exceptions import SIGTERMException

from callbacks.arguments import check_arguments
from callbacks.atomic import write_all
from callbacks.bits_per_dim import BitsPerDim
from callbacks.cache_activations import CacheActivations
from callbacks.checkpoint_files import CheckpointFiles
from callbacks.config_files import find_config, with_config_paths
from callbacks.cost_estimate import CostEstimate
from callbacks.exact_resume import ExactResume
from callbacks.fit_variance import FitVariance
from callbacks.freeze_classifier import FreezeClassifier
from callbacks.initialise_from_data import InitialiseFromData
from callbacks.interruption import Interruption
from callbacks.keep_updates import KeepUpdates
from callbacks.metrics_csv import MetricsCSV
from callbacks.patience import Patience
from callbacks.predictions import Predictions
from callbacks.processes import in_all_processes, of_first_process
from callbacks.quiet import quiet
from callbacks.report import write_report
from callbacks.results import ClassifierResults, InverterResults, summary
from callbacks.run_folders import find_checkpoint, new_run_folder, newest_checkpoint, run_folder_of, training
from callbacks.sample_grid import SampleGrid
from callbacks.sentences import first_words, of_a_peer, of_parser, tell
from callbacks.step_progress import StepProgress
from callbacks.stop_at_nan import StopAtNaN
from callbacks.trained_classifier import trained_classifier
from callbacks.trainer import Trainer
from callbacks.wandb_run import finish_wandb, wandb_run
from callbacks.weight_averaging import WarmWeightAveraging
from datamodules.affnist import AffNISTDataModule
from datamodules.cifar10 import CIFAR10DataModule
from datamodules.finite_worlds import EnumerableDataModule, GlyphPositionDataModule
from datamodules.image_folder import ImageFolderDataModule
from datamodules.images import ImageDataModule
from datamodules.mnist import MNIST5kDataModule, MNISTDataModule
from datamodules.photos import PhotosDataModule
from datamodules.svhn import SVHNDataModule
from datamodules.worlds import BitDropDataModule, MarkovDataModule, ShuffledDataModule
from inverters.checkpoints import check_fit, check_resumable, load_checkpoint
from inverters.classifier import Classifier
from inverters.exact_networks import EverySecondPixel, GlyphNet, PositionNet, ReluNet, TopBits
from inverters.inverter import Inverter
from inverters.likelihoods import Categorical, LogisticMixture
from inverters.mse_decoder import MSEDecoder
from inverters.networks import ConvNet, FullyConnectedNet
from inverters.pixelcnn import PixelCNN

HERE = Path(__file__).resolve().parent
# Imported here, all of these can be named in a config without their module.
NAMED = (
    Classifier, Inverter, ConvNet, FullyConnectedNet, PixelCNN, MSEDecoder, Categorical, LogisticMixture,
    TopBits, EverySecondPixel, GlyphNet, PositionNet, ReluNet,
    MNISTDataModule, MNIST5kDataModule, CIFAR10DataModule, SVHNDataModule, AffNISTDataModule, ImageFolderDataModule,
    PhotosDataModule, BitDropDataModule, ShuffledDataModule, MarkovDataModule, GlyphPositionDataModule,
    EnumerableDataModule,
)  # fmt: skip
# Where a classifier is trained first, these arguments of the data are the inverter's.
SAME_DATA = ("data_dir", "path", "side", "fit", "channels", "source", "stride", "seed")
# Tells the processes that Lightning starts for DDP who started them, where that one writes, and its checkpoint, if any.
OF_PARENT = "INVERTERS_RUN"


class Parser(LightningArgumentParser):
    """Says what is wrong in one sentence, and takes no abbreviation for a key."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        classes = [c.__name__ for c in NAMED]
        print(f"error: {of_parser(message, known_keys(), classes)}", file=sys.stderr)
        self.exit(2)


def known_keys() -> list[str]:
    """Every name of an argument that a config may give."""
    verbs = (Trainer.sample, Trainer.score, Trainer.distances, Trainer.estimators, Trainer.show)
    callables: list[Any] = [*NAMED, ImageDataModule, pl.Trainer, SampleGrid, *verbs]
    names = {name for function in callables for name in inspect.signature(function).parameters}
    top = {"config", "model", "data", "trainer", "seed_everything", "ckpt_path", "sample_grid", "cache_activations"}
    return sorted(names | top | {"classifier", "train_classifier", "test_after_fit", "patience", "averaging_decay"})


class InverterCLI(LightningCLI):
    """LightningCLI with a folder for each run, our callbacks, and a classifier that is trained when it is missing."""

    trainer: Trainer
    run_folder: Path
    results: ClassifierResults | InverterResults
    name = "unnamed"

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        ours = {"model", "datamodule"}
        theirs = ours | {"dataloaders", "weights_only"}
        return {
            "fit": theirs | {"train_dataloaders", "val_dataloaders"},
            "validate": theirs,
            "test": theirs,
            "predict": theirs | {"return_predictions"},
            "sample": ours,
            "score": ours,
            "distances": ours,
            "estimators": ours,
            "show": ours,
        }

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        for key in ("image_shape", "num_classes"):
            parser.link_arguments(
                "data", f"model.init_args.{key}", compute_fn=lambda data, key=key: getattr(data, key),
                apply_on="instantiate",
            )  # fmt: skip
        parser.add_argument(
            "--classifier", type=str | None, default=None,
            help="The classifier to invert: the name of its config, or the path of its checkpoint.",
        )  # fmt: skip
        parser.add_argument(
            "--train_classifier", type=bool, default=True, help="Train the classifier first where it is missing."
        )
        parser.add_argument("--test_after_fit", type=bool, default=True, help="End fit by testing the best checkpoint.")
        parser.add_argument(
            "--patience", type=int, default=20, help="Validations without improvement before training stops."
        )
        parser.add_argument(
            "--averaging_decay", type=float, default=0.9995, help="Of the moving average of an inverter's weights."
        )
        parser.add_argument(
            "--num_agreement", type=int, default=500, help="Test images whose samples are shown to the classifier."
        )
        parser.add_argument(
            "--keep_updates", type=list[int], default=[], help="Keep checkpoints after these numbers of updates."
        )
        parser.add_argument(
            "--cache_activations", type=Literal["none", "float32", "float16"], default="none",
            help="Keep h of the training images on disk, for all runs, so that no step computes it.",
        )  # fmt: skip
        parser.add_lightning_class_args(SampleGrid, "sample_grid")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        self.arguments = list(sys.argv[1:] if args is None else args)
        arguments, names = with_config_paths(list(self.arguments))
        if names:
            self.name = names[0]
        self.config = parser.parse_args(arguments)

    def _parse_ckpt_path(self) -> None:
        """What is given on the command line wins: nothing is read from the checkpoint here."""

    def before_instantiate_classes(self) -> None:
        # Everything that lies under this key is ours from here on.
        self.settings = self.config[self.subcommand]
        check_arguments(str(self.subcommand), self.settings)
        self.root = Path(self.settings.trainer.default_root_dir or "runs")
        self.checkpoint, self.run_folder = self._places()
        if self.subcommand != "show":
            self.settings.ckpt_path = str(self.checkpoint) if self.checkpoint else None
        trainer = self.settings.trainer
        if trainer.max_steps > 0 and isinstance(trainer.val_check_interval, int):
            # A shorter run still validates once, and so has a best checkpoint.
            trainer.val_check_interval = min(trainer.val_check_interval, trainer.max_steps)

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        self.first_step, self.wandb_id = 0, None
        if self.checkpoint:
            saved = load_checkpoint(self.checkpoint)
            check_fit(self.model, saved["state_dict"], self.checkpoint)
            self.datamodule.check(saved, self.checkpoint)
            if self.subcommand == "fit":
                check_resumable(saved, self.checkpoint)
                self.first_step, self.wandb_id = saved["global_step"], saved.get("wandb_id")
        callbacks = self._callbacks()
        if self.config_init[self.subcommand].trainer.enable_progress_bar is not False:
            callbacks.append(StepProgress())
        config = {**self._get(self.config_init, "trainer"), "default_root_dir": str(self.run_folder)}
        for key in ("limit_train_batches", "limit_val_batches", "limit_test_batches", "limit_predict_batches"):
            # typing keeps one of Union[int, float] and Union[float, int], whichever was named first, so that 1 can be
            # read as the share 1.0. As a share that says nothing, so it is the number.
            if isinstance(config[key], float) and config[key].is_integer():
                config[key] = int(config[key])
        if config["logger"] is None or config["logger"] is True:
            config["logger"] = self._loggers()
        config["plugins"] = [*(config["plugins"] or []), CheckpointFiles()]
        return self._instantiate_trainer({**config, **kwargs}, callbacks)

    def _places(self) -> tuple[Path | None, Path]:
        """The checkpoint to go on from, if any, and the folder of the run: the same for all processes."""
        parent, *places = os.environ.get(OF_PARENT, "").split("\n")
        if parent == str(os.getppid()) and int(os.environ.get("LOCAL_RANK", 0)) > 0:
            return Path(places[1]) if places[1] else None, Path(places[0])
        wanted = self.settings.get("ckpt_path") or (None if self.subcommand in ("fit", "show") else "best")
        if wanted == "auto":
            begins = self.subcommand == "fit" and not newest_checkpoint(self.root, self.name, "last")
            wanted = None if begins else "last"
        checkpoint = find_checkpoint(self.root, self.name, wanted) if wanted else None
        folder = run_folder_of(checkpoint) if checkpoint else None
        if self.subcommand == "show":
            folder = self.root / self.name
        folder = folder or rank_zero_only(new_run_folder)(self.root, self.name)
        options = {key: self.settings.trainer[key] for key in ("accelerator", "devices", "num_nodes", "strategy")}
        if not isinstance(options["strategy"], str):
            options["strategy"] = "ddp"  # a class with arguments: all need a process group, as this one
        try:
            checkpoint, folder = of_first_process((checkpoint, folder), options)
        except Exception:
            if folder and not checkpoint:
                remove_empty(folder)
            raise
        os.environ[OF_PARENT] = f"{os.getpid()}\n{folder}\n{checkpoint or ''}"
        return checkpoint, folder

    def _callbacks(self) -> list[Callback]:
        inverter = isinstance(self.model, Inverter)
        monitor = "val/nce_nats" if inverter else "val/accuracy"
        folder = str(self.run_folder / "checkpoints")
        commit = current_commit()
        checkpoint = str(self.checkpoint) if self.checkpoint else None
        callbacks: list[Callback] = []
        if inverter:
            self.freeze = FreezeClassifier(None)
            self.results = InverterResults(commit, self.settings.num_agreement, checkpoint)
            callbacks += [
                self.freeze,
                InitialiseFromData(),
                BitsPerDim(),
                self.results,
                self._get(self.config_init, "sample_grid"),
                WarmWeightAveraging(self.settings.averaging_decay),
                FitVariance(),  # after the averaged weights are swapped in
            ]
        else:
            self.results = ClassifierResults(commit, checkpoint)
            callbacks.append(self.results)
        self.interruption = Interruption(self.run_folder / "checkpoints" / "last.ckpt")
        if self.subcommand == "fit":
            callbacks += [
                StopAtNaN(self.settings.trainer.log_every_n_steps or 50),
                ExactResume(),
                Patience(monitor, self.settings.patience),
                ModelCheckpoint(folder, "best", monitor=monitor, mode="max", enable_version_counter=False),
                ModelCheckpoint(folder, "last", save_on_train_epoch_end=False, enable_version_counter=False),
            ]
            if inverter:
                callbacks.append(CostEstimate())
                if self.settings.cache_activations != "none":
                    callbacks.append(CacheActivations(self.root / "activations", self.settings.cache_activations))
            if self.settings.keep_updates:
                callbacks.append(KeepUpdates(self.settings.keep_updates))
        if self.subcommand == "predict":
            callbacks.append(Predictions())
        return [*callbacks, self.interruption]  # after the averaged weights are swapped out

    def _loggers(self) -> list[Logger] | bool:
        if self.subcommand != "fit":
            return False
        inverter = isinstance(self.model, Inverter)
        network = self.model.representation.network if inverter else self.model.network
        about = {
            "dataset": self.datamodule.name,
            "network": type(network).__name__,
            "layer": self.model.representation.layer if inverter else None,
        }
        config = {**about, **self.settings.as_dict()}
        run = wandb_run(self.name, self.run_folder, config, self.wandb_id)
        return [MetricsCSV(self.run_folder, self.first_step), run]

    @rank_zero_only
    def _save_config(self) -> None:
        path = self.run_folder / "config.yaml"
        if path.exists():  # a resumed run
            path = new_run_folder(self.run_folder, "resumed") / "config.yaml"
        write_all({path: self._parser("fit").dump(self.settings, skip_unset=False).encode()})

    def before_fit(self) -> None:
        reference = self.settings.classifier if isinstance(self.model, Inverter) and not self.checkpoint else None
        self.datamodule.check_processes(self.trainer.world_size)
        self.interruption.listen()
        if reference and reference.endswith(".ckpt"):
            self.freeze.checkpoint = find_checkpoint(self.root, self.name, reference)
        elif reference:
            self._until_interrupted(partial(self._find_classifier, reference))

    def _find_classifier(self, reference: str) -> None:
        name = Path(reference).stem
        if not newest_checkpoint(self.root, name, "best", finished=True):
            find_config(f"{name}.yaml")
        data = self.settings.data.init_args
        shared = {
            "trainer.default_root_dir": self.root,
            "trainer.accelerator": self.settings.trainer.accelerator,
            "trainer.devices": 1,
            **{f"data.{key}": data[key] for key in SAME_DATA if key in data},
        }
        arguments = [part for key, value in shared.items() if value for part in (f"--{key}", str(value))]
        self.freeze.checkpoint = trained_classifier(
            self.root, name, HERE / "cli.py", arguments, self.settings.train_classifier
        )

    def _command(self) -> str:
        """What goes on with this run, or does it again where it has no checkpoint."""
        arguments, last = self.arguments, self.run_folder / "checkpoints" / "last.ckpt"
        if self.subcommand == "fit" and last.is_file():
            pairs = pairwise(["", *arguments])
            kept = [w for before, w in pairs if "--ckpt_path" not in (before, w.split("=")[0])]
            arguments = [*kept, "--ckpt_path", str(last)]
        return shlex.join(["python", "cli.py", *arguments])

    def _until_interrupted(self, verb: Callable[..., Any], **kwargs: Any) -> None:
        """Do something; a run that a signal has ended says how to go on.

        Raises:
            ValueError: The checkpoint is whole, but does not hold what Lightning expects.
        """
        try:
            verb(**kwargs)
        except (TypeError, LookupError, AttributeError, RuntimeError) as error:
            if self.checkpoint is None or isinstance(error, torch.OutOfMemoryError) or of_a_peer(error):
                raise
            raise ValueError(
                f"{type(error).__name__} in a run that goes on from {self.checkpoint}, which was changed or is of "
                f"another version: {error}; give another checkpoint, or leave out --ckpt_path to train anew"
            ) from error
        except SIGTERMException:
            self.interruption.end()
            finish_wandb()  # before the queue ends this process
            self.interruption.leave(self.trainer, self._command())

    def fit(self, **kwargs: Any) -> None:
        rank_zero_only(print)(f"{self.name}: run folder {self.run_folder}", flush=True)
        with training(self.run_folder) if self.trainer.is_global_zero else contextlib.nullcontext():
            self._save_config()
            self._until_interrupted(self.trainer.fit, **kwargs, weights_only=True)

    def after_fit(self) -> None:
        best = self.run_folder / "checkpoints" / "best.ckpt"
        if not self.settings.test_after_fit or self.settings.trainer.fast_dev_run:
            return
        self.results.checkpoint = str(best)
        self._until_interrupted(
            self.trainer.test, model=self.model, datamodule=self.datamodule, ckpt_path=str(best), verbose=False,
            weights_only=True,
        )  # fmt: skip
        self._report()

    def test(self, **kwargs: Any) -> None:
        self._until_interrupted(self.trainer.test, **kwargs, weights_only=True)
        self._report()

    def validate(self, **kwargs: Any) -> None:
        self._until_interrupted(self.trainer.validate, **kwargs, weights_only=True)

    def predict(self, **kwargs: Any) -> None:
        self._until_interrupted(self.trainer.predict, **kwargs, weights_only=True)

    def sample(self, **kwargs: Any) -> None:
        in_all_processes(self.trainer, partial(self.trainer.sample, **kwargs))

    def distances(self, **kwargs: Any) -> None:
        in_all_processes(self.trainer, partial(self.trainer.distances, **kwargs))

    def estimators(self, **kwargs: Any) -> None:
        rank_zero_only(self.trainer.estimators)(**kwargs)

    def score(self, **kwargs: Any) -> None:
        rank_zero_only(self.trainer.score)(**kwargs)

    def show(self, **kwargs: Any) -> None:
        rank_zero_only(self.trainer.show)(**kwargs)

    @rank_zero_only
    def _report(self) -> None:
        print(f"\n{summary(self.results.row)}")
        print(f"  numbers         {self.run_folder.parent / 'results.json'}")
        pictures = self.run_folder / "samples.png"
        if pictures.is_file():
            print(f"  pictures        {pictures}")


OPTIONS: dict[str, Any] = {
    "model_class": pl.LightningModule,
    "subclass_mode_model": True,
    "datamodule_class": ImageDataModule,
    "subclass_mode_data": True,
    "trainer_class": Trainer,
    "trainer_defaults": {
        "default_root_dir": "runs",
        "max_steps": 250_000,
        "max_epochs": -1,
        "val_check_interval": 1000,
        "check_val_every_n_epoch": None,
        "num_sanity_val_steps": 0,
        "use_distributed_sampler": False,
        "enable_model_summary": False,
    },
    "save_config_callback": None,
    "seed_everything_default": 0,
    "auto_configure_optimizers": False,
    "load_from_checkpoint_support": False,
    "parser_class": Parser,
    "parser_kwargs": {"description": "Every verb takes --config NAME.yaml; one more needs none: report [FOLDER ...]"},
}


def current_commit() -> str | None:
    """The commit of this code, with "-dirty" where files differ from it; None outside a repository."""
    try:
        described = subprocess.run(
            ["git", "-C", str(HERE), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return None
    return described.stdout.strip()


def remove_empty(folder: Path) -> None:
    """A run that was refused leaves no folder; one that holds files stays."""
    with contextlib.suppress(OSError):
        folder.rmdir()
        folder.parent.rmdir()


def report(arguments: list[str]) -> None:
    """The verb that needs no config: python cli.py report [FOLDER ...] [--output FILE]."""
    parser = argparse.ArgumentParser("cli.py report", description="One HTML file of all runs.", allow_abbrev=False)
    parser.add_argument("runs", nargs="*", type=Path, default=[Path("runs")], help="folders of runs; runs by default")
    parser.add_argument("--output", type=Path, default=Path("runs/report.html"), help="default: %(default)s")
    given = parser.parse_args(arguments)
    write_report(given.runs, given.output)


def main(args: list[str] | None = None) -> None:
    """Run one command; an error that a user can mend ends it with one sentence and exit status 1."""
    quiet()
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    arguments = sys.argv[1:] if args is None else args
    try:
        if arguments[:1] == ["report"]:
            report(arguments[1:])
        else:
            first_words(arguments, list(InverterCLI.subcommands()))
            InverterCLI(**OPTIONS, args=args)
    except SIGTERMException:  # between two of Lightning's verbs
        sys.exit(128 + signal.SIGTERM)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        tell(error)
        remove_empty(Path(os.environ.get(OF_PARENT, "\n").split("\n")[1]))
        sys.exit(1)
    finally:
        finish_wandb()


if __name__ == "__main__":
    main()
