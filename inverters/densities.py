"""What an inverter is made of: the contract of a conditional density over 8-bit images."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

LN2 = 0.6931471805599453


class ConditionalGenerator(nn.Module, ABC):
    """Anything that draws images given a representation."""

    @abstractmethod
    def sample(self, context: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """Draw one image for each row of context.

        Args:
            context: h, [B, ...].
            generators: B CPU generators, one a row, so that a draw does not depend on its batch.

        Returns:
            uint8 images, [B, C, H, W].
        """


class ConditionalDensity(ConditionalGenerator):
    """A normalised p(x | h) over 8-bit images x."""

    @abstractmethod
    def log_prob_per_pixel(self, image: Tensor, context: Tensor) -> Tensor:
        """log p(x_i | x_<i, h) of every pixel in raster order.

        Args:
            image: uint8, [B, C, H, W].
            context: h, [B, ...].

        Returns:
            [B, H, W] nats.
        """

    def log_prob(self, image: Tensor, context: Tensor) -> Tensor:
        """log p(x | h), the sum over pixels of `log_prob_per_pixel`: [B] nats."""
        return self.log_prob_per_pixel(image, context).sum(dim=(1, 2))

    def loss_and_log_prob(self, image: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """What training minimises, [B], and log p(x | h), [B] nats, from one pass of the network.

        The loss is -log p(x | h) (Nash et al. 2019, eq. 4), unless a density is trained otherwise.
        """
        log_prob = self.log_prob(image, context)
        return -log_prob, log_prob

    def initialise(self, image: Tensor, context: Tensor) -> None:
        """Set parameters from one batch of images [B, C, H, W] and representations, before training."""


ImageShape = tuple[int, int, int]  # C, H, W
DensityFactory = Callable[[ImageShape, tuple[int, ...]], ConditionalDensity]


def bits_per_dim(log_prob: Tensor, num_dims: int) -> Tensor:
    """Nats per image become bits per sub-pixel: the only place where they do.

    Args:
        log_prob: log p(x | h), nats, any shape.
        num_dims: D, the number of sub-pixels, C x H x W.
    """
    return -log_prob / (num_dims * LN2)
