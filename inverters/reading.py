"""What a layer gives, as a density takes it: a vector [B, K] or a map [B, K, H, W], with nothing lost."""

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor, nn

from inverters.layer import size

Tokens = Literal["all", "map", "prefix", "mean"]
PREFIXES = (0, 1, 2, 4, 5)  # none; a class token; with one for distillation; four registers; with a class token


def is_grid(rows: int, columns: int, seen: tuple[int, int]) -> bool:
    """Whether so many rows and columns are cells of an image of a size (H, W): up to less than one of them."""
    height, width = seen
    return abs(rows * width - columns * height) < max(height, width)


def as_read(raw: Tensor, name: str, network: nn.Module, seen: tuple[int, int], tokens: Tokens = "all") -> Tensor:
    """A layer's output [B, ...] as a vector [B, K] or a map [B, K, H', W'].

    A map whose channels come last is turned. Of tokens [B, T, C] "all" are the patches as a map, [B, C, H', W'], and
    behind its channels those of every prefix token, the same at all places, [B, C (1 + P), H', W']; "map" are the
    patches alone, "prefix" the prefix tokens as a vector [B, P C], and "mean" is the mean of the patches, [B, C].

    Args:
        raw: Floats.
        name: The layer's.
        network: That it is of; one of timm says how many prefix tokens it has.
        seen: (H, W) of what the network sees.
        tokens: What to take of tokens.

    Raises:
        ValueError: It is none of those, or tokens are asked for where there are none.
    """
    if raw.ndim == 3:
        return _tokens(raw, name, network, seen, tokens)
    if tokens != "all":
        raise ValueError(f"tokens is {tokens}, and layer {name} gives {size(raw)}, which are no tokens; leave it out")
    if raw.ndim == 1:
        return raw[:, None]
    if raw.ndim == 4:
        first, second, third = raw.shape[1:]
        says_last = any(getattr(module, "output_fmt", None) == "NHWC" for module in network.modules())  # timm's do
        last = is_grid(first, second, seen) and (says_last or not is_grid(second, third, seen))
        return raw.movedim(3, 1) if last else raw
    if raw.ndim != 2:
        raise ValueError(f"layer {name} gives {size(raw)}, which is neither a vector, a map nor tokens; give another")
    return raw


def _tokens(raw: Tensor, name: str, network: nn.Module, seen: tuple[int, int], tokens: Tokens) -> Tensor:
    number = raw.shape[1]
    for num_prefix in _prefixes(network):
        found = _grid(number - num_prefix, seen)
        if found:
            prefix, patches = raw[:, :num_prefix], raw[:, num_prefix:]  # [B, P, C], [B, H' W', C]
            break
    else:
        if tokens == "mean":
            return raw.mean(dim=1)
        raise ValueError(
            f"layer {name} gives {size(raw)}: {number} tokens are no grid of patches of an image of "
            f"{seen[0]}x{seen[1]}, with at most {max(PREFIXES)} before them; give --model.tokens mean, or another layer"
        )
    if tokens == "mean":
        return patches.mean(dim=1)
    if tokens == "prefix":
        if not num_prefix:
            raise ValueError(f"tokens is prefix, and layer {name} gives {size(raw)}, patches alone; give map or mean")
        return prefix.flatten(1)
    patches = patches.transpose(1, 2).unflatten(2, found)
    if tokens == "map" or not num_prefix:
        return patches
    return torch.cat([patches, prefix.flatten(1)[:, :, None, None].expand(-1, -1, *found)], dim=1)


def _prefixes(network: nn.Module) -> Iterator[int]:
    for module in network.modules():
        number = getattr(module, "num_prefix_tokens", None)
        if isinstance(number, int):
            yield number
            break
    yield from PREFIXES


def _grid(number: int, seen: tuple[int, int]) -> tuple[int, int] | None:
    """Rows and columns of so many patches of an image; None where they are no grid."""
    height, width = seen
    rows = round((number * height / width) ** 0.5) if number > 0 else 0
    columns = number // rows if rows else 0
    return (rows, columns) if rows * columns == number > 0 and is_grid(rows, columns, seen) else None
