"""The command line's words become a model, its data, a trainer and the arguments of a verb."""

import inspect
import sys
from pathlib import Path
from pydoc import locate
from types import NoneType
from typing import Any, Literal, NoReturn, get_args

import pytorch_lightning as pl
from jsonargparse import Namespace, set_parsing_settings
from jsonargparse.typing import PositiveInt
from pytorch_lightning.cli import LightningArgumentParser
from pytorch_lightning.utilities.exceptions import MisconfigurationException

import datamodules
import inverters
from callbacks.sample_grid import SampleGrid
from commands import VERBS
from commands.config_files import with_config_paths
from commands.sentences import of_parser
from datamodules import ImageDataModule
from evaluations.results import Published
from runtime.checkpoints import CheckpointFiles
from runtime.lightning import ParsedCLI

# These can be named in a config without their module, for they have been imported here.
NAMED: list[Any] = [getattr(package, name) for package in (inverters, datamodules) for name in package.__all__]
set_parsing_settings(instantiate_subclass_spec_in_any=False)  # or a key without a type would call what it likes
Trainer = type("Trainer", (pl.Trainer,), {verb.__name__: verb for verb in VERBS})  # where LightningCLI looks for verbs


OURS = {"model", "datamodule"}
SKIPPED = {  # what no verb is given on the command line
    "fit": {*OURS, "train_dataloaders", "val_dataloaders", "weights_only"},
    "validate": {*OURS, "dataloaders", "weights_only"},
    "test": {*OURS, "dataloaders", "weights_only"},
    "predict": {*OURS, "dataloaders", "weights_only", "return_predictions"},
    **{verb.__name__: OURS for verb in VERBS},
}


class Parser(LightningArgumentParser):
    """Says what is wrong in one sentence, and takes no abbreviation for a key."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def add_function_arguments(self, function: Any, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuses a function as a class_path, which jsonargparse would call whatever it is.

        A class must be one of what is asked for, and a function that is given by its name alone must say in its
        annotation that it makes that; both are jsonargparse's, before anything is called.
        """
        raise ImportError(f"{function.__name__} is a function, and class_path names a class; give its name alone")

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        keys = {action.dest.split(".")[-1] for action in self._actions}
        keys |= {name for named in (*NAMED, *VERBS) for name in inspect.signature(named).parameters}
        print(f"error: {of_parser(message, sorted(keys), [named.__name__ for named in NAMED])}", file=sys.stderr)
        self.exit(2)


class ParsedCommand(ParsedCLI):
    """One command line, parsed and instantiated.

    Attributes:
        words: As they were given.
        name: The first config's, which names the run.
        verb: The first word.
        settings: The values of all keys.
        root: The folder of all runs.
    """

    name = "unnamed"

    def __init__(self, args: list[str] | None = None) -> None:
        self.words = list(sys.argv[1:] if args is None else args)
        super().__init__(
            model_class=pl.LightningModule, subclass_mode_model=True, datamodule_class=ImageDataModule,
            subclass_mode_data=True, trainer_class=Trainer, trainer_defaults=TRAINER_DEFAULTS, parser_class=Parser,
            parser_kwargs={"description": DESCRIPTION}, save_config_callback=None, seed_everything_default=0,
            auto_configure_optimizers=False, load_from_checkpoint_support=False, args=args,
        )  # fmt: skip

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override] # which asks for those of no command
        """The verb of this command, as the parser of each takes a tenth of a second to make; all, for help."""
        return {
            verb: skipped for verb, skipped in SKIPPED.items() if self.words[:1] in ([verb], [], ["-h"], ["--help"])
        }

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        for key in ("image_shape", "num_classes"):
            parser.link_arguments(
                "data", f"model.init_args.{key}", compute_fn=lambda data, key=key: getattr(data, key),
                apply_on="instantiate",
            )  # fmt: skip
        keys: list[tuple[str, Any, Any, str]] = [
            ("classifier", str | None, None, "The classifier to invert: its config's name, or its checkpoint's path."),
            ("train_classifier", bool, True, "Train the classifier first where it is missing."),
            ("test_after_fit", bool, True, "End fit by testing the best checkpoint."),
            ("patience", PositiveInt, 20, "Validations without improvement before training stops."),
            ("averaging_decay", float, 0.9995, "The decay of the moving average of an inverter's weights."),
            ("num_agreement", PositiveInt, 500, "Test images whose samples are shown to the classifier."),
            ("keep_updates", list[int], [], "Keep checkpoints after these numbers of updates."),
            ("published", Published, Published(), "The paper's numbers of this experiment, for the report."),
            (
                "cache_activations", Literal["none", "float32", "float16"], "none",
                "Keep h of the training images on disk, for all runs, so that no step computes it.",
            ),
        ]  # fmt: skip
        for name, kind, default, text in keys:
            parser.add_argument(f"--{name}", type=kind, default=default, help=text)
        parser.add_lightning_class_args(SampleGrid, "sample_grid")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        arguments, names = with_config_paths(list(self.words))
        if names:
            self.name = names[0]
        self.config = parser.parse_args(arguments)

    def before_instantiate_classes(self) -> None:
        # Everything that lies under this key is ours from here on.
        self.verb = str(self.subcommand)
        self.settings = self.config[self.verb]
        check_trainer(self.verb, self.settings.trainer)
        for key in ("model", "data"):
            check_nulls(self.settings.get(key), key)
        self.root = Path(self.settings.trainer.default_root_dir or "runs")
        trainer = self.settings.trainer
        if trainer.max_steps > 0 and isinstance(trainer.val_check_interval, int):
            # A shorter run still validates once, and so has a best checkpoint.
            trainer.val_check_interval = min(trainer.val_check_interval, trainer.max_steps)

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """The trainer; its folder, callbacks of ours and loggers come when its processes have agreed on a run.

        Raises:
            ValueError: There are no such processes.
        """
        trainer = self.config_init[self.verb].trainer
        config = {**trainer, "logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        for key in ("limit_train_batches", "limit_val_batches", "limit_test_batches", "limit_predict_batches"):
            # typing keeps one of Union[int, float] and Union[float, int], whichever was named first, so that 1 can be
            # read as the share 1.0. As a share that says nothing, so it is the number.
            if isinstance(config[key], float) and config[key].is_integer():
                config[key] = int(config[key])
        config["plugins"] = [*(config["plugins"] or []), CheckpointFiles()]
        try:
            return self.trainer_of({**config, **kwargs})
        except (TypeError, ValueError, MisconfigurationException) as error:
            keys = ("accelerator", "devices", "num_nodes", "strategy")
            given = ", ".join(f"trainer.{key} {trainer[key]}" for key in keys)
            raise ValueError(f"these processes cannot be had ({error}); change one of {given}") from error

    def config_text(self) -> str:
        """The whole config as YAML."""
        text: str = self.subparser(self.verb).dump(self.settings, skip_unset=False)
        return text


def check_nulls(given: Any, key: str) -> None:
    """Raises ValueError where null is given to an argument that takes none, which jsonargparse lets pass.

    Args:
        given: The value of a key; of a class, its arguments are looked at, and theirs.
        key: Its name.
    """
    if not isinstance(given, Namespace) or "class_path" not in given:
        return
    kind, parameters = locate(given.class_path), dict[str, inspect.Parameter]()
    for base in reversed(inspect.getmro(kind) if isinstance(kind, type) else ()):
        if "__init__" in vars(base):
            parameters |= inspect.signature(vars(base)["__init__"]).parameters
    for name, value in vars(given.get("init_args", Namespace())).items():
        parameter = parameters.get(name)
        # One without a default is given by a link, later.
        has_default = parameter is not None and parameter.default not in (None, inspect.Parameter.empty)
        if value is None and parameter and has_default and not takes_none(parameter.annotation):
            raise ValueError(f"{key}.{name} is null; give a value, or leave it out")
        check_nulls(value, f"{key}.{name}")


def takes_none(annotation: Any) -> bool:
    """Whether an argument may be None, as far as its annotation says what it may be."""
    if annotation in (Any, inspect.Parameter.empty) or isinstance(annotation, str):
        return True
    return any(kind in (None, NoneType) for kind in get_args(annotation))


DESCRIPTION = "Every verb takes --config NAME.yaml; one more needs none: report [FOLDER ...]"
TRAINER_DEFAULTS = {
    "default_root_dir": "runs",
    "max_steps": 250_000,
    "max_epochs": -1,
    "val_check_interval": 1000,
    "check_val_every_n_epoch": None,
    "num_sanity_val_steps": 0,
    "use_distributed_sampler": False,
    "enable_model_summary": False,
}
# What must be more than 0, for a verb to have something to do.
ABOVE_ZERO = {
    "fit": ("val_check_interval", "limit_train_batches", "limit_val_batches", "limit_test_batches"),
    "validate": ("limit_val_batches",), "test": ("limit_test_batches",), "predict": ("limit_predict_batches",),
}  # fmt: skip


def check_trainer(verb: str, trainer: Any) -> None:
    """Lightning's own numbers, where a wrong one would be noticed late or not at all.

    Raises:
        ValueError: One cannot be; the message has the key, its value and the remedy.
    """
    for key in ABOVE_ZERO.get(verb, ()):
        value = trainer[key]
        if value is not None and value <= 0:
            raise ValueError(f"trainer.{key} is {value:g}, so that there would be nothing to do; give more than 0")
    if verb != "fit":
        return
    if trainer.max_steps == 0 or trainer.max_epochs == 0 or (trainer.max_steps < 0 and (trainer.max_epochs or -1) < 0):
        raise ValueError(
            f"trainer.max_steps is {trainer.max_steps}; give the number of steps after which to end at the latest"
        )
    if trainer.log_every_n_steps is not None and trainer.log_every_n_steps < 1:
        raise ValueError(f"trainer.log_every_n_steps is {trainer.log_every_n_steps}; give at least 1")
    if trainer.accumulate_grad_batches != 1:
        raise ValueError(
            f"trainer.accumulate_grad_batches is {trainer.accumulate_grad_batches}; data.batch_size is the whole batch "
            f"of a step: give its size there"
        )
