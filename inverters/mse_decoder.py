"""The point estimate of earlier work, a decoder trained by squared error (Nash et al. 2019, eq. 3), as a density."""

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from jsonargparse.typing import PositiveInt
from torch import Tensor

from inverters.generators import AutoregressiveDensity, ImageShape, check_images
from inverters.mirrored import mirrored, squashed

SMALLEST_VARIANCE = 1e-8  # a standard deviation of 0.026 levels: an exact decoder is still a density


def log_prob_of_level(level: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """log of Phi((v + 1/2 - mean) / scale) - Phi((v - 1/2 - mean) / scale), the tails in levels 0 and 255.

    Finite, with finite gradients, however far the level; in float64.

    Args:
        level: v, uint8, any shape.
        mean: On the scale of levels, the same shape.
        scale: The standard deviation, in levels, a scalar.

    Returns:
        float64 nats of the same shape; over the 256 levels the probabilities sum to 1.
    """
    centred = level.double() - mean.double()
    upper = (centred + 0.5) / scale.double()
    lower = (centred - 0.5) / scale.double()
    # The cell's mirror image has the same probability, and in the left tail Phi does not round to 1.
    mirrored = centred > 0
    near = torch.special.log_ndtr(torch.where(mirrored, -lower, upper))
    far = torch.special.log_ndtr(torch.where(mirrored, -upper, lower))
    # near > far always, so that this branch is finite too, or torch.where would give NaN gradients.
    interior = near + torch.log(-torch.expm1(far - near))
    ends = torch.special.log_ndtr(torch.where(level == 0, upper, -lower))
    return torch.where((level == 0) | (level == 255), ends, interior)


class MSEDecoder(AutoregressiveDensity):
    """Mirrors ConvNet: every stage unpools and has a 5x5 transposed convolution, from h back to an image in [0, 1].

    Its layers are `mirrored`. Trained by squared error, which is maximum likelihood for a spherical Gaussian;
    that Gaussian, discretised to the 8-bit grid, is the density. Draws are from it; what is shown is its mean.

    Args:
        image_shape: (C, H, W).
        context_shape: (K,) or (K, H', W').
        filters: Of the feature maps as ConvNet has them, the stage next to the image first.
        num_hidden: Units between a vector h and the first map.

    Attributes:
        variance: Of the Gaussian, in units of [0, 1] squared: the mean squared error of a sub-pixel on the images that
            calibrate, which is its maximum-likelihood value; before, on the batch that initialises.

    Raises:
        ValueError: h is empty, or a map of a resolution that no stage of ConvNet has, or the image is too small.
    """

    by_likelihood = False
    point_estimate = True
    called = "MSE decoder"
    variance: Tensor

    def __init__(
        self,
        image_shape: ImageShape,
        context_shape: tuple[int, ...],
        filters: Sequence[PositiveInt] = (32, 32),
        num_hidden: PositiveInt = 256,
    ) -> None:
        super().__init__()
        self.image_shape = image_shape
        self.register_buffer("variance", torch.tensor(1.0))
        self.layers = mirrored(image_shape, context_shape, filters, num_hidden)

    def forward(self, context: Tensor) -> Tensor:
        """The mean, before its squashing to [0, 1], [B, C, H, W]."""
        return self.layers(context)

    def mean(self, context: Tensor) -> Tensor:
        """The reconstruction from h [B, ...]: [B, C, H, W] in [0, 1], in float32 or wider."""
        return squashed(self(context))

    def shown(self, context: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        return (255 * self.mean(context)).round().to(torch.uint8)

    def log_prob_per_pixel(self, image: Tensor, context: Tensor) -> Tensor:
        check_images(image, self.image_shape)
        mean = self.mean(context)
        scale = 255 * self.variance.double().clamp(min=SMALLEST_VARIANCE).sqrt()
        return log_prob_of_level(image, 255 * mean.double(), scale).sum(dim=1).to(mean.dtype)

    def loss(self, image: Tensor, context: Tensor) -> Tensor:
        """The squared error ||x - mean||^2, x in [0, 1] (Nash et al. 2019, eq. 3), [B]."""
        check_images(image, self.image_shape)
        mean = self.mean(context)
        return (image.to(mean.dtype) / 255 - mean).square().sum(dim=(1, 2, 3))

    @torch.no_grad()
    def sample(self, context: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """Draw every sub-pixel on its own, so that draws are as noisy as the error is large."""
        mean = self.mean(context)
        noise = torch.stack([torch.randn(self.image_shape, generator=g) for g in generators]).to(mean)
        deviation = self.variance.to(mean.dtype).clamp(min=SMALLEST_VARIANCE).sqrt()
        return (255 * (mean + deviation * noise)).round().clamp(0, 255).to(torch.uint8)

    @torch.no_grad()
    def initialise(self, image: Tensor, context: Tensor) -> None:
        self.variance.copy_(self.loss(image, context).mean() / math.prod(self.image_shape))

    @torch.no_grad()
    def calibrate(self, batches: Iterable[tuple[Tensor, Tensor]], total: Callable[[Tensor], Tensor]) -> None:
        sums = torch.zeros(2, dtype=torch.float64, device=self.variance.device)  # squared error, sub-pixels
        for image, context in batches:
            sums[0] += (image.double() / 255 - self.mean(context).double()).square().sum()
            sums[1] += image.numel()
        error, num_dims = total(sums)
        self.variance.copy_(error / num_dims)
