"""The command line: python cli.py {fit,validate,test,predict,sample,score} --config NAME.yaml ..."""

import csv
import difflib
import logging
import netrc
import os
import re
import subprocess
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlparse

import numpy as np
import pytorch_lightning as pl
import torch
import wandb
from filelock import FileLock
from PIL import Image
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import Logger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import Tensor

from callbacks.atomic import replacing
from callbacks.bits_per_dim import BitsPerDim
from callbacks.freeze_classifier import FreezeClassifier
from callbacks.initialise_from_data import InitialiseFromData
from callbacks.metrics_csv import MetricsCSV
from callbacks.results import ClassifierResults, InverterResults
from callbacks.run_folders import find_checkpoint, new_run_folder, newest_checkpoint, run_folder_of
from callbacks.sample_grid import SampleGrid
from callbacks.step_progress import StepProgress
from callbacks.weight_averaging import WarmWeightAveraging
from datamodules.images import ImageDataModule
from datamodules.mnist import MNIST5kDataModule, MNISTDataModule
from datamodules.worlds import BitDropDataModule
from evaluations.figures import sample_grid
from inverters.checkpoints import check_fit, load_checkpoint
from inverters.classifier import Classifier
from inverters.inverter import Inverter
from inverters.likelihoods import Categorical, LogisticMixture
from inverters.networks import ConvNet, TopBits
from inverters.pixelcnn import PixelCNN

HERE = Path(__file__).resolve().parent
# Imported here, all of these can be named in a config without their module.
NAMED = (
    Classifier, Inverter, ConvNet, TopBits, PixelCNN, Categorical, LogisticMixture,
    MNISTDataModule, MNIST5kDataModule, BitDropDataModule,
)  # fmt: skip
RUN_FOLDER = "INVERTERS_RUN_FOLDER"  # tells the processes that Lightning starts for DDP where the first one writes


class Trainer(pl.Trainer):
    """Lightning's, with two more verbs."""

    def _restored(self, model: pl.LightningModule, ckpt_path: str) -> Inverter:
        if not isinstance(model, Inverter):
            raise ValueError(f"this needs an inverter's config; {type(model).__name__} has no p(x | h)")
        model.load_state_dict(load_checkpoint(ckpt_path)["state_dict"])
        return model.to(self.strategy.root_device).eval()

    def sample(
        self,
        model: pl.LightningModule,
        datamodule: ImageDataModule,
        ckpt_path: str | None = None,
        num_images: int = 8,
        num_draws: int = 4,
        seed: int = 0,
    ) -> None:
        """Draw from p(x | h) for the first test images.

        Args:
            model: The inverter.
            datamodule: Its data.
            ckpt_path: A file, or best or last of the newest run; best by default.
            num_images: Rows of the grid.
            num_draws: Draws a row.
            seed: Of the noise, which is a function of (seed, image, draw).
        """
        inverter = self._restored(model, str(ckpt_path))
        datamodule.prepare_data()
        datamodule.setup("test")
        dataset = datamodule.datasets["test"]
        batch = dataset.__getitems__(range(min(num_images, len(dataset))))  # type: ignore[attr-defined, arg-type]
        draws = inverter.draws(batch["image"].to(inverter.device), batch["index"].tolist(), num_draws, seed).cpu()
        folder = Path(self.default_root_dir)
        with replacing(folder / "draws.npy") as file:
            np.save(file, draws.numpy())
        with replacing(folder / "inputs.npy") as file:
            np.save(file, batch["image"].numpy())
        with replacing(folder / "draws.png") as file:
            sample_grid(batch["image"], draws, inverter.representation.layer).savefig(file, dpi=150)
        print(f"{len(draws)} images, {num_draws} draws each: {folder / 'draws.png'}, draws.npy and inputs.npy beside it")

    def score(
        self,
        model: pl.LightningModule,
        datamodule: ImageDataModule,
        images: list[str],
        contexts: list[str] | None = None,
        ckpt_path: str | None = None,
    ) -> None:
        """Print log p(x_i | h_j) in nats, for image files i and the representations of image files j.

        Args:
            model: The inverter.
            datamodule: Gives the shape of the images.
            images: Files of the size that the inverter knows.
            contexts: Likewise; without them each image is scored under its own representation.
            ckpt_path: A file, or best or last of the newest run; best by default.
        """
        inverter = self._restored(model, str(ckpt_path))
        x = load_images(images, datamodule.image_shape).to(inverter.device)
        h = load_images(contexts, datamodule.image_shape).to(inverter.device) if contexts else x
        with torch.no_grad():
            if contexts:
                columns = [
                    inverter.log_prob({"image": x, "context_image": row.expand_as(x)}) for row in h
                ]
                matrix = torch.stack(columns, dim=1)  # [N, M]
            else:
                matrix = inverter.log_prob({"image": x})[:, None]
        header = ["image", *(f"log p(x | h of {name}), nats" for name in contexts or ["itself"])]
        rows = [[name, *(f"{value:.3f}" for value in row)] for name, row in zip(images, matrix.tolist(), strict=True)]
        path = Path(self.default_root_dir) / "scores.csv"
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([header, *rows])
        widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
        for row in [header, *rows]:
            print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))
        print(f"as CSV: {path}")


def load_images(paths: list[str], image_shape: tuple[int, int, int]) -> Tensor:
    """Image files as uint8 [N, C, H, W]. Raises OSError or ValueError naming the file that cannot be used."""
    channels, height, width = image_shape
    images = []
    for path in paths:
        try:
            picture = Image.open(path).convert("L" if channels == 1 else "RGB")
        except OSError as error:
            raise OSError(f"cannot read {path} as an image: {error}") from error
        if picture.size != (width, height):
            raise ValueError(
                f"{path} is {picture.width}x{picture.height} pixels; this inverter takes {width}x{height}"
            )
        images.append(torch.from_numpy(np.array(picture)).view(height, width, channels).permute(2, 0, 1))
    return torch.stack(images)


class Parser(LightningArgumentParser):
    """Says what is wrong in one sentence."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        print(f"error: {one_sentence(message)}", file=sys.stderr)
        self.exit(2)


def one_sentence(message: str) -> str:
    """The point of a parser's message, which can run to dozens of lines; with the nearest key for a misspelt one."""
    unknown = re.search(r"Option '([^']+)' is not accepted|Key '([^']+)' is not expected|arguments: --([\w.]+)", message)
    if unknown:
        key = next(group for group in unknown.groups() if group)
        near = difflib.get_close_matches(key.split(".")[-1], known_keys(), n=1)
        return f"no key {key!r}" + (f"; did you mean {near[0]!r}?" if near else "; see --help for the keys")
    class_name = re.search(r"Expected a dot import path string: (\S+)", message)
    if class_name:
        near = difflib.get_close_matches(class_name[1], [c.__name__ for c in NAMED], n=1)
        return f"no class {class_name[1]!r}" + (f"; did you mean {near[0]!r}?" if near else "")
    value = re.search(r'Parser key "([^"]+)":\s*(Expected a [^\n]+)', message)
    if value:
        return f"{value[1]}: {value[2]}"
    return " ".join(message.split())


def known_keys() -> list[str]:
    """Every name of an argument that a config may give."""
    functions = [c.__init__ for c in (*NAMED, pl.Trainer, SampleGrid)] + [Trainer.sample, Trainer.score]
    names = {name for f in functions for name in f.__code__.co_varnames[1 : f.__code__.co_argcount]}  # type: ignore[attr-defined]
    top = {"config", "model", "data", "trainer", "seed_everything", "ckpt_path", "sample_grid"}
    return sorted(names | top | {"classifier", "train_classifier", "test_after_fit", "patience", "averaging_decay"})


class InverterCLI(LightningCLI):
    """LightningCLI with a folder for each run, our callbacks, and a classifier that is trained when it is missing."""

    run_folder: Path
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
        parser.add_lightning_class_args(SampleGrid, "sample_grid")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        arguments, names = with_config_paths(list(sys.argv[1:] if args is None else args))
        if names:
            self.name = names[0]
        self.config = parser.parse_args(arguments)

    def _parse_ckpt_path(self) -> None:
        """What is given on the command line wins: nothing is read from the checkpoint here."""

    def before_instantiate_classes(self) -> None:
        # Everything that lies under this key is ours from here on.
        self.settings = self.config[self.subcommand]
        self.root = Path(self.settings.trainer.default_root_dir)
        wanted = self.settings.ckpt_path or (None if self.subcommand == "fit" else "best")
        self.checkpoint = find_checkpoint(self.root, self.name, wanted) if wanted else None
        self.settings.ckpt_path = str(self.checkpoint) if self.checkpoint else None
        trainer = self.settings.trainer
        if trainer.max_steps > 0 and isinstance(trainer.val_check_interval, int):
            # A shorter run still validates once, and so has a best checkpoint.
            trainer.val_check_interval = min(trainer.val_check_interval, trainer.max_steps)

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        if self.checkpoint:
            check_fit(self.model, load_checkpoint(self.checkpoint)["state_dict"], self.checkpoint)
        self.run_folder = self._run_folder()
        callbacks = self._callbacks()
        if self.config_init[self.subcommand].trainer.enable_progress_bar is not False:
            callbacks.append(StepProgress())
        config = {**self._get(self.config_init, "trainer"), "default_root_dir": str(self.run_folder)}
        if config["logger"] is None or config["logger"] is True:
            config["logger"] = self._loggers()
        return self._instantiate_trainer({**config, **kwargs}, callbacks)

    def _run_folder(self) -> Path:
        if rank_zero_only.rank > 0 and RUN_FOLDER in os.environ:
            return Path(os.environ[RUN_FOLDER])
        folder = run_folder_of(self.checkpoint) if self.checkpoint else None
        folder = folder or new_run_folder(self.root, self.name)
        os.environ[RUN_FOLDER] = str(folder)
        return folder

    def _callbacks(self) -> list[Callback]:
        inverter = isinstance(self.model, Inverter)
        monitor = "val/nce_nats" if inverter else "val/accuracy"
        folder = str(self.run_folder / "checkpoints")
        commit = current_commit()
        checkpoint = str(self.checkpoint) if self.checkpoint else None
        callbacks: list[Callback] = []
        if inverter:
            self.freeze = FreezeClassifier(None)
            callbacks += [
                self.freeze,
                InitialiseFromData(),
                BitsPerDim(),
                InverterResults(commit, self.settings.num_agreement, checkpoint),
                self._get(self.config_init, "sample_grid"),
                WarmWeightAveraging(self.settings.averaging_decay),
            ]
        else:
            callbacks.append(ClassifierResults(commit, checkpoint))
        if self.subcommand == "fit":
            callbacks += [
                EarlyStopping(monitor, mode="max", patience=self.settings.patience),
                ModelCheckpoint(folder, "best", monitor=monitor, mode="max", enable_version_counter=False),
                ModelCheckpoint(folder, "last", save_on_train_epoch_end=False, enable_version_counter=False),
            ]
        return callbacks

    def _loggers(self) -> list[Logger] | bool:
        if self.subcommand != "fit":
            return False
        about = {"dataset": self.datamodule.name, "network": None, "layer": None}
        if isinstance(self.model, Inverter):
            about["layer"] = self.model.representation.layer
            about["network"] = type(self.model.representation.network).__name__
        else:
            about["network"] = type(self.model.network).__name__
        run = WandbLogger(
            project=os.environ.get("WANDB_PROJECT", "inverters"),
            name=self.name,
            id=f"{self.name}-{self.run_folder.name}",
            resume="allow",
            save_dir=self.run_folder,
            offline="WANDB_MODE" not in os.environ and not has_wandb_account(),
            config={**about, **self.settings.as_dict()},
            settings=wandb.Settings(console="off", silent=True),
        )
        return [MetricsCSV(self.run_folder), run]

    @rank_zero_only
    def _save_config(self) -> None:
        path = self.run_folder / "config.yaml"
        if path.exists():  # a resumed run
            path = new_run_folder(self.run_folder, "resumed") / "config.yaml"
        self._parser("fit").save(self.settings, path, skip_none=False)

    def before_fit(self) -> None:
        self._save_config()
        if isinstance(self.model, Inverter) and self.settings.classifier and not self.checkpoint:
            self.freeze.checkpoint = self._classifier_checkpoint(self.settings.classifier)

    def _classifier_checkpoint(self, reference: str) -> Path:
        """The classifier's checkpoint, trained first where it is missing."""
        if reference.endswith(".ckpt"):
            return find_checkpoint(self.root, self.name, reference)
        name = Path(reference).stem
        command = f"python cli.py fit --config {name}.yaml"
        (self.root / name).mkdir(parents=True, exist_ok=True)
        with FileLock(self.root / name / "train.lock"):
            found = newest_checkpoint(self.root, name, "best")
            if found is None:
                if not self.settings.train_classifier:
                    raise FileNotFoundError(
                        f"no trained classifier in {self.root / name}; train it with: {command}"
                    )
                print(f"no trained classifier in {self.root / name} yet; training it first: {command}", flush=True)
                arguments = ["--config", f"{name}.yaml", "--trainer.default_root_dir", str(self.root)]
                arguments += ["--trainer.accelerator", self.settings.trainer.accelerator]
                data_dir = self.settings.data.init_args.get("data_dir")
                arguments += ["--data.data_dir", data_dir] if data_dir else []
                distributed = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT", RUN_FOLDER)
                environment = {k: v for k, v in os.environ.items() if k not in distributed}
                status = subprocess.run(
                    [sys.executable, str(HERE / "cli.py"), "fit", *arguments], env=environment, check=False
                ).returncode
                found = newest_checkpoint(self.root, name, "best")
                if status or found is None:
                    raise RuntimeError(f"training the classifier failed with status {status}; try: {command}")
        return found

    def fit(self, **kwargs: Any) -> None:
        print(f"{self.name}: run folder {self.run_folder}", flush=True)
        self.trainer.fit(**kwargs, weights_only=True)

    def after_fit(self) -> None:
        best = self.run_folder / "checkpoints" / "best.ckpt"
        if not self.settings.test_after_fit or self.trainer.fast_dev_run:
            return
        self._results().checkpoint = str(best)
        self.trainer.test(self.model, self.datamodule, ckpt_path=str(best), weights_only=True, verbose=False)
        self._report()

    def test(self, **kwargs: Any) -> None:
        self.trainer.test(**kwargs, weights_only=True)
        self._report()

    def validate(self, **kwargs: Any) -> None:
        self.trainer.validate(**kwargs, weights_only=True)

    def predict(self, **kwargs: Any) -> None:
        batches = self.trainer.predict(**kwargs, weights_only=True)
        path = self.run_folder / "predictions.npy"
        predictions = torch.cat(batches).cpu().numpy()
        with replacing(path) as file:
            np.save(file, predictions)
        kind = "class probabilities" if predictions.ndim == 2 else "samples"
        print(f"{kind} {list(predictions.shape)} of the test images: {path}")

    def _results(self) -> ClassifierResults | InverterResults:
        return next(c for c in self.trainer.callbacks if isinstance(c, ClassifierResults | InverterResults))  # type: ignore[attr-defined]

    @rank_zero_only
    def _report(self) -> None:
        row = self._results().row
        print(f"\n{row['name']}, {row['num_images']} test images")
        if "accuracy" in row:
            print(f"  accuracy        {row['accuracy']:.2%} (standard error {row['accuracy_se']:.2%})")
        else:
            print(f"  NCE             {row['nce_nats']:.2f} nats an image (standard error {row['nce_nats_se']:.2f})")
            print(f"  bits/dim        {row['bits_per_dim']:.3f}")
            if row["shuffled_nce_nats"] is not None:
                worse = row["nce_nats"] - row["shuffled_nce_nats"]
                print(f"  shuffled        {row['shuffled_nce_nats']:.2f} nats with the h of other images: {worse:.2f} worse")
            if row["class_agreement"] is not None:
                print(
                    f"  class agreement {row['class_agreement']:.1%} of {row['num_samples']} samples get the class "
                    f"predicted for their input (standard error {row['class_agreement_se']:.1%})"
                )
            print(f"  pictures        {self.run_folder / 'samples.png'}")
        print(f"  numbers         {self.run_folder.parent / 'results.json'}")
        print(f"  checkpoint      {row['checkpoint']}")


def with_config_paths(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Arguments with every bare config name found in this folder or in configs/, and the configs' names.

    Raises:
        FileNotFoundError: There is no such config.
    """
    arguments = [part for a in arguments for part in (a.split("=", 1) if a.startswith("--config=") else [a])]
    names = []
    for i, argument in enumerate(arguments[:-1]):
        if argument in ("--config", "-c"):
            given = Path(arguments[i + 1])
            places = [given, HERE / "configs" / given]
            found = next((path for path in places if path.is_file()), None)
            if found is None:
                near = difflib.get_close_matches(given.stem, [p.stem for p in (HERE / "configs").glob("*.yaml")], n=1)
                hint = f"; did you mean {near[0]}.yaml?" if near else ""
                raise FileNotFoundError(f"no config {given} here or in {HERE / 'configs'}{hint}")
            arguments[i + 1] = str(found)
            names.append(found.stem)
    return arguments, names


def has_wandb_account() -> bool:
    """Whether a W&B key is in the environment or in .netrc."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    try:
        return host is not None and netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


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


def quiet() -> None:
    """Keep Lightning's advertisements, and advice that does not apply here, off the screen."""
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)
    logging.getLogger("lightning_fabric.utilities.seed").setLevel(logging.WARNING)
    # The images are in memory: workers would only copy them.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    # checkpoints/ is made by the run itself.
    warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty.")


def main(args: list[str] | None = None) -> None:
    """Run one command; an error that a user can mend ends it with one sentence and exit status 1."""
    quiet()
    try:
        InverterCLI(
            model_class=pl.LightningModule,
            subclass_mode_model=True,
            datamodule_class=ImageDataModule,
            subclass_mode_data=True,
            trainer_class=Trainer,
            trainer_defaults={
                "default_root_dir": "runs",
                "max_steps": 250_000,
                "max_epochs": -1,
                "val_check_interval": 1000,
                "check_val_every_n_epoch": None,
                "num_sanity_val_steps": 0,
                "use_distributed_sampler": False,
                "enable_model_summary": False,
            },
            save_config_callback=None,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            parser_class=Parser,
            args=args,
        )
    except (OSError, ValueError, MisconfigurationException) as error:
        log = Path("runs") / "last_error.txt"
        log.parent.mkdir(exist_ok=True)
        log.write_text(traceback.format_exc())
        print(f"error: {' '.join(str(error).split())} (traceback in {log})", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
