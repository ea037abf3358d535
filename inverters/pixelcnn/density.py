"""PixelCNN++ as a conditional density, with exact samplers."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jsonargparse.typing import ClosedUnitInterval
from torch import Tensor

from inverters.generators import AutoregressiveDensity, Choice, ImageShape, check_images
from inverters.pixelcnn.fixed_point import fixed_point_sample
from inverters.pixelcnn.incremental import in_raster_order, incremental_sample
from inverters.pixelcnn.network import PixelCNNNetwork

GUESS = 4.0  # the weight of a guess: what the decoder learns from a few images all too well counts for less beside it


class PixelCNN(PixelCNNNetwork, AutoregressiveDensity):
    """The network of Salimans et al. (2017), with a likelihood of its parameters.

    Its arguments are the network's, and two more.

    Args:
        sampler: Both draw the same images from the same noise. On a CPU fixed-point iteration is faster only where it
            ends within 7 sweeps for one image, and within one for many; it was not measured on a GPU.
        corruption: In training, up to this share of an image's pixels, another share of each, is replaced by random
            colours on the way in; what is asked for are the true ones. A model that has seen few images meets others in
            its own draws: without it a stray pixel may lead to coloured noise. log p and draws know nothing of it.
    """

    def __init__(
        self,
        image_shape: ImageShape,
        context_shape: tuple[int, ...],
        *args: Any,
        sampler: Literal["incremental", "fixed_point"] = "incremental",
        corruption: ClosedUnitInterval = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(image_shape, context_shape, *args, **kwargs)
        self.sampler = sampler
        self.corruption = float(corruption)
        self.by_likelihood = not corruption

    def log_prob_per_pixel(self, image: Tensor, context: Tensor) -> Tensor:
        check_images(image, self.image_shape)
        return self.likelihood.log_prob(self(image, context), image)

    def loss(self, image: Tensor, context: Tensor) -> Tensor:
        if not (self.training and self.corruption):
            return super().loss(image, context)
        check_images(image, self.image_shape)
        return -self.likelihood.log_prob(self(self._corrupted(image), context), image).sum(dim=(1, 2))

    def guess_loss(self, image: Tensor, context: Tensor) -> Tensor:
        """Of each value as a share of 255, whose mean is guessed from h alone: cross-entropy, [B] nats by a weight."""
        check_images(image, self.image_shape)
        logit = self.guess(context)
        share = image.to(logit.dtype) / 255
        return GUESS * F.binary_cross_entropy_with_logits(logit, share, reduction="none").sum(dim=(1, 2, 3))

    def _corrupted(self, image: Tensor) -> Tensor:
        """Some pixels of uint8 images [B, C, H, W] replaced; a quarter of the values are 0, a quarter the largest.

        Of such pixels draws are made that have gone astray.
        """
        share = self.corruption * torch.rand(len(image), 1, 1, 1, device=image.device)
        replaced = torch.rand(len(image), 1, *image.shape[2:], device=image.device) < share
        colours = torch.randint(-128, 384, image.shape, device=image.device).clamp(0, 255).to(torch.uint8)
        return torch.where(replaced, colours // self.likelihood.step * self.likelihood.step, image)

    def sample(self, context: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        if self.sampler == "fixed_point":
            return fixed_point_sample(self, context, generators)[0]
        return incremental_sample(self, context, generators)

    def in_order(self, context: Tensor, choose: Choice) -> Tensor:
        channels = self.image_shape[0]

        def pixel(params: Tensor, r: int, c: int) -> Tensor:
            levels = params.new_empty(len(params), 0, dtype=torch.uint8)  # [B, channels so far]
            for channel in range(channels):
                index = choose(self.likelihood.level_probs(params, levels, channels), channel, r, c)
                level = (index * self.likelihood.step).to(torch.uint8)
                levels = torch.cat((levels, level[:, None]), dim=1)
            return levels[:, :, None, None]

        return in_raster_order(self, context, pixel, lambda r: None, f"coding {len(context)} images, rows")
