"""Known worlds where h is of a partner of x, behind a noisy channel: a random function of x."""

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from jsonargparse.typing import PositiveInt
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import entr
from torch import Tensor

from datamodules.split import Batch
from datamodules.worlds import Encode, FreshImages, WorldDataModule, row_numbers, told_pixels

Pixels = NDArray[np.uint8]


class FreshPairs(FreshImages):
    """Likewise, but a draw is two pictures, uint8 [2, C, H, W]: the image, and what the network sees of it."""

    def __getitems__(self, positions: Sequence[int]) -> Batch:
        batch = super().__getitems__(positions)
        image, seen = batch["image"].unbind(1)
        return {**batch, "image": image.contiguous(), "context_image": seen.contiguous()}


class ChannelDataModule(WorldDataModule):
    """Images that have a partner each, of the same shape, of which h is: batches have it as `context_image`.

    Who asks a trained inverter from Python, or by `score`, must give the partners as those that h is of.

    What is drawn of an image is drawn before the noise, so that the images, and p(x), are those of any `CHANNEL`.

    Args:
        copies: So many independent images side by side are one, which have so many times the information.
    """

    fresh = FreshPairs
    has_partners = True
    known_information: float  # I(x; partner), nats, of all copies

    def __init__(self, copies: PositiveInt = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.copies = copies

    @abstractmethod
    def pair(self, generator: np.random.Generator, split: str) -> tuple[Pixels, Pixels]:
        """One image without copies and its partner, uint8 [H, W] each."""

    def draw(self, generator: np.random.Generator, split: str = "train") -> Pixels:
        """An image and its partner, uint8 [2, 1, H, W]."""
        pairs = [np.stack(self.pair(generator, split)) for _ in range(self.copies)]
        return np.concatenate(pairs, axis=2)[:, None]

    def drawer(self, split: str) -> Callable[[np.random.Generator], Pixels]:
        return partial(self.draw, split=split)

    def partners(self, num_images: int) -> Tensor:
        """Of more images of this world, to learn about a representation from them: uint8 [N, 1, H, W]."""
        return self.drawn("train", num_images, self.seed).first(num_images)["context_image"]

    def handed_over(self, seen: Tensor | None) -> Tensor:
        """The partners, of which h is. Raises ValueError where there are none."""
        if seen is None:
            raise ValueError(
                f"h of {self.name} is no function of x: its log p(x | h) is asked for with the partners, of which h is"
            )
        return seen


class PixelChannelDataModule(ChannelDataModule):
    """Independent uniform pixels, each with a partner that says something of it, and of it alone.

    log p(x | h) is known where h tells some of the partners, as far as they say something of their pixels, and nothing
    of the others. A level of L is that times 256 / L.
    """

    entropy: float
    num_levels: int  # L, of a pixel
    num_partner_levels: int
    live: Tensor  # the pixels that are not constant, bool [H, W] with all copies

    @abstractmethod
    def log_posterior(self, image: Tensor, partner: Tensor) -> Tensor:
        """log p(pixel | its partner), nats, of uint8 pixels: float64, elementwise."""

    def exact_log_prob(self, image: Tensor, encode: Encode, seen: Tensor | None = None) -> Tensor:
        seen = self.handed_over(seen)
        told = self._told(encode, seen)
        log_prob = self.log_posterior(image.cpu(), seen.cpu()).flatten(1)
        log_prob = torch.where(told, log_prob, torch.full_like(log_prob, -math.log(self.num_levels)))
        return log_prob[:, self.live.flatten()].sum(dim=1)

    def exact_information(self, encode: Encode) -> float:
        told = self._told(encode, self.partners(1))
        return self.known_information * (told & self.live.flatten()).sum().item() / self.live.sum().item()

    def _told(self, encode: Encode, seen: Tensor) -> Tensor:
        """The pixels whose partners h tells, bool [D].

        Each partner is tried at all its levels.
        """
        told = told_pixels(torch.cat((seen, self.partners(100).to(seen.device))), encode, 128)
        if told is None or not self._tells_levels(encode, seen[:1], told & self.live.flatten()):
            raise ValueError(
                f"log p(x | h) of {self.name} is known only where h tells the partners of some pixels and nothing of "
                "the others; give a layer that does"
            )
        return told

    def _tells_levels(self, encode: Encode, seen: Tensor, pixels: Tensor) -> bool:
        """Whether levels of a partner with the same h say the same of its pixel, at each of some pixels, bool [D]."""
        level, partner = (
            torch.arange(0, 256, 256 // number, dtype=torch.uint8)
            for number in (self.num_levels, self.num_partner_levels)
        )
        posterior = self.log_posterior(*torch.broadcast_tensors(level, partner[:, None]))  # [partner's, L]
        return all(
            row_numbers(h).max() == row_numbers(torch.cat((h, posterior), dim=1)).max()
            for h in self._of_levels(encode, seen, pixels, partner)
        )

    def _of_levels(self, encode: Encode, seen: Tensor, pixels: Tensor, partner: Tensor) -> Iterator[Tensor]:
        """What h is of the levels of a partner, [num_partner_levels, K], for each of some pixels.

        Each level is tried at each pixel. Where a pixel of h is a function of the same partner alone, that takes a
        picture a level, and each function comes once; otherwise it takes one a level and pixel.
        """
        L, pixel = len(partner), torch.arange(pixels.numel())
        same = partner.view(-1, 1, 1, 1).expand(-1, *self.image_shape)
        number = (torch.arange(L)[:, None] + 7 * pixel) % L  # [L, D], a level beside others
        h, alone = (encode(x.to(seen.device)).cpu().double() for x in (partner[number].view_as(same), same))
        if h.shape[2:] == self.image_shape[1:]:
            h, alone = h.flatten(2).movedim(1, 2), alone.flatten(2).movedim(1, 2)  # [L, D, K]
            if torch.equal(h, alone[number, pixel]):
                yield from alone[:, pixels].movedim(1, 0).unique(dim=0)
                return
        for chosen in pixels.nonzero().flatten().tolist():
            pictures = seen.repeat(L, 1, 1, 1)
            pictures.view(L, -1)[:, chosen] = partner.to(seen.device)
            h = encode(pictures).flatten(1)
            yield h[:, (h != h[0]).any(dim=0)].cpu().double()


class PairsDataModule(PixelChannelDataModule):
    """Pixels of L levels, each with a partner behind a symmetric channel: I(x; h) is as asked for.

    The partner is the pixel's own level but with probability q, and then one of the others, all equally likely, so that
    I = D (ln L - H2(q) - q ln(L - 1)), which is solved for q. The D pixels are the first of a square canvas, in raster
    order, and the rest of it is 0. Two levels would have at most 50 ln 2 = 34.7 nats in 50 pixels.

    Args:
        information: I(x; h), nats, without copies.
        num_pixels: D, without copies.
        num_bits: ln2 of L, 1 to 7.
    """

    name = "pairs"
    CHANNEL = ("information",)

    def __init__(
        self, information: float = 20.0, num_pixels: PositiveInt = 50, num_bits: int = 2, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if not 1 <= num_bits <= 7:
            raise ValueError(f"num_bits {num_bits} must be 1 to 7")
        most = num_pixels * num_bits * math.log(2)
        if not 0 <= information <= most:
            raise ValueError(
                f"information {information:g} is not between 0 and {most:.2f} nats, what {num_pixels} pixels of "
                f"{num_bits} bits have; give less, or more num_pixels or num_bits"
            )
        self.num_pixels, self.num_bits = num_pixels, num_bits
        self.num_levels = self.num_partner_levels = 2**num_bits
        self.flip = flip_probability(information / num_pixels, self.num_levels)
        side = 4 * math.ceil(math.sqrt(num_pixels) / 4)  # as PixelCNN++ halves it twice
        self.image_shape = (1, side, side * self.copies)
        self.live = (torch.arange(side**2) < num_pixels).view(side, side).repeat(1, self.copies)
        self.information, self.known_information = information, information * self.copies
        self.entropy = most * self.copies

    def log_posterior(self, image: Tensor, partner: Tensor) -> Tensor:
        same, other = torch.tensor([1 - self.flip, self.flip / (self.num_levels - 1)], dtype=torch.float64).log()
        return torch.where(image == partner, same, other)

    def pair(self, generator: np.random.Generator, split: str) -> tuple[Pixels, Pixels]:
        level = generator.integers(self.num_levels, size=self.num_pixels, dtype=np.uint8)
        others = generator.integers(1, self.num_levels, size=self.num_pixels, dtype=np.uint8)
        partner = np.where(generator.random(self.num_pixels) < self.flip, (level + others) % self.num_levels, level)
        side = self.image_shape[1]
        both = np.zeros((2, side**2), dtype=np.uint8)
        both[:, : self.num_pixels] = np.stack((level, partner)).astype(np.uint8) << np.uint8(8 - self.num_bits)
        image, seen = both.reshape(2, side, side)
        return image, seen


class StepsDataModule(PixelChannelDataModule):
    """Black and white pixels, each with a grey partner, of whose level log p is a step function.

    The levels 0 to 255 of a partner are cut into steps of equal width. A pixel is white with probability 1 - q where
    its partner is in an odd step, and q in an even one, and H(x | h) = D H2(q): what is linear in h knows little.

    Args:
        side: Height and width.
        num_steps: A power of two, 2 to 128.
        flip: q, in [0, 0.5].
    """

    name = "steps"
    CHANNEL = ("num_steps", "flip")
    num_levels, num_partner_levels = 2, 256

    def __init__(self, side: PositiveInt = 28, num_steps: int = 4, flip: float = 0.05, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if num_steps not in (2, 4, 8, 16, 32, 64, 128):
            raise ValueError(f"num_steps {num_steps} is no power of two from 2 to 128; give one, as 4")
        if not 0 <= flip <= 0.5:
            raise ValueError(f"flip {flip} is not between 0 and 0.5; give a probability there, as 0.05")
        self.side, self.num_steps, self.flip = side, num_steps, flip
        self.image_shape = (1, side, side * self.copies)
        self.live = torch.ones(self.image_shape[1:], dtype=torch.bool)
        self.entropy = self.live.numel() * math.log(2)
        self.known_information = self.entropy - self.live.numel() * float(entr(flip) + entr(1 - flip))

    def log_posterior(self, image: Tensor, partner: Tensor) -> Tensor:
        is_white, in_odd = image > 0, partner.long() * self.num_steps // 256 % 2 == 1
        usual, flipped = torch.tensor([1 - self.flip, self.flip], dtype=torch.float64).log()
        return torch.where(is_white == in_odd, usual, flipped)

    def pair(self, generator: np.random.Generator, split: str) -> tuple[Pixels, Pixels]:
        shape = (self.side, self.side)
        is_white = generator.integers(2, size=shape, dtype=np.uint8)
        in_odd = is_white ^ (generator.random(shape) < self.flip).astype(np.uint8)
        width = 256 // self.num_steps
        grey = generator.integers(128, size=shape)  # among the levels of all odd steps, or of all even ones
        partner = (2 * (grey // width) + in_odd) * width + grey % width
        return is_white << np.uint8(7), partner.astype(np.uint8)


def flip_probability(information: float, num_levels: int) -> float:
    """q of the symmetric channel on L equally likely levels: ln L - H2(q) - q ln(L - 1) nats come through.

    The levels other than the own are equally likely; q is between 0, where ln L nats do, and 1 - 1/L, where none does.
    """

    def lost(q: float) -> float:
        return float(entr(q) + entr(1 - q)) + q * math.log(num_levels - 1)

    wanted, most = math.log(num_levels) - information, 1 - 1 / num_levels
    if wanted <= 0 or information <= 0:
        return 0.0 if wanted <= 0 else most
    return float(brentq(lambda q: lost(q) - wanted, 0, most, xtol=1e-15, rtol=1e-15))
