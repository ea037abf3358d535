"""Whether an image is real: what an adversarial loss is made of."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from inverters.generators import ImageShape

NUM_HIDDEN = 256


def strided(image_shape: ImageShape, filters: Sequence[int], num_hidden: int, depth: int) -> list[nn.Module]:
    """4x4 convolutions that halve the side, then linear layers of `num_hidden`, each with a leaky rectifier.

    Raises:
        ValueError: The image is too small.
    """
    channels = [image_shape[0], *filters]
    size = [side >> len(filters) for side in image_shape[1:]]
    if min(size) < 1:
        raise ValueError(f"images of {image_shape[1]}x{image_shape[2]} are too small for {len(filters)} halvings")
    layers: list[nn.Module] = []
    for before, after in pairwise(channels):
        layers += [nn.Conv2d(before, after, kernel_size=4, stride=2, padding=1), nn.LeakyReLU(0.2)]
    layers.append(nn.Flatten())
    for before, after in pairwise([channels[-1] * math.prod(size), *depth * [num_hidden]]):
        layers += [nn.Linear(before, after), nn.LeakyReLU(0.2)]
    return layers


class Discriminator(nn.Module):
    """Scores images, real ones above those of a generator; trained beside it within the same loss.

    The generator's own part of the loss sees the discriminator's weights as constants, and the discriminator's sees the
    generated images as constants. The gradient of their sum is therefore each player's own, and one step of Adam,
    which treats every weight by itself, with a group of weights for each is a step of two optimisers at once: training
    counts its steps, resumes, averages and runs in several processes as that of any other generator. Lightning's
    manual optimisation would count each optimiser's steps, and leave all of that to the one who writes it.

    Hinge losses (Lim and Ye 2017) with spectral normalisation (Miyato et al. 2018): where the discriminator is ahead by
    the margin on an image it learns no more of it, as DeePSiM pauses it as a whole. Nothing is normalised over a batch,
    so that an image's loss does not depend on those beside it.

    Args:
        image_shape: (C, H, W).
        context_shape: Of h.
        filters: Of its convolutions, each of which halves the side.
        sees_h: Whether it is asked if an image is a real one of this h (Miyato and Koyama 2018), not only if real.
        gradient_penalty: Instead of both, logistic losses and R1 of this weight (Mescheder et al. 2018): half of the
            squared gradient at real images, which leaves it free to be steep where there are none. In training alone.
        depth: Of its linear layers behind the convolutions.
    """

    def __init__(
        self,
        image_shape: ImageShape,
        context_shape: tuple[int, ...],
        filters: Sequence[int],
        sees_h: bool,
        gradient_penalty: float = 0.0,
        depth: int = 1,
    ) -> None:
        super().__init__()
        self.gradient_penalty = gradient_penalty
        bounded = (lambda layer: layer) if gradient_penalty else spectral_norm
        layers = strided(image_shape, filters, NUM_HIDDEN, depth)
        self.features = nn.Sequential(*(bounded(m) if isinstance(m, nn.Conv2d | nn.Linear) else m for m in layers))
        self.real = bounded(nn.Linear(NUM_HIDDEN, 1))
        self.of_h = bounded(nn.Linear(math.prod(context_shape), NUM_HIDDEN)) if sees_h else None

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """The scores [B] of images x in [0, 1], [B, C, H, W], and h [B, ...]."""
        found = self.features(2 * x - 1)
        score = self.real(found).squeeze(1)
        if self.of_h is not None:
            h = context.flatten(1)
            score = score + (self.of_h(h) * found).sum(dim=1) / math.sqrt(h.shape[1])
        return score

    def losses(self, real: Tensor, made: Tensor, context: Tensor) -> dict[str, Tensor]:
        """`adversarial`, the generator's, and `discriminator`, its own, each [B] and without the other's gradient.

        Args:
            real: x in [0, 1], [B, C, H, W].
            made: By the generator from the same h.
            context: h, [B, ...].
        """
        constants = {name: weight.detach() for name, weight in self.named_parameters()}
        fools = torch.func.functional_call(self, constants, (made, context))
        penalised = bool(self.gradient_penalty) and torch.is_grad_enabled()
        real = real.detach().requires_grad_(penalised)
        both = self(torch.cat([real, made.detach()]), torch.cat([context, context]))
        of_real, of_made = both.split(len(real))
        if self.gradient_penalty:
            judged = F.softplus(-of_real) + F.softplus(of_made)
            if penalised:
                (slope,) = torch.autograd.grad(of_real.sum(), real, create_graph=True)
                judged = judged + self.gradient_penalty / 2 * slope.square().flatten(1).sum(dim=1)
            return {"adversarial": F.softplus(-fools), "discriminator": judged}
        return {"adversarial": -fools, "discriminator": F.relu(1 - of_real) + F.relu(1 + of_made)}
