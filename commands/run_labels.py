"""What a run is called and sorted by among others, as on Weights & Biases: by what decides its training."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from commands.recipe import OF_TRAINER
from datamodules import ImageDataModule
from datamodules.worlds import WorldDataModule
from inverters import Inverter
from inverters.generators import ConditionalDensity
from runtime.run import Run

DECIDES = {
    "model",
    "classifier",
    "seed_everything",
    "averaging_decay",
    "patience",
    *(f"trainer.{key}" for key in (*OF_TRAINER, "max_steps")),
}
LONGEST = 40  # letters of a value


def labels_of(run: Run, words: Sequence[str], called: str | None, model: Any, data: ImageDataModule) -> dict[str, Any]:
    """Name, group (the data set), job type and tags (layer, network and what is on top of it) of a fit.

    The name is the config's, with what the command line changes; or, where it changes nothing, with the run's folder.

    Args:
        run: That begins, or goes on.
        words: Of the command line.
        called: The run's own name, if any.
        model: That is trained.
        data: On which.
    """
    named = [called] if called else []
    told = [*named, *changes(words, data)] or [run.folder.name]
    return {
        "name": " ".join([run.name, *told])[:128],
        "group": data.name,
        "job_type": job_type(model, data),
        "tags": [tag[:64] for tag in tags(model)],
    }


def changes(words: Sequence[str], data: ImageDataModule) -> list[str]:
    """KEY=VALUE of each argument that decides the training, by the shortest key, and the names of further configs."""
    given, found = {}, []
    for word, following in pairwise([*words, "--"]):
        if not word.startswith("--"):
            continue
        key, has_value, value = word[2:].partition("=")
        if not has_value:
            value = "true" if following.startswith("--") else following
        key = key.replace(".init_args", "")
        if key == "config":
            found.append(Path(value).stem)
        elif _decides(key, data):
            given[key] = value
    last = [key.rpartition(".")[2] for key in given]
    short = {key: name if last.count(name) == 1 else key for key, name in zip(given, last, strict=True)}
    return [*found[1:], *(f"{short[key]}={value[:LONGEST]}" for key, value in given.items())]


def _decides(key: str, data: ImageDataModule) -> bool:
    first, _, rest = key.partition(".")
    return key in DECIDES or first in DECIDES or (first == "data" and rest not in data.NOT_IDENTIFYING)


def job_type(model: Any, data: ImageDataModule) -> str:
    """What a run is: classifier, world, unconditional or inverter, or what it has in place of a p(x | h)."""
    if not isinstance(model, Inverter):
        return "classifier"
    if isinstance(data, WorldDataModule):
        return "world"
    if model.representation.layer is None:
        return "unconditional"
    density = model.density
    is_likelihood = isinstance(density, ConditionalDensity) and not density.point_estimate
    return "inverter" if is_likelihood else density.called or type(density).__name__


def tags(model: Any) -> list[str]:
    """Layer, network, density and likelihood, where there are such."""
    if not isinstance(model, Inverter):
        return [str(model.network_name)]
    likelihood = getattr(model.density, "likelihood", None)
    kinds = [type(part).__name__ for part in (model.density, likelihood) if part is not None]
    return [str(name) for name in (model.representation.layer, model.network_name, *kinds) if name]


def plain(value: Any) -> Any:
    """A value of a config as W&B shows it: without keys that are not set, numbers as numbers."""
    if isinstance(value, Mapping):
        return {str(key): plain(its) for key, its in value.items() if its is not None and its != {}}
    if isinstance(value, list | tuple):
        return [plain(its) for its in value]
    if value is None or isinstance(value, bool | str):
        return value
    # Those with bounds, such as PositiveInt, would be texts.
    return int(value) if isinstance(value, int) else float(value) if isinstance(value, float) else str(value)
