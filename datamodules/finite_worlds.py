"""Exactly known worlds of finitely many images, all equally likely."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jsonargparse.typing import PositiveInt
from numpy.typing import NDArray
from torch import Tensor

from datamodules.worlds import Encode, WorldDataModule, row_numbers

# The exact networks know the same ones; they share no code with the data.
GLYPHS = ("1111100110011111", "1000100010001111", "1111010001000100", "1001011001101001")  # a box, an L, a T, an X


class FiniteWorldDataModule(WorldDataModule):
    """A list of different images, from which one is drawn with replacement.

    p(x | h) is 1 / the number of images that have the same h, bit by bit, whatever representation it is. All are
    encoded in one batch; a network whose sums are exact in float32 has the same h in every batch.
    """

    @cached_property
    @abstractmethod
    def images(self) -> Tensor:
        """All of them, uint8 [N, C, H, W]."""

    @property
    def entropy(self) -> float:
        return math.log(len(self.images))

    def exact_log_prob(self, image: Tensor, encode: Encode) -> Tensor:
        number = row_numbers(encode(torch.cat((self.images.to(image.device), image))).flatten(1)).cpu()
        world, asked = number.split((len(self.images), len(image)))
        return -world.bincount(minlength=len(number))[asked].double().log()

    def draw(self, generator: np.random.Generator) -> NDArray[np.uint8]:
        image: NDArray[np.uint8] = self.images[generator.integers(len(self.images))].numpy()
        return image


class GlyphPositionDataModule(FiniteWorldDataModule):
    """One of K glyphs in one of P positions of an empty canvas: H(x) = ln K + ln P.

    Args:
        side: Of the canvas, height and width.
        glyphs: K square pictures, each its rows one after the other, of 0 and 1 (ink, value 128).
        kwargs: As for WorldDataModule.

    Raises:
        ValueError: Two glyphs in two positions are the same image.
    """

    name = "glyph_position"

    def __init__(self, side: PositiveInt = 12, glyphs: Sequence[str] = GLYPHS, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.side, self.glyphs = side, glyphs
        self.image_shape = (1, side, side)
        if len(self.images.unique(dim=0)) < len(self.images):
            raise ValueError(
                f"of glyphs {glyphs} two are the same image in some positions; give each ink on every edge"
            )

    @cached_property
    def images(self) -> Tensor:
        glyph_side = math.isqrt(len(self.glyphs[0]))
        num_places = self.side - glyph_side + 1
        images = torch.zeros(len(self.glyphs), num_places, num_places, *self.image_shape, dtype=torch.uint8)
        for k, glyph in enumerate(self.glyphs):
            ink = torch.tensor([128 * int(pixel) for pixel in glyph]).view(glyph_side, glyph_side)
            for row in range(num_places):
                for column in range(num_places):
                    images[k, row, column, 0, row : row + glyph_side, column : column + glyph_side] = ink
        return images.flatten(0, 2)


class EnumerableDataModule(FiniteWorldDataModule):
    """All 2^(rows x columns) binary images, zeros below to make them square: H(x) = rows x columns x ln 2.

    A representation loses what images that collide differ in, where units are dead or h is rounded.

    Args:
        rows: Of an image.
        columns: Of an image.
        kwargs: As for WorldDataModule.
    """

    name = "enumerable"

    def __init__(self, rows: PositiveInt = 3, columns: PositiveInt = 4, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rows, self.columns = rows, columns
        self.image_shape = (1, columns, columns)

    @cached_property
    def images(self) -> Tensor:
        number = torch.arange(2 ** (self.rows * self.columns))
        bits = number[:, None] >> torch.arange(self.rows * self.columns) & 1  # [N, D]
        images = torch.zeros(len(number), *self.image_shape, dtype=torch.uint8)
        images[:, 0, : self.rows] = 128 * bits.view(-1, self.rows, self.columns)
        return images
