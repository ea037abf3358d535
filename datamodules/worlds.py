"""Worlds where the information is known exactly: an estimator is tried where the truth is known."""

import hashlib
import json
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
SPLITS = ("train", "val", "test")


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
    """Images from a known distribution, which knows the information exactly for representations that it understands.

    Training images are drawn anew each time, never a finite set.

    Args:
        num_test: Images for validation, and as many for the test.
    """

    num_classes = 1
    entropy: float | None  # H(x), nats; None where it is not known
    fresh: type[FreshImages] = FreshImages  # what training images come from
    must_fail = False  # whether a model that passes here is wrong
    held_out: type[ImageDataset] = ImageDataset  # what the test is made of
    NOT_IDENTIFYING = (*ImageDataModule.NOT_IDENTIFYING, "num_test")
    CHANNEL: tuple[str, ...] = ()  # the arguments that do not decide which images are x

    def __init__(self, num_test: PositiveInt = 1000, batch_size: PositiveInt = 64, **kwargs: Any) -> None:
        super().__init__(batch_size, **kwargs)
        self.num_test = num_test

    @property
    def pictures_digest(self) -> str:
        arguments = {key: value for key, value in self.identity.items() if key not in self.CHANNEL}
        return hashlib.sha256(json.dumps([self.name, arguments], sort_keys=True).encode()).hexdigest()[:16]

    @abstractmethod
    def exact_log_prob(self, image: Tensor, encode: Encode, seen: Tensor | None = None) -> Tensor | None:
        """log p(x | h) of some of this world's images, h = encode(seen) being the representation that is inverted.

        Takes uint8 [N, C, H, W], where `encode` takes its images; returns float64 [N] nats, on the CPU, and None where
        only the information is known. What the network sees is handed over where it is not the image itself.

        Raises:
            ValueError: The truth is not known for such a representation.
        """

    def exact_information(self, encode: Encode) -> float | None:
        """I(x; h), nats, of such an h; None where this world does not say. Raises ValueError as `exact_log_prob`."""
        return None

    @abstractmethod
    def draw(self, generator: np.random.Generator) -> NDArray[np.uint8]:
        """One image, uint8 [C, H, W]."""

    def with_more(self, image: Tensor) -> Tensor:
        """Some images, uint8 [N, C, H, W], and 100 more of this world, to learn about a representation from them."""
        return torch.cat((image, FreshImages(100, self.draw, 3 * self.seed).first(100)["image"].to(image.device)))

    def drawer(self, split: str) -> Callable[[np.random.Generator], NDArray[np.uint8]]:
        """`draw` as it is for "train", "val" or "test"."""
        return self.draw

    def drawn(self, split: str, num_images: int, seed: int) -> FreshImages:
        """Images as those of a split, each a function of (split, seed, position); the data's own are of its seed."""
        return self.fresh(num_images, self.drawer(split), 3 * seed + SPLITS.index(split))

    def load(self) -> dict[str, Split]:
        train, *held_out = (self.drawn(split, 2**20, self.seed) for split in SPLITS)
        val, test = (images.first(self.num_test) for images in held_out)
        return {
            "train": train,
            "val": ImageDataset(val["image"], val["label"], val["index"], originals=val.get("context_image")),
            "test": self.held_out(test["image"], test["label"], test["index"], True, test.get("context_image")),
        }


class BitDropDataModule(WorldDataModule):
    """Independent uniform B-bit pixels, of which a representation may drop bits.

    H(x) = B D ln 2 nats. The values are spread over 0..255 in steps of 2^(8 - B).

    Args:
        side: Height and width.
        num_bits: B, 1 to 8.
    """

    name = "bit_drop"
    entropy: float

    def __init__(self, side: PositiveInt = 8, num_bits: int = 3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 1 <= num_bits <= 8:
            raise ValueError(f"num_bits {num_bits} must be 1 to 8")
        self.side, self.num_bits = side, num_bits
        self.image_shape = (1, side, side)
        self.entropy = num_bits * side**2 * math.log(2)

    def exact_log_prob(self, image: Tensor, encode: Encode, seen: Tensor | None = None) -> Tensor:
        """Minus the sum over pixels of ln(how many levels give h there what this one gives it).

        Known where h is a map, of which a pixel is a function of the same pixel of x alone, and where it is empty.
        """
        num_alike, place = self._num_alike(image, encode)
        # log2 of a power of two is exact, and so is a sum of them.
        return -num_alike[place][: len(image)].cpu().double().log2().sum(dim=(1, 2)) * math.log(2)

    def exact_information(self, encode: Encode) -> float | None:
        image = self.drawn("test", 2, self.seed).first(2)["image"]
        num_alike, _ = self._num_alike(image, encode)
        return self.entropy - num_alike.double().log().mean(dim=0).sum().item()

    def _num_alike(self, image: Tensor, encode: Encode) -> tuple[Tensor, tuple[Tensor, ...]]:
        """How many levels give h at a pixel what each gives it, [L, S, S], and the places there of images [M, S, S].

        The images are the given ones, and more.
        """
        step = 2 ** (8 - self.num_bits)
        level = torch.arange(0, 256, step, dtype=torch.uint8, device=image.device)  # [L]
        constant = encode(level.view(-1, 1, 1, 1).expand(-1, *self.image_shape)).movedim(1, -1)  # [L, S, S, K]
        images = self.with_more(image)  # [M, 1, S, S], M > N
        h = encode(images).movedim(1, -1)  # [M, S, S, K]
        pixel = torch.arange(self.side, device=image.device)
        place = (images[:, 0].long() // step, pixel[:, None], pixel)  # [M, S, S]
        if not h[0].numel():
            return torch.full((len(level), self.side, self.side), len(level), device=image.device), place
        if h.shape[1:-1] != self.image_shape[1:] or not torch.equal(h, constant[place]):
            raise ValueError(
                f"log p(x | h) of {self.name} is known only where each pixel of h is a function of the same pixel of x "
                "alone; give a layer that is"
            )
        return (constant[:, None] == constant).all(dim=-1).sum(dim=1), place

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

    def exact_information(self, encode: Encode) -> None:
        """Not that of the test."""


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

    def exact_log_prob(self, image: Tensor, encode: Encode, seen: Tensor | None = None) -> Tensor:
        """log p(x) - log p(x_S), where h tells as much as the pixels S.

        S are the pixels that change h of the first image. That h is a function of them, and they of h, is checked with
        these and other images.
        """
        kept = self._kept(image, encode)
        chain = image.flatten(1).cpu()
        return self._log_prob(chain, torch.arange(self.side**2)) - self._log_prob(chain, kept)

    def exact_information(self, encode: Encode) -> float:
        """H(x_S), by the chain rule."""
        kept = self._kept(self.drawn("test", 2, self.seed).first(2)["image"], encode)
        flips = [self._flip(gap) for gap in kept.diff().tolist()]
        return (math.log(2) if len(kept) else 0.0) + sum(float(entr(q) + entr(1 - q)) for q in flips)

    def _kept(self, image: Tensor, encode: Encode) -> Tensor:
        """S, ascending."""
        kept = told_pixels(self.with_more(image), encode, 128)
        if kept is None:
            raise ValueError(
                f"log p(x | h) of {self.name} is known only where h tells some of the pixels and nothing of the "
                "others; give a layer that does"
            )
        return kept.nonzero().flatten()

    def _flip(self, gap: int) -> float:
        """How likely two pixels differ that are so far apart: (1 - (1 - 2q)^gap) / 2, for 1 q to the last digit."""
        flip = 0.0
        for _ in range(gap):
            flip = flip * (1 - self.flip) + (1 - flip) * self.flip
        return flip

    def _log_prob(self, chain: Tensor, position: Tensor) -> Tensor:
        """log p of the pixels in some positions, ascending, of binary chains [N, D]: float64 [N] nats."""
        log_prob = torch.full((len(chain),), -math.log(2) if len(position) else 0.0, dtype=torch.float64)
        value, gaps = chain[:, position], position.diff()
        is_flip = value[:, 1:] != value[:, :-1]
        for gap in gaps.unique().tolist():
            flip = self._flip(gap)
            num_flips = is_flip[:, gaps == gap].sum(dim=1).double()
            num_stays = (gaps == gap).sum() - num_flips
            log_prob = log_prob + num_flips * math.log(flip) + num_stays * math.log1p(-flip)
        return log_prob

    def draw(self, generator: np.random.Generator) -> NDArray[np.uint8]:
        flips = generator.random(self.side**2) < self.flip
        flips[0] = generator.random() < 0.5
        return (np.logical_xor.accumulate(flips).astype(np.uint8) << np.uint8(7)).reshape(self.image_shape)


def told_pixels(images: Tensor, encode: Encode, change: int) -> Tensor | None:
    """The pixels that h tells, where it tells nothing of the others, bool [D] on the CPU; None where it tells else.

    They are the pixels that change h of the first image where `change` is laid over them, by exclusive or. That h is a
    function of them, and they of h, is checked with all images, uint8 [N, C, H, W].
    """
    pixels = images.flatten(1)
    one_pixel = torch.eye(pixels.shape[1], dtype=torch.uint8, device=images.device).view(-1, *images.shape[1:]) * change
    every = torch.cat((images, images[:1] ^ one_pixel))
    h, pixels = encode(every).flatten(1), every.flatten(1)
    kept = (h[len(images) :] != h[0]).any(dim=1)  # [D]
    same = torch.equal(h, encode((pixels * kept).view_as(every)).flatten(1))
    return kept.cpu() if same and row_numbers(h).max() == row_numbers(pixels[:, kept]).max() else None


def row_numbers(rows: Tensor) -> Tensor:
    """A number from 0 for each of some rows [N, K], K >= 0, which equal rows share: int64 [N]."""
    return F.pad(rows, (0, 1)).unique(dim=0, return_inverse=True)[1]  # it takes no rows without columns
