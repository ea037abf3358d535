"""Which levels an image has had so far."""

import torch
from torch import Tensor, nn

from inverters.likelihoods import Categorical, Likelihood


class Palette(nn.Module):
    """Levels that an image has had in the rows above may come again: an addition to the logits of a softmax.

    That of level v is a ln(1 + n_v) + b [n_v > 0], where n_v pixels above have had it, and a and b are linear in the
    features from which the logits are made: a continuous cache (Grave, Joulin and Usunier 2017, "Improving neural
    language models with a continuous cache"), of counts. It begins as zero.

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
        self.weight = nn.Parameter(torch.zeros(2, num_filters))
        self.bias = nn.Parameter(torch.zeros(2))

    def forward(self, features: Tensor, image: Tensor) -> Tensor:
        """Of every pixel, [B, L, H, W], from the features [B, F, H, W] and the image, uint8 [B, 1, H, W]."""
        up_to = self.counts(image).cumsum(dim=1)
        above = torch.cat((torch.zeros_like(up_to[:, :1]), up_to[:, :-1]), dim=1)  # [B, H, L]
        return (self.of_counts(above) @ self.factors(features.transpose(1, 2))).transpose(1, 2)

    def counts(self, image: Tensor) -> Tensor:
        """How many pixels of each row have each level: uint8 [B, 1, H, W] -> [B, H, L].

        By comparisons: a GPU's sums by index are in no fixed order.
        """
        levels = torch.arange(0, 256, self.step, device=image.device)
        return (image[:, 0, :, :, None] == levels).sum(dim=2)

    def of_counts(self, counts: Tensor) -> Tensor:
        """ln(1 + n_v) and [n_v > 0], [..., L] -> [..., L, 2]."""
        return torch.stack((counts.to(self.bias.dtype).log1p(), (counts > 0).to(self.bias.dtype)), dim=-1)

    def factors(self, features: Tensor) -> Tensor:
        """a and b, [..., F, W] -> [..., 2, W]."""
        return self.weight @ features + self.bias[:, None]
