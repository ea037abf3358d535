"""Does all that a network gives of an image go through one layer, and what does it give of another h there?"""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from inverters.exact_float32 import exact_float32
from inverters.layer import tensors_in
from inverters.networks import FAULTS
from inverters.reading import as_read
from inverters.representation import Representation

CLOSE = 1e-4  # of the difference that other images make


@torch.no_grad()
def is_bottleneck(representation: Representation, images: Tensor) -> bool:
    """Whether what the network gives of an image is a function of h, and so is every later layer that has a part in it.

    It is tried: the network sees images, and at the layer they are given the h of others. Where it then gives all that
    it gives of those others, nothing goes past the layer. Beside a residual branch something does.

    Args:
        representation: Of one layer.
        images: uint8 [B, C, H, W], of which at least two differ.

    Returns:
        False too where it cannot be seen: the network fails behind the layer, or gives the same of all images.
    """
    place, network = representation.place, representation.network
    if place is None:
        return False
    with exact_float32(images.device):
        x = representation.preprocess(images, network)
        raw = place.chosen(place.output(network, x.clone())).clone()
        if representation(images).numel() < raw.numel():  # as the mean of tokens, of which later layers see each
            return False
        try:
            mine, others = _outputs(network, x), _outputs(network, x.roll(1, 0))
            module = network.get_submodule(place.path)
            exchange = module.register_forward_hook(
                lambda module, inputs, output: replaced(output, place.chosen(output), raw.roll(1, 0))
            )
            try:
                exchanged = _outputs(network, x)
            finally:
                exchange.remove()
        except (*FAULTS, ValueError):
            return False
    far = max((_distance(a, b) for a, b in zip(mine, others, strict=True)), default=0.0)
    return far > 0 and all(_distance(a, b) <= CLOSE * far for a, b in zip(exchanged, others, strict=True))


@torch.no_grad()
def output_of_changed(
    representation: Representation, images: Tensor, change: Callable[[Tensor], Tensor]
) -> Tensor | None:
    """What the network gives of images where its later layers are given something else than its own h.

    Args:
        representation: Of a layer that all goes through (`is_bottleneck`).
        images: uint8 [B, C, H, W].
        change: From h [B, ...] to what is given, of the same shape.

    Returns:
        As `Representation.output`; None where h says some values of what the layer gives several times.
    """
    place, network = representation.place, representation.network
    assert place is not None
    with exact_float32(images.device):
        x = representation.preprocess(images, network)
        raw = place.chosen(place.output(network, x.clone())).clone()
        size = (x.shape[2], x.shape[3])
        numbers = torch.arange(raw[0].numel(), dtype=torch.float64, device=raw.device).view(1, *raw.shape[1:])
        places = as_read(numbers, place.name, network, size, representation.tokens).flatten().long()  # of each of h
        if len(places) != raw[0].numel() or len(places.unique()) < len(places):
            return None
        changed = torch.empty(raw.shape, dtype=raw.dtype, device=raw.device)
        given = change(as_read(raw, place.name, network, size, representation.tokens))
        changed.view(len(raw), -1)[:, places] = given.flatten(1).to(raw.dtype)
        module = network.get_submodule(place.path)
        exchange = module.register_forward_hook(
            lambda module, inputs, output: replaced(output, place.chosen(output), changed)
        )
        try:
            output: Tensor = network(x.clone())
        finally:
            exchange.remove()
    return output


def _outputs(network: nn.Module, x: Tensor) -> list[Tensor]:
    return [tensor.clone() for _, tensor in tensors_in(network(x.clone())) if tensor.is_floating_point()]


def _distance(a: Tensor, b: Tensor) -> float:
    """The largest; infinite where one is not a number, or they are of different shapes."""
    if a.shape != b.shape:
        return torch.inf
    return float((a.double() - b.double()).abs().max().nan_to_num(torch.inf)) if a.numel() else 0.0


def replaced(output: Any, old: Tensor, new: Tensor) -> Any:
    """What a module gives, with another tensor in place of one of its own; the module's own stays as it is.

    In place would not do: a module that gives its input would change it for others too.
    """
    if output is old:
        return new
    if isinstance(output, tuple):
        items = [replaced(item, old, new) for item in output]
        return type(output)(*items) if hasattr(output, "_fields") else tuple(items)
    if isinstance(output, list | Mapping):
        made: Any = copy.copy(output)
        for key in range(len(output)) if isinstance(output, list) else list(output):
            made[key] = replaced(output[key], old, new)
        return made
    return output
