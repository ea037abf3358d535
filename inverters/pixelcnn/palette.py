"""Which levels an image has had so far."""

import torch
from torch import Tensor, nn

from inverters.likelihoods import Categorical, Likelihood

SHARPNESS = 8  # one pixel of a level, of the hundreds before, is evidence already


class Palette(nn.Module):
    """Levels that an image has had may come again: an addition to the logits of a softmax.

    That of level v is a ln(1 + 8 n_v), where n_v pixels before have had it, and a is linear in the features from which
    the logits are made: a continuous cache (Grave, Joulin and Usunier 2017, "Improving neural language models with a
    continuous cache"), of counts. It begins as zero.

    Args:
        num_filters: F, features of a pixel.
        likelihood: Of one pixel.

    Raises:
        ValueError: It is no softmax over levels.
    """

    def __init__(self, num_filters: int, likelihood: Likelihood) -> None:
        super().__init__()
        if not isinstance(likelihood, Categorical):
            raise ValueError(
                f"palette counts the levels of a softmax, and {type(likelihood).__name__} has none; give "
                f"--model.density.palette false, or the likelihood Categorical"
            )
        self.num_levels, self.step = likelihood.num_levels, likelihood.step
        self.weight = nn.Parameter(torch.zeros(num_filters))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, features: Tensor, image: Tensor) -> Tensor:
        """Of every pixel, [B, L, H, W], from the features [B, F, H, W] and the image, uint8 [B, 1, H, W]."""
        # No tensors are larger, and making them costs the most: in place, in the order of the head's, to which they are
        # added. Integers: exact on a GPU, too.
        is_level = self.is_level(image.flatten(1)).mT.contiguous()
        before = is_level.cumsum(dim=2, dtype=torch.int32).add_(is_level, alpha=-1)
        factor = self.factor(features.flatten(2).mT).mT  # [B, 1, H W]
        return weighted(factor, before).unflatten(2, image.shape[2:])

    def is_level(self, pixels: Tensor) -> Tensor:
        """uint8 [...] -> bool [..., L]."""
        return pixels[..., None] == torch.arange(0, 256, self.step, device=pixels.device)

    def addition(self, features: Tensor, before: Tensor) -> Tensor:
        """From features [..., F] and how many pixels before have had each level, [..., L], to their logits [..., L]."""
        return weighted(self.factor(features), before)

    def factor(self, features: Tensor) -> Tensor:
        """a of features [..., F]: [..., 1]."""
        return (features * self.weight).sum(dim=-1, keepdim=True) + self.bias


def weighted(factor: Tensor, before: Tensor) -> Tensor:
    """a ln(1 + 8 n), from a and n, of shapes that fit each other."""
    return factor * before.to(factor.dtype).mul_(SHARPNESS).log1p_()
