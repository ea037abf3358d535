"""What a network sees of a pixel's level beside its value."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LevelFeatures(nn.Module):
    """A few learned numbers of each of the 256 levels: uint8 [B, C, H, W] -> [B, C E, H, W].

    To a convolution that takes levels as numbers in [-1, 1], 253 and 254 are nearly the same; where images repeat their
    levels exactly, as those that were scaled from black and white ones do, it hardly learns which one to repeat.

    Args:
        channels: C, each with a table of its own.
        num_features: E.
    """

    def __init__(self, channels: int, num_features: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(256 * channels, num_features))

    def forward(self, image: Tensor) -> Tensor:
        first = torch.arange(0, len(self.table), 256, device=image.device)[:, None, None]
        return F.embedding(image + first, self.table).movedim(-1, 2).flatten(1, 2)
