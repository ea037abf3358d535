"""Images whose h is the one wanted, found by gradient descent on their pixels (Mahendran and Vedaldi 2015)."""

import math
from collections.abc import Callable, Sequence

import torch
from jsonargparse.typing import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor
from tqdm import tqdm

from inverters.generators import ImageShape
from inverters.representation import Representation
from inverters.untrained import Untrained, relative_distance

SMALLEST_SLOPE = 1e-8  # squared, added to that of each pixel: where it is 0, its root has no gradient
BETAS = (0.9, 0.999)


def total_variation(x: Tensor, beta: float) -> Tensor:
    """The mean over pixels of (horizontal slope^2 + vertical slope^2)^(beta/2), [B], of x [B, C, H, W].

    Mahendran and Vedaldi (2015), section 3.1. At the last column and row the slope beyond is 0. differs: a mean,
    because a weight shall not depend on the size of the images.
    """
    across = torch.nn.functional.pad(x.diff(dim=3), (0, 1))
    down = torch.nn.functional.pad(x.diff(dim=2), (0, 0, 0, 1))
    return (across.square() + down.square() + SMALLEST_SLOPE).pow(beta / 2).mean(dim=(1, 2, 3))


class PixelOptimisation(Untrained):
    """From noise, minimises ||h(x) - h0||^2 / ||h0||^2 + a |x - mean|^alpha + b TV_beta(x), by Adam on the pixels.

    Mahendran and Vedaldi 2015, "Understanding deep image representations by inverting them", eq. 1 to 3. Works for any
    network that has a gradient. h is standardised where the inverter's is. differs: x is kept in [0, 1], as an image
    is; Adam with a learning rate that falls to zero, in place of momentum with one that is lowered by hand; x is not
    scaled by the mean norm of images, and both regularisers are means over pixels; and alpha is 2 and beta 1.5 by
    default, where theirs are 6 and 2.

    What is found depends on the noise: a draw is a function of (seed, image, draw), and of no other image. There is no
    p(x | h) in this: what a draw has that h does not say is the regulariser's and the noise's.

    Args:
        image_shape: (C, H, W).
        context_shape: Of h.
        num_steps: Of gradient descent.
        lr: Adam's, of pixels in [0, 1], at the beginning.
        restarts: From noise of their own; the one whose objective is lowest at the end is taken.
        tv_weight: b; the nearer the layer is to the image, the less is needed (conv1's config has 0.02).
        tv_beta: 2 in the original; less keeps edges.
        alpha_weight: a, of a mean over the image's values.
        alpha: 6 in the original, which only keeps values in their range; 2 draws what h does not say to the mean.
        noise: Standard deviation of the first image around the mean.

    Attributes:
        mean: Of each channel on the batch that initialises, [C, 1, 1], in [0, 1].

    Raises:
        ValueError: There is no layer, or h has no gradient, or alpha is below 1.
    """

    called = "optimised pixels"
    mean: Tensor

    def __init__(
        self,
        image_shape: ImageShape,
        context_shape: tuple[int, ...],
        num_steps: PositiveInt = 200,
        lr: PositiveFloat = 0.2,
        restarts: PositiveInt = 1,
        tv_weight: NonNegativeFloat = 0.5,
        tv_beta: PositiveFloat = 1.5,
        alpha_weight: NonNegativeFloat = 0.5,
        alpha: PositiveFloat = 2.0,
        noise: NonNegativeFloat = 0.1,
    ) -> None:
        super().__init__(image_shape)
        if alpha < 1:
            raise ValueError(f"alpha is {alpha}; give at least 1, or a pixel that is the mean has no finite gradient")
        self.num_steps, self.lr, self.restarts = num_steps, lr, restarts
        self.tv_weight, self.tv_beta = tv_weight, tv_beta
        self.alpha_weight, self.alpha = alpha_weight, alpha
        self.noise = noise
        self.register_buffer("mean", torch.full((image_shape[0], 1, 1), 0.5))

    def meet(self, representation: Representation, standardised: Callable[[Tensor], Tensor]) -> None:
        super().meet(representation, standardised)
        with torch.inference_mode(False), torch.enable_grad():
            x = torch.full((2, *self.image_shape), 0.5, dtype=self._precision(), requires_grad=True)
            if not representation.of_unit(x).requires_grad:
                raise self._no_gradient()

    def _precision(self) -> torch.dtype:
        """Of the network's numbers."""
        return next((p.dtype for p in self.representation.network.parameters() if p.is_floating_point()), torch.float32)

    def _no_gradient(self) -> ValueError:
        return ValueError(
            f"layer {self.representation.layer} has no gradient in the pixels, as what rounds or counts has none, so "
            f"that a PixelOptimisation cannot invert it; give another layer, or another --model.density"
        )

    def objective(self, x: Tensor, context: Tensor) -> Tensor:
        """What is minimised, [B], for floats x in [0, 1], [B, C, H, W], and the standardised h that is wanted."""
        found = relative_distance(self.context_of(x), context)
        if self.tv_weight:
            found = found + self.tv_weight * total_variation(x, self.tv_beta)
        if self.alpha_weight:
            found = found + self.alpha_weight * (x - self.mean).abs().pow(self.alpha).mean(dim=(1, 2, 3))
        return found

    def optimised(self, noise: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Images in [0, 1], [B, C, H, W], and their objectives [B], from standard normal noise of the same shape.

        Each row's is a descent of its own: Adam knows only the pixel's gradient.

        Raises:
            ValueError: No pixel has a gradient.
        """
        with torch.inference_mode(False), torch.enable_grad():
            context, mean = context.clone(), self.mean.to(context.dtype)  # a test's can have no gradient
            x = (mean + self.noise * noise.to(context)).clamp(0, 1)
            distance = relative_distance(self.context_of(x.requires_grad_(True)), context)
            if distance.any() and not torch.autograd.grad(distance.sum(), x)[0].any():
                raise self._no_gradient()
            momentum, squares = torch.zeros_like(x), torch.zeros_like(x)
            for step in tqdm(range(self.num_steps), "optimising pixels, steps", delay=10, leave=False):
                x.requires_grad_(True)
                objective = self.objective(x, context)
                (gradient,) = torch.autograd.grad(objective.sum(), x)
                with torch.no_grad():
                    momentum.lerp_(gradient, 1 - BETAS[0])
                    squares.lerp_(gradient.square(), 1 - BETAS[1])
                    lr = self.lr * (1 + math.cos(math.pi * step / self.num_steps)) / 2
                    rms = (squares / (1 - BETAS[1] ** (step + 1))).sqrt() + 1e-8
                    x = (x - lr / (1 - BETAS[0] ** (step + 1)) * momentum / rms).clamp_(0, 1)
            with torch.no_grad():
                return x, self.objective(x, context)

    def sample(self, context: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        starts = [torch.randn(self.image_shape, generator=g) for g in generators for _ in range(self.restarts)]
        noise = torch.stack(starts).to(context)
        x, objective = self.optimised(noise, context.repeat_interleave(self.restarts, dim=0))
        best = objective.view(-1, self.restarts).argmin(dim=1)  # [B]
        rows = torch.arange(len(best), device=best.device)
        chosen = x.unflatten(0, (-1, self.restarts))[rows, best]
        return (255 * chosen).round().to(torch.uint8)

    def loss(self, image: Tensor, context: Tensor) -> Tensor:
        """How far h of a draw is from h, relative to that, [B]; of all images from the same noise."""
        drawn = self.sample(context, [torch.Generator().manual_seed(0) for _ in image])
        return relative_distance(self.context_of(drawn.to(context.dtype) / 255), context)

    @torch.no_grad()
    def initialise(self, image: Tensor, context: Tensor) -> None:
        self.mean.copy_(image.to(self.mean.dtype).mean(dim=(0, 2, 3))[:, None, None] / 255)
