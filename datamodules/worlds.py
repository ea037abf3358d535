"""Worlds where the information is known exactly: an estimator is tried where the truth is known."""

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import entr
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.images import Batch, ImageDataModule, ImageDataset


class FreshImages(Dataset[Batch]):
    """Images that are drawn when asked for, each a function of (seed, position).

    Args:
        num_images: So many before the first one comes again.
        draw: One image from a random generator, uint8 [C, H, W].
        seed: Of all of them.
    """

    def __init__(self, num_images: int, draw: Callable[[np.random.Generator], NDArray[np.uint8]], seed: int) -> None:
        self.num_images, self.draw, self.seed = num_images, draw, seed

    def __len__(self) -> int:
        return self.num_images

    def __getitems__(self, positions: Sequence[int]) -> Batch:
        drawn = [
            self.draw(np.random.Generator(np.random.Philox(key=self.seed, counter=[0, 0, 0, p]))) for p in positions
        ]
        index = torch.as_tensor(positions)
        return {"image": torch.from_numpy(np.stack(drawn)), "label": torch.zeros_like(index), "index": index}


class WorldDataModule(ImageDataModule):
    """Images from a known distribution, with a representation h of which log p(x | h) is known exactly.

    Training images are drawn anew each time, never a finite set.

    Args:
        num_test: Images for validation, and as many for the test.
        kwargs: As for ImageDataModule.
    """

    num_classes = 1

    def __init__(self, num_test: int = 1000, batch_size: int = 64, **kwargs: Any) -> None:
        super().__init__(batch_size, **kwargs)
        self.num_test = num_test

    @property
    @abstractmethod
    def entropy(self) -> float:
        """H(x), nats."""

    @property
    @abstractmethod
    def conditional_entropy(self) -> float:
        """H(x | h), nats."""

    @abstractmethod
    def exact_log_prob(self, image: Tensor) -> Tensor:
        """log p(x | h) of each of this world's images, uint8 [N, C, H, W], under its own h: float64 [N] nats."""

    @abstractmethod
    def draw(self, generator: np.random.Generator) -> NDArray[np.uint8]:
        """One image, uint8 [C, H, W]."""

    def load(self) -> dict[str, Dataset[Batch]]:
        datasets: dict[str, Dataset[Batch]] = {"train": FreshImages(2**20, self.draw, 3 * self.seed)}
        for k, split in enumerate(("val", "test"), start=1):
            held_out = FreshImages(self.num_test, self.draw, 3 * self.seed + k)
            batch = held_out.__getitems__(range(self.num_test))
            datasets[split] = ImageDataset(batch["image"], batch["label"], batch["index"], with_other=split == "test")
        return datasets


class BitDropDataModule(WorldDataModule):
    """Independent uniform B-bit pixels, of which a representation keeps the top b bits.

    H(x) = B D ln 2 and H(x | h) = (B - b) D ln 2 nats. b = B is the identity, b = 0 a constant. The values are spread
    over 0..255 in steps of 2^(8 - B).

    Args:
        side: Height and width.
        num_bits: B, 1 to 8.
        kept_bits: b, of the representation; it decides the exact log p(x | h) and nothing else.
        kwargs: As for WorldDataModule.
    """

    name = "bit_drop"

    def __init__(self, side: int = 8, num_bits: int = 3, kept_bits: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 1 <= num_bits <= 8 or not 0 <= kept_bits <= num_bits:
            raise ValueError(
                f"num_bits {num_bits} must be 1 to 8, and kept_bits {kept_bits} must be 0 to num_bits; change either"
            )
        self.image_shape = (1, side, side)
        self.num_bits, self.kept_bits = num_bits, kept_bits

    @property
    def entropy(self) -> float:
        return self.num_bits * math.prod(self.image_shape) * math.log(2)

    @property
    def conditional_entropy(self) -> float:
        return (self.num_bits - self.kept_bits) * math.prod(self.image_shape) * math.log(2)

    def exact_log_prob(self, image: Tensor) -> Tensor:
        return torch.full((len(image),), -self.conditional_entropy, dtype=torch.float64)

    def draw(self, generator: np.random.Generator) -> NDArray[np.uint8]:
        level = generator.integers(2**self.num_bits, size=self.image_shape, dtype=np.uint8)
        return level << np.uint8(8 - self.num_bits)


class _WithOthersContext(ImageDataset):
    """Has h computed from the next image, cyclically."""

    def __getitems__(self, positions: Sequence[int]) -> Batch:
        batch = super().__getitems__(positions)
        return {**batch, "context_image": batch["other_image"]}


class ShuffledDataModule(BitDropDataModule):
    """The negative control: bit drop, but in the test, and only there, h is that of another image.

    It is scored against bit drop's own log p(x | h) and must fail: as h says nothing of x, the cross-entropy of any
    model is at least H(x), b D ln 2 nats above bit drop's H(x | h), with no upper limit.

    Args:
        kwargs: As for BitDropDataModule.
    """

    name = "shuffled"

    def load(self) -> dict[str, Dataset[Batch]]:
        datasets = super().load()
        test = datasets["test"]
        assert isinstance(test, ImageDataset)
        datasets["test"] = _WithOthersContext(test.images, test.labels, test.index, with_other=True)
        return datasets


class MarkovDataModule(WorldDataModule):
    """A binary Markov chain in raster order, of which a representation keeps every second pixel, the first included.

    The first pixel is 0 or 128 equally, every other one differs from the one before it with probability q. What is
    kept is a chain too, with flip probability 2q(1 - q). With H2 the entropy of a coin in nats,
    H(x) = ln 2 + (D - 1) H2(q) and H(x | h) = H(x) - [ln 2 + (D/2 - 1) H2(2q(1 - q))].

    Args:
        side: Height and width, even.
        flip: q, in (0, 1).
        kwargs: As for WorldDataModule.
    """

    name = "markov"

    def __init__(self, side: int = 8, flip: float = 0.15, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if side % 2:
            raise ValueError(f"side {side} is odd, and every second pixel is kept; give an even one")
        if not 0 < flip < 1:
            raise ValueError(f"flip {flip} is not a probability between 0 and 1; give one, as 0.15")
        self.image_shape = (1, side, side)
        self.flip = flip

    @property
    def entropy(self) -> float:
        return _chain_entropy(self.flip, math.prod(self.image_shape))

    @property
    def conditional_entropy(self) -> float:
        return self.entropy - _chain_entropy(2 * self.flip * (1 - self.flip), math.prod(self.image_shape) // 2)

    def exact_log_prob(self, image: Tensor) -> Tensor:
        """log p(x) - log p(h), as h is a function of x."""
        chain = image.flatten(1)  # [N, D]
        return _chain_log_prob(chain, self.flip) - _chain_log_prob(chain[:, ::2], 2 * self.flip * (1 - self.flip))

    def draw(self, generator: np.random.Generator) -> NDArray[np.uint8]:
        flips = generator.random(math.prod(self.image_shape)) < self.flip
        flips[0] = generator.random() < 0.5
        level = np.logical_xor.accumulate(flips).astype(np.uint8) << np.uint8(7)
        return level.reshape(self.image_shape)


def _chain_entropy(flip: float, length: int) -> float:
    return math.log(2) + (length - 1) * float(entr(flip) + entr(1 - flip))


def _chain_log_prob(chain: Tensor, flip: float) -> Tensor:
    """Of binary chains [N, D] that start with either value equally: float64 [N] nats."""
    num_flips = (chain[:, 1:] != chain[:, :-1]).sum(dim=1).double()
    num_stays = chain.shape[1] - 1 - num_flips
    return -math.log(2) + num_flips * math.log(flip) + num_stays * math.log1p(-flip)
