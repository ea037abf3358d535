"""What h says of each place, worked out before PixelCNN++ sees a pixel."""

import torch.nn.functional as F
from torch import Tensor, nn

from inverters.pixelcnn.layers import CentredConv2d


class ContextDecoder(nn.Module):
    """From h to features of every pixel's place, as a decoder of images begins: [B, ...] -> [B, O, H, W].

    As in the paper, h enters PixelCNN++ by a linear map in every layer, and a vector gives one bias for all places:
    what lies where must be deciphered by convolutions that see pixels. Here layers with ELUs between them compute it:
    a vector becomes features, and those a map at a quarter of the resolution; a map begins at its own; then at a half,
    then at the image's. They are weight-normalised as all others, so that Muon trains them too: by Adam, most of what h
    tells is not found.

    Args:
        context_shape: (K,) or (K, H', W').
        size: (H, W).
        num_filters: F, of all layers of maps but the last; a vector's features are 8 F.
        num_outputs: O.
    """

    def __init__(
        self, context_shape: tuple[int, ...], size: tuple[int, int], num_filters: int, num_outputs: int
    ) -> None:
        super().__init__()
        height, width = size
        self.size, self.half_size = size, (height // 2, width // 2)
        if len(context_shape) == 1:
            self.start: nn.Module = nn.Sequential(
                nn.Unflatten(1, (context_shape[0], 1, 1)),
                CentredConv2d(context_shape[0], 8 * num_filters, 1),
                nn.ELU(),
                CentredConv2d(8 * num_filters, num_filters * (height // 4) * (width // 4), 1),
                nn.Flatten(),
                nn.Unflatten(1, (num_filters, height // 4, width // 4)),
            )
        else:
            self.start = CentredConv2d(context_shape[0], num_filters, 3)
        self.middle = CentredConv2d(num_filters, num_filters, 3)
        self.end = CentredConv2d(num_filters, num_filters, 3)
        self.out = CentredConv2d(num_filters, num_outputs, 1, init_scale=0.5)

    def forward(self, context: Tensor) -> Tensor:
        x = F.elu(self.start(context))
        larger = max(x.shape[2], self.half_size[0]), max(x.shape[3], self.half_size[1])
        x = F.elu(self.middle(resized(x, larger)))
        return self.out(F.elu(self.end(resized(x, self.size))))


def resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    """[B, C, h, w] -> [B, C, H, W], bilinearly, where it is not of that size."""
    return x if tuple(x.shape[2:]) == size else F.interpolate(x, size=size, mode="bilinear")
