"""The command line's words become a model, its data, a trainer and the arguments of a verb."""

import os
import sys
from pathlib import Path
from typing import Any, Literal, NoReturn

import pytorch_lightning as pl
from jsonargparse import set_parsing_settings
from jsonargparse.typing import PositiveInt
from pytorch_lightning.cli import LightningArgumentParser
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities.exceptions import MisconfigurationException

import inverters  # whose classes can be named in a config without their module, as those of datamodules
from callbacks.sample_grid import SampleGrid
from commands import SKIPPED, VERBS, function_of
from commands.config_files import is_preset, with_config_paths
from commands.first_look import about
from commands.known_keys import KnownKeys, given_keys
from commands.layers import network_alone
from commands.sentences import of_parser
from datamodules import ImageDataModule
from evaluations.results import Published
from runtime.checkpoints import CheckpointFiles
from runtime.lightning import ParsedCLI, set_up_processes
from runtime.run import Run

set_parsing_settings(instantiate_subclass_spec_in_any=False)  # or a key without a type would call what it likes


class Parser(LightningArgumentParser):
    """Says what is wrong in one sentence, and takes no abbreviation for a key; a subclass for each command."""

    known: KnownKeys  # of the command

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def add_function_arguments(self, function: Any, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuses a function as a class_path, which jsonargparse would call whatever it is.

        A class must be one of what is asked for, and a function that is given by its name alone must say in its
        annotation that it makes that; both are jsonargparse's, before anything is called.
        """
        raise ImportError(f"{function.__name__} is a function, and class_path names a class; give its name alone")

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        print(f"error: {of_parser(message, self.known)}", file=sys.stderr)
        self.exit(2)


def keys_of_runs(
    classifier: str | None = None,
    name: str | None = None,
    train_classifier: bool = True,
    test_after_fit: bool = True,
    patience: PositiveInt = 20,
    averaging_decay: float = 0.9995,
    num_agreement: PositiveInt = 500,
    keep_updates: list[int] = [],  # noqa: B006 - never changed
    published: Published = Published(),  # noqa: B008 - frozen
    cache_activations: Literal["none", "float32", "float16"] = "none",
    compile: bool = False,
) -> None:
    """What a run is, beside its model, data and trainer.

    Args:
        classifier: The classifier to invert: its config's name, or its checkpoint's path.
        name: The run's name, in place of its start time; other verbs ask that run.
        train_classifier: Train the classifier first where it is missing.
        test_after_fit: End fit by testing the best checkpoint.
        patience: Validations without improvement before training stops.
        averaging_decay: The decay of the moving average of an inverter's weights.
        num_agreement: Test images whose samples are shown to the classifier.
        keep_updates: Keep checkpoints after these numbers of updates.
        published: The paper's numbers of this experiment, for the report.
        cache_activations: Keep h of the training images on disk, for all runs, so that no step computes it.
        compile: Compile the steps of an inverter's training and validation (minutes at the start; for GPUs).
    """


class ParsedCommand(ParsedCLI):
    """One command line, parsed and instantiated.

    Attributes:
        words: As they were given.
        name: The first config's that is no preset, which names the run.
        presets: Configs that are.
        verb: The first word.
        settings: The values of all keys.
        root: The folder of all runs.
    """

    name = "unnamed"

    def __init__(self, args: list[str] | None = None) -> None:
        self.words = list(sys.argv[1:] if args is None else args)
        verb, *rest = self.words
        ours = {verb: function_of(verb)} if verb in VERBS else {}
        trainer_class = type("Trainer", (pl.Trainer,), ours)  # where LightningCLI looks for verbs
        known = KnownKeys(verb, given_keys(rest))
        parser_class = type("Parser", (Parser,), {"known": known})
        super().__init__(
            model_class=pl.LightningModule, subclass_mode_model=True, datamodule_class=ImageDataModule,
            subclass_mode_data=True, trainer_class=trainer_class, parser_class=parser_class,
            parser_kwargs={verb: {"description": description(known)}}, save_config_callback=None,
            seed_everything_default=0, auto_configure_optimizers=False, load_from_checkpoint_support=False, args=args,
        )  # fmt: skip

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override] # which asks for those of no command
        """The verb of this command, as the parser of each takes a tenth of a second to make."""
        return {verb: skipped for verb, skipped in SKIPPED.items() if verb == self.words[0]}

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Ours first, then Lightning's many."""
        LightningArgumentParser.add_function_arguments(parser, keys_of_runs)  # Parser's refuses what a config names
        parser.add_lightning_class_args(SampleGrid, "sample_grid")
        parser.add_lightning_class_args(pl.LightningModule, "model", subclass_mode=True)
        parser.add_lightning_class_args(ImageDataModule, "data", subclass_mode=True)
        parser.add_lightning_class_args(self.trainer_class, "trainer")
        parser.set_defaults({f"trainer.{key}": value for key, value in TRAINER_DEFAULTS.items()})

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        for key in ("image_shape", "num_classes", "seen_shape"):
            parser.link_arguments(
                "data", f"model.init_args.{key}", compute_fn=lambda data, key=key: getattr(data, key),
                apply_on="instantiate",
            )  # fmt: skip

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        arguments, paths = with_config_paths(list(self.words))
        self.presets = [path for path in paths if is_preset(path)]
        if named := [path for path in paths if path not in self.presets]:
            of = Run.of_config(named[0])  # a run's own config makes another run of the same experiment
            self.name = of.name if of else named[0].stem
        self.config = parser.parse_args(arguments)

    def before_instantiate_classes(self) -> None:
        # Everything that lies under this key is ours from here on.
        self.verb = str(self.subcommand)
        self.settings = self.config[self.verb]
        if self.verb == "layers":
            self.settings.model = network_alone(self.settings.model)
        check_trainer(self.verb, self.settings.trainer)
        trainer = self.settings.trainer
        self.root = Path(os.path.expanduser(trainer.default_root_dir or "runs"))
        trainer.default_root_dir = str(self.root)
        if trainer.max_steps > 0 and isinstance(trainer.val_check_interval, int):
            # A shorter run still validates once, and so has a best checkpoint.
            trainer.val_check_interval = min(trainer.val_check_interval, trainer.max_steps)
        if trainer.deterministic:
            trainer.benchmark = False  # which would choose algorithms by their timing

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
            made = self.trainer_of({**config, **kwargs})
        except (TypeError, ValueError, MisconfigurationException) as error:
            keys = ("accelerator", "devices", "num_nodes", "strategy")
            given = ", ".join(f"trainer.{key} {trainer[key]}" for key in keys)
            raise ValueError(f"these processes cannot be had ({error}); change one of {given}") from error
        if isinstance(made.strategy, DDPStrategy) and isinstance(trainer.strategy, str):
            # Those of h and its statistics are; a classifier's batch normalisation has its own in every process.
            alike = isinstance(self.model, inverters.Inverter) and not any(True for _ in self.model.density.buffers())
            set_up_processes(made.strategy, buffers_are_equal=alike)
        return made

    def config_text(self) -> str:
        """The whole config as YAML."""
        text: str = self.subparser(self.verb).dump(self.settings, skip_unset=False)
        return text


def description(known: KnownKeys) -> str:
    """What the help of a verb begins with, and the keys of the classes that its config names."""
    inner = [f"--{name}" for name in known.names if name.startswith(("model.", "data."))]
    keys = ", ".join(inner) or "python cli.py VERB --config NAME --help names them"
    return f"{about(known.verb)} Keys of classes, which --model.help CLASS and --data.help CLASS explain: {keys}."


TRAINER_DEFAULTS = {
    "default_root_dir": "runs",
    "devices": 1,  # not all that a machine has
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
    precision = str(trainer.precision)
    if precision in ("16-true", "bf16-true") or precision.startswith("transformer-engine"):
        raise ValueError(
            f"trainer.precision is {precision}, in which weights, h and Adam's moments would be rounded; give "
            f"bf16-mixed, which is as fast"
        )
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
