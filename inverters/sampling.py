"""Draws from PixelCNN++, their noise, and the plain way of making them: one pass of the network a pixel."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from inverters.pixelcnn import PixelCNN


def draw_generator(index: int, draw: int, seed: int) -> torch.Generator:
    """The generator of one draw's noise, a function of (seed, dataset index, number of the draw) alone."""
    state = np.random.SeedSequence((seed, index, draw)).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


def pixel_noise(density: "PixelCNN", generators: Sequence[torch.Generator], dtype: torch.dtype) -> Tensor:
    """All the noise of one draw a generator, as the likelihood takes it: [B, U, H, W], on the CPU.

    The random numbers are the same in every dtype.
    """
    channels, height, width = density.image_shape
    shape = (density.likelihood.num_uniforms(channels), height, width)
    uniforms = torch.stack([torch.rand(shape, generator=g) for g in generators])
    # rand can return 0, and float32 has no number between 1 - 2^-24 and 1.
    return density.likelihood.noise(uniforms.clamp(2.0**-25, 1 - 2.0**-24).to(dtype))


@contextmanager
def evaluating(density: "PixelCNN") -> Iterator[None]:
    """Dropout off for a while."""
    training = density.training
    density.eval()
    try:
        yield
    finally:
        density.train(training)


@torch.no_grad()
def full_pass_sample(density: "PixelCNN", context: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """One full pass of the network a pixel, in raster order, with dropout off: uint8 [B, C, H, W].

    The reference for the fast samplers.
    """
    channels, height, width = density.image_shape
    noise = pixel_noise(density, generators, context.dtype).to(context.device)
    image = torch.zeros(len(generators), channels, height, width, dtype=torch.uint8, device=context.device)
    with evaluating(density):
        for row in range(height):
            for column in range(width):
                here = (slice(None), slice(None), slice(row, row + 1), slice(column, column + 1))
                image[here] = density.likelihood.sample(density(image, context)[here], noise[here], channels)
    return image
