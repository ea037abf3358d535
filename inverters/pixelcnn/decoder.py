"""What h says of each place, worked out before PixelCNN++ sees a pixel."""

import torch.nn.functional as F
from torch import Tensor, nn


class ContextDecoder(nn.Module):
    """From h to features of every pixel's place, as a decoder of images begins: [B, ...] -> [B, 2F, H, W].

    As in the paper, h enters PixelCNN++ by a linear map in every layer, and a vector gives one bias for all places:
    what lies where must be deciphered by convolutions that see pixels. Here three layers with ELUs between them compute
    it: at a quarter of the resolution (from a vector) or at that of the map, then at a half, then at the image's.

    Args:
        context_shape: (K,) or (K, H', W').
        size: (H, W).
        num_filters: Of the first two layers.
        num_outputs: 2F.
    """

    def __init__(
        self, context_shape: tuple[int, ...], size: tuple[int, int], num_filters: int, num_outputs: int
    ) -> None:
        super().__init__()
        height, width = size
        self.size, self.half_size = size, (height // 2, width // 2)
        if len(context_shape) == 1:
            start = (num_filters, height // 4, width // 4)
            self.start: nn.Module = nn.Sequential(
                nn.Linear(context_shape[0], num_filters * (height // 4) * (width // 4)), nn.Unflatten(1, start)
            )
        else:
            self.start = nn.Conv2d(context_shape[0], num_filters, kernel_size=3, padding=1)
        self.middle = nn.Conv2d(num_filters, num_filters, kernel_size=3, padding=1)
        self.end = nn.Conv2d(num_filters, num_outputs, kernel_size=3, padding=1)

    def forward(self, context: Tensor) -> Tensor:
        x = F.elu(self.start(context))
        larger = max(x.shape[2], self.half_size[0]), max(x.shape[3], self.half_size[1])
        x = F.elu(self.middle(resized(x, larger)))
        return self.end(resized(x, self.size))


def resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    """[B, C, h, w] -> [B, C, H, W], bilinearly, where it is not of that size."""
    return x if tuple(x.shape[2:]) == size else F.interpolate(x, size=size, mode="bilinear")
