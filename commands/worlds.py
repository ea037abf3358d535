"""A world of known information as Python asks it, without a model."""

from collections.abc import Mapping
from numbers import Integral
from typing import Any, NamedTuple

import torch
from torch import Tensor

import datamodules
from commands.built_from_run import made
from commands.config_files import CONFIGS, config_names, read_config
from datamodules.split import seen
from datamodules.worlds import SPLITS, WorldDataModule
from inverters.inverter import Inverter
from inverters.representation import Representation

PREFIX = "world_"
PART = 250  # images that are encoded at once


class Drawn(NamedTuple):
    """Images and what h is of each.

    Attributes:
        x: uint8 [N, 1, H, W].
        h: float32 [N, K] or [N, K, H', W'].
        log_prob: log p(x | h), float64 [N] nats; None where only the information is known.
        information: I(x; h), nats.
    """

    x: Tensor
    h: Tensor
    log_prob: Tensor | None
    information: float


class World:
    """A distribution of x and h, of which the information is known exactly.

    Attributes:
        name: Of its config, without world_.
        information: I(x; h), nats.
        entropy: H(x), nats; None where it is not known.
    """

    def __init__(self, name: str, data: WorldDataModule, representation: Representation) -> None:
        self._data, self._representation = data, representation
        information = data.exact_information(representation)
        assert information is not None
        self.name, self.information, self.entropy = name, information, data.entropy

    def __repr__(self) -> str:
        return f"World {self.name}: I(x; h) = {self.information:.4g} nats"

    def draw(self, num_images: int, seed: int = 0, split: str = "train") -> Drawn:
        """Images, h, log p(x | h) and I(x; h), a function of (split, seed): the first of them, whatever their number.

        Those of the test are of the same distribution, but for digits, which are others than those of training. With
        the data's seed, 0 unless it is given, they are those of the config's test.

        Raises:
            ValueError: A number is none, or too small, or there is no such split.
        """
        whole = isinstance(num_images, Integral) and isinstance(seed, Integral)
        if not whole or num_images < 1 or seed < 0:
            raise ValueError(f"num_images is {num_images!r} and seed {seed!r}; give whole numbers of at least 1 and 0")
        if split not in SPLITS:
            raise ValueError(f"no split {split!r}; give one of {', '.join(SPLITS)}")
        batch = self._data.drawn(split, num_images, seed).first(num_images)
        pictures = seen(batch)
        h = torch.cat([self._representation(part) for part in pictures.split(PART)])
        partner = (pictures,) if "context_image" in batch else ()
        log_prob = self._data.exact_log_prob(batch["image"], self._representation, *partner)
        return Drawn(batch["image"], h, log_prob, self.information)


def world_names() -> list[str]:
    """Of the configs, without world_, that have a layer and are no negative control."""
    configs = {name: read_config(CONFIGS / f"{name}.yaml") for name in config_names() if name.startswith(PREFIX)}
    return [
        name.removeprefix(PREFIX) for name, keys in configs.items()
        if keys["model"]["init_args"]["layer"] and not getattr(datamodules, keys["data"]["class_path"]).must_fail
    ]  # fmt: skip


def load_world(name: str, layer: str | None, arguments: Mapping[str, Any]) -> World:
    """`inverters.worlds.world`, where it is described."""
    if name not in world_names():
        raise ValueError(f"no world {name!r}; there are {', '.join(world_names())}")
    path = CONFIGS / f"{PREFIX}{name}.yaml"
    keys = read_config(path)
    world_class: type[WorldDataModule] = getattr(datamodules, keys["data"]["class_path"])
    takes = world_class.arguments()
    if unknown := [key for key in arguments if key not in takes]:
        some = ", ".join(key for key in takes if key not in world_class.LOADING)
        raise ValueError(f"the world {name} has no argument {', '.join(unknown)}; give some of {some}")
    given = {**keys["data"], "init_args": {**keys["data"].get("init_args", {}), **arguments}}
    data: WorldDataModule = made("data", WorldDataModule, given, keys, path)
    model = keys["model"]["init_args"]
    its = {**model, "layer": layer or model["layer"], "image_shape": data.image_shape, "num_classes": data.num_classes}
    inverter: Inverter = made("model", Inverter, {**keys["model"], "init_args": its}, keys, path)
    return World(name, data, inverter.representation)
