"""The layers that lead from h back to an image, as ConvNet led to h."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from inverters.generators import ImageShape


def mirrored(
    image_shape: ImageShape,
    context_shape: tuple[int, ...],
    filters: Sequence[int],
    num_hidden: int,
    depth: int = 1,
    num_noise: int = 0,
) -> nn.Sequential:
    """For every stage of ConvNet, from the layer back, a rectifier, an unpooling and a 5x5 transposed convolution.

    A vector h goes through linear layers to a map at the resolution of the deepest stage; a map h starts at its own
    resolution with a 5x5 convolution. What comes out, [B, C, H, W], is not squashed to [0, 1].

    Args:
        image_shape: (C, H, W).
        context_shape: (K,) or (K, H', W').
        filters: Of the feature maps as ConvNet has them, the stage next to the image first.
        num_hidden: Units between a vector h and the first map.
        depth: How many times so many, each with a rectifier.
        num_noise: Numbers that go beside a vector h, or to every place of a map.

    Raises:
        ValueError: h is empty and there is no noise, or a map of a resolution that no stage of ConvNet has, or the
            image is too small.
    """
    sides = [tuple(image_shape[1:])]  # at the image, then after every stage of the classifier
    for _ in filters:
        sides.append(tuple((side - 4) // 2 for side in sides[-1]))
    channels = [image_shape[0], *filters]
    layers: list[nn.Module]
    if context_shape[1:] in sides[1:]:
        stage = sides.index(context_shape[1:])
        layers = [nn.Conv2d(context_shape[0] + num_noise, channels[stage], kernel_size=5, padding=2)]
    elif len(context_shape) == 1 and context_shape[0] + num_noise:
        stage = len(filters)
        deepest = (channels[stage], *sides[stage])
        if min(deepest) < 1:
            raise ValueError(
                f"images of {image_shape[1]}x{image_shape[2]} are too small for {stage} stages of a decoder"
            )
        layers = []
        for before, after in pairwise([context_shape[0] + num_noise, *depth * [num_hidden]]):
            layers += [nn.Linear(before, after), nn.ReLU()]
        layers += [nn.Linear(num_hidden, math.prod(deepest)), nn.Unflatten(1, deepest)]
    elif context_shape == (0,):
        raise ValueError("a decoder starts from h, and without a layer there is none; give --model.layer")
    else:
        maps = ", ".join(f"Kx{height}x{width}" for height, width in sides[1:])
        size = "x".join(map(str, context_shape)) or "a scalar"
        raise ValueError(f"a decoder starts from a vector or a map {maps}; this h is {size}")
    for i in range(stage, 0, -1):
        layers += [
            nn.ReLU(),
            nn.Upsample(size=tuple(side - 4 for side in sides[i - 1])),  # nearest
            nn.ConvTranspose2d(channels[i], channels[i - 1], kernel_size=5),
        ]
    return nn.Sequential(*layers)


def squashed(logits: Tensor) -> Tensor:
    """In [0, 1], in float32 or wider."""
    return torch.sigmoid(logits if logits.dtype == torch.float64 else logits.float())
