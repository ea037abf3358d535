"""PixelCNN++ as a conditional density, with exact samplers."""

from collections.abc import Sequence
from typing import Literal

import torch
from jsonargparse.typing import PositiveInt
from torch import Tensor

from inverters.generators import AutoregressiveDensity, ImageShape
from inverters.likelihoods import Categorical, Likelihood
from inverters.pixelcnn.fixed_point import fixed_point_sample
from inverters.pixelcnn.incremental import incremental_sample
from inverters.pixelcnn.network import PixelCNNNetwork


class PixelCNN(PixelCNNNetwork, AutoregressiveDensity):
    """The network of Salimans et al. (2017), with a likelihood of its parameters.

    Args:
        image_shape: (C, H, W); H and W multiples of 4.
        context_shape: The shape of h without its batch axis: (K,) a vector, (K, H', W') a map, (0,) unconditional.
        likelihood: Of one pixel.
        num_filters: Channels of every feature map (the paper: 64 for MNIST, 196 for SVHN and CIFAR).
        num_layers: n, residual layers a block; the blocks have n, n, n, n, n + 1, n + 1 in each stream.
        dropout: Inside every residual layer.
        context_dropout: On the context's biases.
        sampler: Both draw the same images from the same noise. On a CPU fixed-point iteration is faster only where it
            ends within 7 sweeps for one image, and within one for many; it was not measured on a GPU.

    Raises:
        ValueError: A side is not a multiple of 4, a dropout not in [0, 1), or the likelihood cannot model C channels.
    """

    def __init__(
        self,
        image_shape: ImageShape,
        context_shape: tuple[int, ...],
        likelihood: Likelihood = Categorical(),  # noqa: B008 - immutable
        num_filters: PositiveInt = 64,
        num_layers: PositiveInt = 3,
        dropout: float = 0.5,
        context_dropout: float = 0.0,
        sampler: Literal["incremental", "fixed_point"] = "incremental",
    ) -> None:
        super().__init__(image_shape, context_shape, likelihood, num_filters, num_layers, dropout, context_dropout)
        self.sampler = sampler

    def log_prob_per_pixel(self, image: Tensor, context: Tensor) -> Tensor:
        return self.likelihood.log_prob(self(image, context), image)

    def sample(self, context: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        if self.sampler == "fixed_point":
            return fixed_point_sample(self, context, generators)[0]
        return incremental_sample(self, context, generators)
