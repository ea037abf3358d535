"""Boxes of an image by name, such as a face: how many nats h adds inside of each and outside."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from evaluations.information import Estimate, paired_difference


class Region(NamedTuple):
    """Rows from top to bottom and columns from left to right, from 0, without the last ones."""

    name: str
    top: int
    bottom: int
    left: int
    right: int

    @property
    def num_pixels(self) -> int:
        return (self.bottom - self.top) * (self.right - self.left)

    def __str__(self) -> str:
        return f"{self.name}={self.top}:{self.bottom},{self.left}:{self.right}"


def region(text: str) -> Region:
    """As NAME=TOP:BOTTOM,LEFT:RIGHT says it. Raises ValueError where it says none."""
    found = re.fullmatch(r"\s*(.*\S)\s*=\s*(\d+):(\d+)\s*,\s*(\d+):(\d+)\s*", text, re.DOTALL | re.ASCII)
    if not found:
        raise ValueError(
            f"--regions {text!r} is no box; give NAME=TOP:BOTTOM,LEFT:RIGHT in pixels from 0, as face=8:24,4:20"
        )
    one = Region(found[1], *(int(number[:9]) for number in found.groups()[1:]))
    if one.num_pixels <= 0 or one.bottom <= one.top:
        raise ValueError(f"--regions {text!r} holds no pixel; give a TOP below BOTTOM, and a LEFT below RIGHT")
    return one


def quarters(height: int, width: int) -> list[Region]:
    """The middle, half as high and wide as the image, and the four quarters, which are all of the image."""
    y, x = height // 2, width // 2
    middle = Region("middle", height // 4, height - height // 4, width // 4, width - width // 4)
    return [
        middle, Region("top left", 0, y, 0, x), Region("top right", 0, y, x, width),
        Region("bottom left", y, height, 0, x), Region("bottom right", y, height, x, width),
    ]  # fmt: skip


def check_inside(regions: Sequence[Region], height: int, width: int) -> None:
    """Raises ValueError where a box reaches beyond the image, or two have one name."""
    for one in regions:
        if one.bottom > height or one.right > width:
            raise ValueError(f"--regions {one} reaches beyond the {height} x {width} pixels of the images")
    names = [one.name for one in regions]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"--regions has two boxes called {twice[0]!r}; give each a name of its own")


def inside_and_outside(given_h: Tensor, without: Tensor, box: Region) -> tuple[Estimate, Estimate]:
    """What h adds inside of a box and outside, nats an image; the two sum to what it adds to the whole image.

    A pixel's share is what h adds to the pixels before it in raster order (`information_map`), so that a box is not
    given what its pixels share with those before it.

    Args:
        given_h: log p(x_i | x_<i, h) of every pixel, [N, H, W] nats.
        without: log p(x_i | x_<i), likewise.
        box: Within the image.
    """

    def parts(values: Tensor) -> tuple[Tensor, Tensor]:
        inside = values.double()[:, box.top : box.bottom, box.left : box.right].sum((1, 2))
        return inside, values.double().sum((1, 2)) - inside

    (within, beyond), (prior_within, prior_beyond) = parts(given_h), parts(without)
    return paired_difference(within, prior_within), paired_difference(beyond, prior_beyond)
