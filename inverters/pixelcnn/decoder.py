"""What h says of each place, worked out before PixelCNN++ sees a pixel."""

import itertools

import torch.nn.functional as F
from torch import Tensor, nn

from inverters.pixelcnn.layers import CentredConv2d

# Of Muon's share, what a matrix takes that vectors go through. B images give it a gradient of rank B at most, so that
# of all its directions, which Muon turns alike, most are noise; a filter sees B images in hundreds of places.
TURN = 0.4


class ContextDecoder(nn.Module):
    """From h to features of places, as a decoder of images begins.

    In the paper h enters every layer of PixelCNN++ by a linear map, and a vector gives one bias for all places: what
    lies where must be deciphered by convolutions that see pixels. Here layers with ELUs between them compute it, and
    the map that they give enters every layer in place of h. A vector becomes features, and those a map at a quarter of
    the image's resolution; a map begins at its own. Resolutions double by sub-pixel convolutions (Shi et al. 2016), as
    what lies in neighbouring pixels may have nothing in common. All are weight-normalised, so that Muon trains them: by
    Adam, most of what h tells is not found.

    Args:
        context_shape: (K,) or (K, H', W').
        size: (H, W).
        num_filters: F, of all layers of maps; a vector's features are 8 F.
        num_outputs: O.
        num_layers: Of a vector's features, one upon the other; a map has none.
        num_guessed: C, of the images that `guess` is asked for; 0 where it never is.
    """

    def __init__(
        self,
        context_shape: tuple[int, ...],
        size: tuple[int, int],
        num_filters: int,
        num_outputs: int,
        num_layers: int = 1,
        num_guessed: int = 0,
    ) -> None:
        super().__init__()
        height, width = size
        half = height // 2, width // 2
        vector = len(context_shape) == 1
        self.factor = 2 if vector or (context_shape[1] <= half[0] and context_shape[2] <= half[1]) else 1
        self.size = half if self.factor == 2 else size
        if vector:
            widths = (context_shape[0], *[8 * num_filters] * num_layers)
            features = ((CentredConv2d(k, f, 1, turn=TURN), nn.ELU()) for k, f in itertools.pairwise(widths))
            self.start: nn.Module = nn.Sequential(
                nn.Unflatten(1, (context_shape[0], 1, 1)),
                *itertools.chain(*features),
                CentredConv2d(8 * num_filters, num_filters * (height // 4) * (width // 4), 1, turn=TURN),
                nn.Flatten(),
                nn.Unflatten(1, (num_filters, height // 4, width // 4)),
                nn.ELU(),
                CentredConv2d(num_filters, 4 * num_filters, 3),
                nn.PixelShuffle(2),
            )
        else:
            self.start = CentredConv2d(context_shape[0], num_filters, 3)
        self.middle = CentredConv2d(num_filters, num_filters, 3)
        self.end = CentredConv2d(num_filters, self.factor**2 * num_outputs, 3, init_scale=0.5)
        self.for_guess = CentredConv2d(num_filters, self.factor**2 * num_guessed, 3) if num_guessed else None

    def forward(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Features for every layer, [B, F, H / 2, W / 2], of a larger map [B, F, H, W]; for the first, [B, O, H, W]."""
        x = self._features(context)
        return x, F.pixel_shuffle(self.end(x), self.factor)

    def guess(self, context: Tensor) -> Tensor:
        """The logit of each value's mean, as a share of 255: [B, C, H, W]."""
        assert self.for_guess is not None
        return F.pixel_shuffle(self.for_guess(self._features(context)), self.factor)

    def _features(self, context: Tensor) -> Tensor:
        x = F.elu(self.start(context))
        if tuple(x.shape[2:]) != self.size:
            x = F.interpolate(x, size=self.size, mode="bilinear")
        return F.elu(self.middle(x))
