"""Images of a training batch from which only a density's decoder of h learns."""

import torch
import torch.distributed as dist
from torch import Tensor

from inverters.generators import draw_generator
from inverters.warp import NUM_NUMBERS, warped

Tensors = dict[str, Tensor]


def parted(batch: Tensors, companions: int, warp: float, step: int) -> tuple[Tensors, Tensors]:
    """A training batch without the companions of its images, and these; nothing, where there are none.

    Args:
        batch: Tensors [B, ...]: `image`, what the network sees as `context_image`, `h`, and others.
        companions: Of each image, which come behind them all.
        warp: How strongly the companions are warped, in [0, 1]. Warped, they have no `h` of before.
        step: Of the training; how they are warped is a function of it, whatever the processes.
    """
    size = len(batch["image"])
    if not companions:
        return batch, {}
    number = max(1, size // (1 + companions))
    # One image, with which an epoch may end, is its own companion, so that every weight has a gradient.
    rest = slice(number if size > 1 else 0, None)
    its = ("image", "context_image") if warp else ("image", "context_image", "h")
    found = {name: batch[name][rest] for name in its if name in batch}
    if warp:
        numbers = warp * numbers_of_step(step, size)[rest].to(batch["image"].device)
        found = dict(zip(found, warped(list(found.values()), numbers), strict=True))
    return {name: values[:number] for name, values in batch.items()}, found


def numbers_of_step(step: int, size: int) -> Tensor:
    """For `warped`, of this process's images: [size, 6] in [-1, 1]."""
    world, rank = (dist.get_world_size(), dist.get_rank()) if dist.is_initialized() else (1, 0)
    generator = draw_generator(step, 0, seed=0)  # each process has a seed of its own
    return 2 * torch.rand(world * size, NUM_NUMBERS, generator=generator)[rank::world] - 1
