"""Exactly known worlds of finitely many images, all equally likely."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jsonargparse.typing import PositiveInt
from numpy.typing import NDArray
from torch import Tensor

from datamodules.attributes import Attribute
from datamodules.split import Batch
from datamodules.worlds import Encode, WorldDataModule, row_numbers

# The exact networks know the same ones; they share no code with the data.
GLYPHS = ("1111100110011111", "1000100010001111", "1111010001000100", "1001011001101001")  # a box, an L, a T, an X


class FiniteWorldDataModule(WorldDataModule):
    """A list of different images, from which one is drawn with replacement.

    p(x | h) is 1 / the number of images that have the same h, bit by bit, whatever representation it is. All are
    encoded in one batch; a network whose sums are exact in float32 has the same h in every batch.
    """

    images: Tensor  # all of them, uint8 [N, C, H, W]
    entropy: float

    def exact_log_prob(self, image: Tensor, encode: Encode, seen: Tensor | None = None) -> Tensor:
        number = row_numbers(encode(torch.cat((self.images.to(image.device), image))).flatten(1)).cpu()
        world, asked = number.split((len(self.images), len(image)))
        return -world.bincount(minlength=len(number))[asked].double().log()

    def exact_information(self, encode: Encode) -> float:
        return self.entropy + self.exact_log_prob(self.images, encode).mean().item()

    def draw(self, generator: np.random.Generator) -> NDArray[np.uint8]:
        return self.images[generator.integers(len(self.images))].numpy()


class GlyphPositionDataModule(FiniteWorldDataModule):
    """One of K glyphs in one of P positions of an empty canvas: H(x) = ln K + ln P.

    Args:
        side: Of the canvas, height and width.
        glyphs: K square pictures, each its rows one after the other, of 0 and 1 (ink, value 128).

    Raises:
        ValueError: Two glyphs in two positions are the same image.
    """

    name = "glyph_position"

    def __init__(self, side: PositiveInt = 12, glyphs: Sequence[str] = GLYPHS, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.side, self.glyphs = side, glyphs
        self.image_shape = (1, side, side)
        pixels = torch.tensor([[128 * int(pixel) for pixel in glyph] for glyph in glyphs], dtype=torch.uint8)
        glyph_side = math.isqrt(len(glyphs[0]))
        ink = pixels.unflatten(1, (1, glyph_side, glyph_side))
        rest = side - glyph_side
        corners = itertools.product(range(rest + 1), repeat=2)
        placed = [F.pad(ink, (left, rest - left, top, rest - top)) for top, left in corners]
        self.images = torch.stack(placed, dim=1).flatten(0, 1)  # sorted by glyph
        self.entropy = math.log(len(self.images))
        if len(self.images.unique(dim=0)) < len(self.images):
            raise ValueError(
                f"of glyphs {glyphs} two are the same image in some positions; give each ink on every edge"
            )

    def attributes(self, split: str, batch: Batch) -> dict[str, Attribute]:
        """Which glyph, and where: independent, and all equally likely."""
        image = batch["image"].flatten(1).cpu()
        number = row_numbers(torch.cat((self.images.flatten(1), image)))
        world, asked = number.split((len(self.images), len(image)))
        row = world.argsort()[asked]  # in `images`, which are sorted by glyph, and all different
        K, P = len(self.glyphs), len(self.images) // len(self.glyphs)
        return {
            "glyph": Attribute("discrete", row // P, K, uniform=True),
            "position": Attribute("discrete", row % P, P, uniform=True),
        }


class EnumerableDataModule(FiniteWorldDataModule):
    """All 2^(rows x columns) binary images, zeros below to make them square: H(x) = rows x columns x ln 2.

    A representation loses what images that collide differ in, where units are dead or h is rounded.
    """

    name = "enumerable"

    def __init__(self, rows: PositiveInt = 3, columns: PositiveInt = 4, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rows, self.columns = rows, columns
        self.image_shape = (1, columns, columns)
        bits = torch.arange(2 ** (rows * columns))[:, None] >> torch.arange(rows * columns) & 1  # [N, D]
        self.images = torch.zeros(len(bits), *self.image_shape, dtype=torch.uint8)
        self.images[:, 0, :rows] = 128 * bits.view(-1, rows, columns)
        self.entropy = math.log(len(bits))
