"""Random affine transformations of digits, as affNIST's."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

SIDE = 40
RECIPE = 1  # counts up when `transformed` changes what it gives, so that older files are not taken for its
CHUNK = 500  # images transformed at a time: what the processor's cache holds


def transformed(digits: Tensor, originals: Tensor, k: int, seed: int, is_test: bool = False) -> Tensor:
    """Transformation k of some digits, each a function of (seed, is_test, original, k).

    Rotation in ±20°, shear in ±0.2, horizontal and vertical scale in 0.8 to 1.2, all uniform and independent, and
    every translation for which the ink, that is pixels above 0, stays on the canvas, equally likely.

    Args:
        digits: All of a file: uint8 [N, 1, 28, 28].
        originals: Which of them: [n]; they become uint8 [n, 1, 40, 40].
        is_test: For the digits of the other file, which are numbered alike.
    """
    chunks = zip(*(x.split(CHUNK) for x in (originals, *drawn(len(digits), originals, k, seed, is_test))), strict=True)
    return torch.cat([shifted(warped(digits[i], *parameters), place) for i, *parameters, place in chunks])


def drawn(num_digits: int, originals: Tensor, k: int, seed: int, is_test: bool = False) -> tuple[Tensor, ...]:
    """Angle [n] in radians, shear [n], scale [n, 2] and where in [0, 1) to put the ink, [n, 2], of `transformed`."""
    random = np.random.Generator(np.random.Philox(key=[seed, 2 * k + is_test]))
    u = torch.from_numpy(random.random((num_digits, 6)))[originals]  # row i is the same for any N > i
    return torch.deg2rad(40 * u[:, 0] - 20), 0.4 * u[:, 1] - 0.2, 0.8 + 0.4 * u[:, 2:4], u[:, 4:]


def ink_box(images: Tensor) -> Tensor:
    """The first and last row and the first and last column with ink, of images [n, 1, H, W]: [n, 4]."""
    ends = []
    for axis in (2, 1):
        ink = (images[:, 0].amax(axis) > 0).byte()  # [n, H], [n, W]
        ends += [ink.argmax(1), ink.shape[1] - 1 - ink.flip(1).argmax(1)]
    return torch.stack(ends, dim=1)


def warped(digits: Tensor, angle: Tensor, shear: Tensor, scale: Tensor) -> Tensor:
    """Digits scaled, then sheared, then rotated, about the middle of their ink, which goes to the canvas's middle.

    An original's ink is at most 20x20, so it never reaches beyond the canvas.

    Takes digits uint8 [n, 1, 28, 28], angle [n] in radians, shear [n], horizontal, per unit of height, and scale
    [n, 2], horizontal and vertical. Returns uint8 [n, 1, 40, 40], bilinear.
    """
    top, bottom, left, right = (end[:, None, None] for end in ink_box(digits).float().unbind(1))
    middle_y, middle_x = (top + bottom) / 2, (left + right) / 2  # whole or half pixels
    pixel = torch.arange(SIDE, dtype=torch.float32)
    # With whole pixels between the two middles, the identity interpolates nothing.
    y = pixel[:, None] - (SIDE // 2 - 1 + middle_y % 1)  # [n, 40, 1]
    x = pixel - (SIDE // 2 - 1 + middle_x % 1)  # [n, 1, 40]
    angle, shear, scale = angle.float(), shear.float(), scale.float()
    cos, sin, shear = (value[:, None, None] for value in (angle.cos(), angle.sin(), shear))
    rotated_x, rotated_y = cos * x + sin * y, cos * y - sin * x  # backwards: from the canvas to the original
    source_y = rotated_y / scale[:, 1, None, None] + middle_y
    source_x = (rotated_x - shear * rotated_y) / scale[:, 0, None, None] + middle_x
    last = digits.shape[-1] - 1
    grid = torch.stack((source_x, source_y), dim=-1) * (2 / last) - 1  # [n, 40, 40, 2]
    values = F.grid_sample(digits.float(), grid, mode="bilinear", align_corners=True)
    return values.round().byte()


def shifted(images: Tensor, u: Tensor) -> Tensor:
    """Images moved by whole pixels to where u [n, 2] in [0, 1), vertical and horizontal, sends their ink on the canvas.

    All positions on the canvas are equally likely for uniform u. Takes and returns [n, 1, 40, 40].
    """
    top, bottom, left, right = ink_box(images).unbind(1)
    to_top = (u[:, 0] * (SIDE - (bottom - top))).long()
    to_left = (u[:, 1] * (SIDE - (right - left))).long()
    pixel = torch.arange(SIDE)
    # What wraps around has no ink.
    rows = (pixel - (to_top - top)[:, None]) % SIDE  # [n, 40]
    columns = (pixel - (to_left - left)[:, None]) % SIDE
    n = torch.arange(len(images))[:, None, None]
    return images[n, 0, rows[:, :, None], columns[:, None, :]][:, None]
