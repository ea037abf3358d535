"""Worlds where the information is known exactly: an estimator is tried where the truth is known."""

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jsonargparse.typing import PositiveInt
from numpy.typing import NDArray
from scipy.special import entr
from torch import Tensor

from datamodules.images import ImageDataModule
from datamodules.split import Batch, ImageDataset, Split

Encode = Callable[[Tensor], Tensor]  # h, [N, ...], of uint8 [N, C, H, W]


@dataclass(eq=False)
class FreshImages(Split):
    """Images that are drawn when asked for, each a function of (seed, position)."""

    num_images: int  # before the first one comes again
    draw: Callable[[np.random.Generator], NDArray[np.uint8]]  # one image, uint8 [C, H, W]
    seed: int
    images = None

    def __len__(self) -> int:
        return self.num_images

    def __getitems__(self, positions: Sequence[int]) -> Batch:
        streams = (np.random.Philox(key=self.seed, counter=[0, 0, 0, position]) for position in positions)
        drawn = np.stack([self.draw(np.random.Generator(stream)) for stream in streams])
        index = torch.as_tensor(positions)
        return {"image": torch.from_numpy(drawn), "label": torch.zeros_like(index), "index": index}


class WorldDataModule(ImageDataModule):
    """Images from a known distribution, which knows log p(x | h) exactly for representations that it understands.

    Training images are drawn anew each time, never a finite set.

    Args:
        num_test: Images for validation, and as many for the test.
    """

    num_classes = 1
    entropy: float  # H(x), nats
    must_fail = False  # whether a model that passes here is wrong
    held_out: type[ImageDataset] = ImageDataset  # what the test is made of
    NOT_IDENTIFYING = (*ImageDataModule.NOT_IDENTIFYING, "num_test")

    def __init__(self, num_test: PositiveInt = 1000, batch_size: PositiveInt = 64, **kwargs: Any) -> None:
        super().__init__(batch_size, **kwargs)
        self.num_test = num_test

    @abstractmethod
    def exact_log_prob(self, image: Tensor, encode: Encode) -> Tensor:
        """log p(x | h) of some of this world's images, h = encode(x) being the representation that is inverted.

        Takes uint8 [N, C, H, W], where `encode` takes its images; returns float64 [N] nats, on the CPU.

        Raises:
            ValueError: The truth is not known for such a representation.
        """

    @abstractmethod
    def draw(self, generator: np.random.Generator) -> NDArray[np.uint8]:
        """One image, uint8 [C, H, W]."""

    def with_more(self, image: Tensor) -> Tensor:
        """Some images, uint8 [N, C, H, W], and 100 more of this world, to learn about a representation from them."""
        return torch.cat((image, FreshImages(100, self.draw, 3 * self.seed).first(100)["image"].to(image.device)))

    def load(self) -> dict[str, Split]:
        val, test = (FreshImages(self.num_test, self.draw, 3 * self.seed + k).first(self.num_test) for k in (1, 2))
        return {
            "train": FreshImages(2**20, self.draw, 3 * self.seed),
            "val": ImageDataset(val["image"], val["label"], val["index"]),
            "test": self.held_out(test["image"], test["label"], test["index"], with_other=True),
        }


class BitDropDataModule(WorldDataModule):
    """Independent uniform B-bit pixels, of which a representation may drop bits.

    H(x) = B D ln 2 nats. The values are spread over 0..255 in steps of 2^(8 - B).

    Args:
        side: Height and width.
        num_bits: B, 1 to 8.
    """

    name = "bit_drop"

    def __init__(self, side: PositiveInt = 8, num_bits: int = 3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 1 <= num_bits <= 8:
            raise ValueError(f"num_bits {num_bits} must be 1 to 8")
        self.side, self.num_bits = side, num_bits
        self.image_shape = (1, side, side)
        self.entropy = num_bits * side**2 * math.log(2)

    def exact_log_prob(self, image: Tensor, encode: Encode) -> Tensor:
        """Minus the sum over pixels of ln(how many levels give h there what this one gives it).

        Known where h is a map, of which a pixel is a function of the same pixel of x alone, and where it is empty.
        """
        step = 2 ** (8 - self.num_bits)
        level = torch.arange(0, 256, step, dtype=torch.uint8, device=image.device)  # [L]
        constant = encode(level.view(-1, 1, 1, 1).expand(-1, *self.image_shape)).movedim(1, -1)  # [L, S, S, K]
        images = self.with_more(image)  # [M, 1, S, S], M > N
        h = encode(images).movedim(1, -1)  # [M, S, S, K]
        if not h[0].numel():
            return torch.full((len(image),), -self.entropy, dtype=torch.float64)
        pixel = torch.arange(self.side, device=image.device)
        place = (images[:, 0].long() // step, pixel[:, None], pixel)  # [M, S, S]
        if h.shape[1:-1] != self.image_shape[1:] or not torch.equal(h, constant[place]):
            raise ValueError(
                f"log p(x | h) of {self.name} is known only where each pixel of h is a function of the same pixel of x "
                "alone; give a layer that is"
            )
        num_alike = (constant[:, None] == constant).all(dim=-1).sum(dim=1)  # [L, S, S]
        # log2 of a power of two is exact, and so is a sum of them.
        return -num_alike[place][: len(image)].cpu().double().log2().sum(dim=(1, 2)) * math.log(2)

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
    model is at least H(x), with no upper limit.
    """

    name = "shuffled"
    must_fail = True
    held_out = _WithOthersContext


class MarkovDataModule(WorldDataModule):
    """A binary Markov chain in raster order, of which a representation may keep some of the pixels.

    The first pixel is 0 or 128 equally, every other one differs from the one before it with probability q. With H2 the
    entropy of a coin in nats, H(x) = ln 2 + (D - 1) H2(q).

    Args:
        side: Height and width.
        flip: q, in (0, 1).
    """

    name = "markov"

    def __init__(self, side: PositiveInt = 8, flip: float = 0.15, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 < flip < 1:
            raise ValueError(f"flip {flip} is not a probability between 0 and 1; give one, as 0.15")
        self.side, self.flip = side, flip
        self.image_shape = (1, side, side)
        self.entropy = math.log(2) + (side**2 - 1) * float(entr(flip) + entr(1 - flip))

    def exact_log_prob(self, image: Tensor, encode: Encode) -> Tensor:
        """log p(x) - log p(x_S), where h tells as much as the pixels S.

        S are the pixels that change h of the first image. That h is a function of them, and they of h, is checked with
        these and other images.
        """
        every = torch.arange(self.side**2)
        one_pixel = torch.eye(len(every), dtype=torch.uint8, device=image.device).view(-1, *self.image_shape) * 128
        images = torch.cat((self.with_more(image), image[:1] ^ one_pixel))
        h = encode(images).flatten(1)
        kept = (h[-len(every) :] != h[0]).any(dim=1)  # [D]
        chain = images.flatten(1)
        same = torch.equal(h, encode((chain * kept).view_as(images)).flatten(1))
        if not same or row_numbers(h).max() != row_numbers(chain[:, kept]).max():
            raise ValueError(
                f"log p(x | h) of {self.name} is known only where h tells some of the pixels and nothing of the "
                "others; give a layer that does"
            )
        chain = chain[: len(image)].cpu()
        return self._log_prob(chain, every) - self._log_prob(chain, every[kept.cpu()])

    def _log_prob(self, chain: Tensor, position: Tensor) -> Tensor:
        """log p of the pixels in some positions, ascending, of binary chains [N, D]: float64 [N] nats."""
        log_prob = torch.full((len(chain),), -math.log(2) if len(position) else 0.0, dtype=torch.float64)
        value, gaps = chain[:, position], position.diff()
        is_flip = value[:, 1:] != value[:, :-1]
        for gap in gaps.unique().tolist():
            flip = 0.0  # (1 - (1 - 2q)^gap) / 2, which for a gap of 1 would not be q to the last digit
            for _ in range(gap):
                flip = flip * (1 - self.flip) + (1 - flip) * self.flip
            num_flips = is_flip[:, gaps == gap].sum(dim=1).double()
            num_stays = (gaps == gap).sum() - num_flips
            log_prob = log_prob + num_flips * math.log(flip) + num_stays * math.log1p(-flip)
        return log_prob

    def draw(self, generator: np.random.Generator) -> NDArray[np.uint8]:
        flips = generator.random(self.side**2) < self.flip
        flips[0] = generator.random() < 0.5
        return (np.logical_xor.accumulate(flips).astype(np.uint8) << np.uint8(7)).reshape(self.image_shape)


def row_numbers(rows: Tensor) -> Tensor:
    """A number from 0 for each of some rows [N, K], K >= 0, which equal rows share: int64 [N]."""
    return F.pad(rows, (0, 1)).unique(dim=0, return_inverse=True)[1]  # it takes no rows without columns
