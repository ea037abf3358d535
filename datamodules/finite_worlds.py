"""Exactly known worlds of finitely many images, all equally likely."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from datamodules.worlds import WorldDataModule

# The exact networks know the same ones; they share no code with the data.
GLYPHS = ("1111100110011111", "1000100010001111", "1111010001000100", "1001011001101001")  # a box, an L, a T, an X


class FiniteWorldDataModule(WorldDataModule):
    """A list of different images, from which one is drawn with replacement.

    Args:
        images: uint8 [N, C, H, W].
        kwargs: As for WorldDataModule.
    """

    def __init__(self, images: Tensor, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.images = images
        channels, height, width = images.shape[1:]
        self.image_shape = (channels, height, width)

    @property
    def entropy(self) -> float:
        return math.log(len(self.images))

    def draw(self, generator: np.random.Generator) -> NDArray[np.uint8]:
        image: NDArray[np.uint8] = self.images[generator.integers(len(self.images))].numpy()
        return image


class GlyphPositionDataModule(FiniteWorldDataModule):
    """One of K glyphs in one of P positions of an empty canvas; the representation keeps glyph, position or both.

    H(x) = ln K + ln P; H(x | h) is ln P where h is the glyph, ln K where it is the position, 0 where it is both.

    Args:
        kept: By the representation; it decides the exact log p(x | h) and nothing else.
        side: Of the canvas, height and width.
        glyphs: K square pictures, each its rows one after the other, of 0 and 1 (ink, value 128).
        kwargs: As for WorldDataModule.

    Raises:
        ValueError: Two glyphs in two positions are the same image.
    """

    name = "glyph_position"

    def __init__(
        self,
        kept: Literal["glyph", "position", "both"],
        side: int = 12,
        glyphs: Sequence[str] = GLYPHS,
        **kwargs: Any,
    ) -> None:
        self.num_glyphs, glyph_side = len(glyphs), math.isqrt(len(glyphs[0]))
        num_places = side - glyph_side + 1
        self.num_positions = num_places**2
        images = torch.zeros(self.num_glyphs, num_places, num_places, 1, side, side, dtype=torch.uint8)
        for k, glyph in enumerate(glyphs):
            ink = torch.tensor([128 * int(pixel) for pixel in glyph]).view(glyph_side, glyph_side)
            for row in range(num_places):
                for column in range(num_places):
                    images[k, row, column, 0, row : row + glyph_side, column : column + glyph_side] = ink
        images = images.flatten(0, 2)
        if len(images.unique(dim=0)) < len(images):
            raise ValueError(
                f"of glyphs {glyphs} two are the same image in some positions; give each ink on every edge"
            )
        super().__init__(images, **kwargs)
        self.kept = kept

    @property
    def conditional_entropy(self) -> float:
        return {"glyph": math.log(self.num_positions), "position": math.log(self.num_glyphs), "both": 0.0}[self.kept]

    def exact_log_prob(self, image: Tensor) -> Tensor:
        return torch.full((len(image),), -self.conditional_entropy, dtype=torch.float64)


class EnumerableDataModule(FiniteWorldDataModule):
    """All 2^(rows x columns) binary images, zeros below to make them square; h is a layer of any network.

    p(x | h) is 1 / the number of images that have the same h, bit by bit: images collide where units are dead, or
    where h is rounded. H(x) = rows x columns x ln 2. Collisions are counted on the CPU in one batch; a network whose
    sums are exact in float32 has the same h in every batch.

    Args:
        network: Makes the network, from (C, H, W) and the number of classes.
        layer: The stage of which h is the output.
        rows: Of an image.
        columns: Of an image.
        kwargs: As for WorldDataModule.

    Raises:
        ValueError: The network has no such layer.
    """

    name = "enumerable"

    def __init__(
        self,
        network: Callable[[tuple[int, int, int], int], nn.Sequential],
        layer: str,
        rows: int = 3,
        columns: int = 4,
        **kwargs: Any,
    ) -> None:
        number = torch.arange(2 ** (rows * columns))
        bits = number[:, None] >> torch.arange(rows * columns) & 1  # [N, D]
        images = torch.zeros(len(number), 1, columns, columns, dtype=torch.uint8)
        images[:, 0, :rows] = 128 * bits.view(-1, rows, columns)
        super().__init__(images, **kwargs)
        self.num_bits = rows * columns
        stages = network(self.image_shape, self.num_classes)
        names = [name for name, _ in stages.named_children()]
        if layer not in names:
            raise ValueError(f"no layer {layer!r}; this network has {', '.join(names)}")
        h = images.float() / 255
        with torch.no_grad():
            for _, stage in list(stages.eval().named_children())[: names.index(layer) + 1]:
                h = stage(h)
        _, code, counts = h.flatten(1).unique(dim=0, return_inverse=True, return_counts=True)
        self.log_count = counts[code].double().log()  # of the images with the same h, for every image by its number

    @property
    def conditional_entropy(self) -> float:
        return self.log_count.mean().item()

    def exact_log_prob(self, image: Tensor) -> Tensor:
        bits = image.flatten(1)[:, : self.num_bits] // 128  # the zeros below come last
        number = (bits.cpu().long() << torch.arange(self.num_bits)).sum(dim=1)
        return -self.log_count[number]
