"""A known world of which no number of h alone says anything: the pixels are parities of hidden bits."""

import math
from typing import Any

import numpy as np
import torch
from scipy.special import entr
from torch import Tensor

from datamodules.channels import ChannelDataModule, Pixels
from datamodules.worlds import Encode, row_numbers

SIDE, NUM_BITS = 28, 16
NUM_WORDS = 2**NUM_BITS
PART = 4096  # words that are encoded at once
# The two bits of each pixel: all pairs in a random order, again and again, and the same ones for every seed.
PAIR_OF_PIXEL = np.resize(
    np.random.default_rng(0).permutation(np.stack(np.triu_indices(NUM_BITS, 1), axis=1)), (SIDE * SIDE, 2)
).reshape(SIDE, SIDE, 2)


class ParityDataModule(ChannelDataModule):
    """Black and white pixels, each the parity of two of 16 random bits, but with probability q the opposite.

    The partner shows the bits: they are the first pixels of its first row, white or black. One bit alone says nothing
    of any pixel, so that h must be computed with: what is linear in it knows nothing of x.

    x tells the bits up to their complement, which has the same parities. Other words of 16 bits differ from one in 90
    pixels or more, and noise hides that from the most likely word with a probability of at most (4 q (1 - q))^45, below
    10^-8. So up to that I(x; bits) = 15 ln 2, and H(x) = 15 ln 2 + D H2(q).

    Args:
        flip: q, in [0, 0.2].
    """

    name = "parity"

    def __init__(self, flip: float = 0.05, **kwargs: Any) -> None:
        super().__init__(copies=1, **kwargs)
        if not 0 <= flip <= 0.2:
            raise ValueError(f"flip {flip} is not between 0 and 0.2; give a probability there, as 0.05")
        self.flip, self.image_shape = flip, (1, SIDE, SIDE)
        self.known_information = (NUM_BITS - 1) * math.log(2)
        self.entropy = self.known_information + SIDE * SIDE * float(entr(flip) + entr(1 - flip))

    @classmethod
    def arguments(cls) -> dict[str, Any]:
        """But for copies, of which it is one."""
        return {name: default for name, default in super().arguments().items() if name != "copies"}

    def pair(self, generator: np.random.Generator, split: str) -> tuple[Pixels, Pixels]:
        bits = generator.integers(2, size=NUM_BITS, dtype=np.uint8)
        flipped = generator.random((SIDE, SIDE)) < self.flip
        image = _parities(torch.from_numpy(bits)).numpy() ^ flipped
        return image.astype(np.uint8) << np.uint8(7), _shown(torch.from_numpy(bits)).numpy()

    def exact_log_prob(self, image: Tensor, encode: Encode, seen: Tensor | None = None) -> Tensor:
        """log of the mean of p(x | word) over the words with the same h, which is known of every representation."""
        seen = self.handed_over(seen)
        group, is_white = _groups(encode, seen.device), image[:, 0].cpu() > 0
        words = ((seen[:, 0, 0, :NUM_BITS].cpu() > 0) << torch.arange(NUM_BITS)).sum(dim=1)
        found = []
        for x, word in zip(is_white, words, strict=True):
            alike = _bits((group == group[word]).nonzero()[:, 0])
            differ = (_parities(alike) ^ x).sum(dim=(1, 2)).double()
            log_prob = torch.xlogy(differ, self.flip) + torch.xlogy(SIDE * SIDE - differ, 1 - self.flip)
            found.append(log_prob.logsumexp(0) - math.log(len(alike)))
        return torch.stack(found)

    def exact_information(self, encode: Encode) -> float:
        """H(bits up to their complement) + H(h) - H(both), of all words, which are equally likely."""
        group, word = _groups(encode, torch.device("cpu")), torch.arange(NUM_WORDS)
        told = torch.minimum(word, NUM_WORDS - 1 - word)
        both = row_numbers(torch.stack((group, told), dim=1))
        of_told, of_h, of_both = (
            entr(number.bincount().double().numpy() / NUM_WORDS).sum() for number in (told, group, both)
        )
        return float(of_told + of_h - of_both)


def _bits(words: Tensor) -> Tensor:
    """Words [N] as bits, the lowest first, uint8 [N, 16]."""
    return (words[:, None] >> torch.arange(NUM_BITS) & 1).byte()


def _parities(bits: Tensor) -> Tensor:
    """The pixels without noise of bits [..., 16]: bool [..., H, W]."""
    first, second = torch.from_numpy(PAIR_OF_PIXEL).unbind(dim=2)
    return (bits[..., first] ^ bits[..., second]).bool()


def _shown(bits: Tensor) -> Tensor:
    """The partner of bits [..., 16]: uint8 [..., H, W]."""
    picture = torch.zeros(*bits.shape[:-1], SIDE, SIDE, dtype=torch.uint8)
    picture[..., 0, :NUM_BITS] = 255 * bits
    return picture


def _groups(encode: Encode, device: torch.device) -> Tensor:
    """A number for each word, which words with the same h share: int64 [2^16]."""
    parts = (_shown(_bits(words))[:, None] for words in torch.arange(NUM_WORDS).split(PART))
    return row_numbers(torch.cat([encode(part.to(device)).flatten(1).cpu() for part in parts]))
