"""Pictures slightly turned, sheared, stretched and moved, each in a way of its own."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

# The most of each: of the angle in radians, the shear, the logarithm of each side's factor, and the shift as a share of
# half a side.
TURN, SHEAR, STRETCH, SHIFT = math.radians(15), 0.2, 0.1, 1 / 7
NUM_NUMBERS = 6


def warped(pictures: Sequence[Tensor], numbers: Tensor) -> list[Tensor]:
    """Affine maps of the same images at one or more resolutions, uint8 [B, C, H, W] each; one map an image.

    What comes in from beyond a border is mirrored at it.

    Args:
        pictures: One of each resolution.
        numbers: Of each image's map, [B, 6] in [-1, 1]: the share of the most of the angle, the shear, both factors and
            both shifts. Zeros change nothing.
    """
    turn, shear, *rest = numbers.unbind(1)
    cos, sin, shear = torch.cos(TURN * turn), torch.sin(TURN * turn), SHEAR * shear
    turned = torch.stack((cos, shear * cos - sin, sin, shear * sin + cos), dim=1).unflatten(1, (2, 2))
    stretch, shift = torch.exp(STRETCH * torch.stack(rest[:2], dim=1)), SHIFT * torch.stack(rest[2:], dim=1)
    maps = torch.cat((turned * stretch[:, None], shift[:, :, None]), dim=2)  # [B, 2, 3]
    with torch.autocast(numbers.device.type, enabled=False):
        return [_moved(picture, maps) for picture in pictures]


def _moved(picture: Tensor, maps: Tensor) -> Tensor:
    grid = F.affine_grid(maps, list(picture.shape), align_corners=False)
    found = F.grid_sample(picture.to(maps.dtype), grid, padding_mode="reflection", align_corners=False)
    return found.round().clamp(0, 255).to(torch.uint8)
