"""A model built and loaded from where its run lies: no trainer, no data set, nothing said."""

import math
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import torch
from pytorch_lightning.utilities.seed import isolate_rng

from commands.config_files import read_config
from commands.known_keys import KnownKeys, keys_inside
from commands.parser import Parser
from commands.sentences import of_constructor, of_parser
from commands.trained_inverter import with_weights
from datamodules import ImageDataModule
from inverters import Inverter
from runtime.run import Run, find_checkpoint

MOST_VALUES = 2**24  # of an image, which a damaged checkpoint may not exceed


def inverter_of(path: Path, checkpoint: dict[str, Any]) -> tuple[Inverter, Mapping[str, Any]]:
    """The inverter of a checkpoint in its run's folder, on the CPU, in eval mode, and the keys of the run's config.

    Raises:
        OSError: There is no such config; likewise below.
        ValueError: It is not of an inverter, or is another one than the config asks for.
    """
    if "layer" not in checkpoint:
        raise ValueError(f"{path} is not the checkpoint of an inverter, and has no p(x | h); give the run of one")
    keys, config = keys_of_run(path)
    return with_weights(_built(keys, config, checkpoint, path), checkpoint, path), keys


def keys_of_run(path: Path) -> tuple[Mapping[str, Any], Path]:
    """What the config says of the run that wrote a checkpoint, and where that lies."""
    run = Run.of(path) or Run.of(path.absolute())
    if run is None or not run.config.is_file():
        why = f"there is no {run.config}" if run else "it lies in no runs/NAME/START/checkpoints"
        raise FileNotFoundError(f"nothing says how the model of {path} is built: {why}; give it where its run left it")
    return read_config(run.config), run.config


def checkpoint_at(place: Path) -> Path:
    """The checkpoint that is meant by its own path, by a run's folder, or by that of a config's runs.

    Raises:
        FileNotFoundError: There is none.
    """
    if place.is_file():
        return place
    place = place if place.name not in ("", "..") else place.resolve()
    if not place.is_dir() or not place.name:
        raise FileNotFoundError(f"there is no run at {place}; give runs/NAME, a run's folder in it, or a checkpoint")
    if (place / "checkpoints").is_dir() or (place / "config.yaml").is_file():
        return find_checkpoint(place.parent.parent, place.parent.name, "best", place.name)
    return find_checkpoint(place.parent, place.name, "best")


def device_of(device: str | torch.device | None) -> torch.device:
    """Raises ValueError where it cannot be had."""
    try:
        chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"no device {device} can be had ({str(error).splitlines()[0]}); give cpu or cuda") from error
    return chosen


def _built(keys: Mapping[str, Any], config: Path, checkpoint: Mapping[str, Any], path: Path) -> Inverter:
    """The inverter of a run's config, without its weights.

    Raises:
        OSError: Files of its data set are asked for, of a checkpoint up to 0.7, and are not there.
        ValueError: Its keys say something else, or a checkpoint that it is none.
    """
    model = model_of(keys, config)
    arguments = _of_this_version(model["init_args"])
    if "image_shape" in checkpoint:
        given: dict[str, Any] = {key: checkpoint.get(key) for key in ("image_shape", "seen_shape", "num_classes")}
        shapes = [shape if isinstance(shape, list) else [] for shape in (given["image_shape"], given["seen_shape"])]
        numbers = [*shapes[0], *shapes[1], given["num_classes"]]
        whole = len(numbers) == 7 and all(type(n) is int and 0 < n <= MOST_VALUES for n in numbers)
        if not whole or max(map(math.prod, shapes)) > MOST_VALUES:
            raise ValueError(f"{path} is damaged: its images are {given}; give another one")
    else:  # up to version 0.7
        data = made("data", ImageDataModule, keys.get("data"), keys, config)
        given = {key: getattr(data, key) for key in ("image_shape", "num_classes")}
    inverter: Inverter = made("model", Inverter, {**model, "init_args": {**arguments, **given}}, keys, config)
    return inverter


def model_of(keys: Mapping[str, Any], config: Path) -> dict[str, Any]:
    """A config's model. Raises ValueError where it has none with its arguments."""
    model = keys.get("model")
    if not isinstance(model, dict) or not isinstance(model.get("init_args"), dict):
        raise ValueError(f"the config {config} has no model with its init_args; give a run whose config is whole")
    return model


def _of_this_version(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """An inverter's without what older versions had to say how it is computed, and not what."""
    kept = {key: value for key, value in arguments.items() if key not in ("compile", "channels_last")}
    density = kept.get("density")
    its = density.get("init_args") if isinstance(density, dict) else None
    if isinstance(density, dict) and isinstance(its, dict) and its.get("sampler") == "auto":
        kept["density"] = {**density, "init_args": {key: value for key, value in its.items() if key != "sampler"}}
    return kept


class _Refused(BaseException):
    """What the parser says; as any other exception it would be taken for a try that failed, of several."""


def made(key: str, kind: type, value: Any, keys: Mapping[str, Any], config: Path) -> Any:
    """What a config asks for under a key, by the parser of the commands: nothing but a `kind` is made.

    Raises:
        ValueError: It asks for something else.
    """

    class OfPython(Parser):
        known = KnownKeys("test", keys_inside(keys, config))

        def error(self, message: str, ex: Exception | None = None) -> NoReturn:
            raise _Refused(of_parser(message, self.known))

    parser = OfPython()
    parser.add_lightning_class_args(kind, key, subclass_mode=True)
    try:
        with isolate_rng(), _working_folder_last():
            return parser.instantiate(parser.parse_object({key: value}))[key]
    except _Refused as refused:
        where = "" if str(config) in str(refused) else f" in {config}"
        raise ValueError(f"{refused}{where}") from None
    except Exception as error:
        raise of_constructor(error) from None


@contextmanager
def _working_folder_last() -> Iterator[None]:
    """A block in which modules of the user's own are found as the commands find them."""
    before = list(sys.path)
    sys.path += [] if "" in before else [""]
    try:
        yield
    finally:
        sys.path[:] = [folder for folder in sys.path if folder or "" in before]
