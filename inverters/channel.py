"""What lies between a layer and its inverter where not all of h is sent, at rates from little to much."""

import math
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

MOST_VALUES = 2**26  # of training images' h that a channel is fitted to
MOST_ROWS = 20_000  # that k-means sees
MOST_BITS = 16  # of a code; beyond, float32 has no more levels
FLOAT_BITS = 32


class Channel(nn.Module, ABC):
    """From h to what arrives of it, h', of the same shape, at one of several rates.

    A unit is a number of a vector h, and of a map one of its channels, at all places alike. Rates are sorted, from the
    one that tells least to the one that tells most, and are known by their number in this order.

    Attributes:
        rates: As they were given, in this order.
        sent_bits: Of an image, at each, float32 [R]; nan until `fit`. What they count is `counted`.
        nominal_bits: Likewise, without looking at any h.
        random: Whether h' is no function of h, but when it is evaluated.
        called: What a rate of 1 is called, and any other.
        counted: What `sent_bits` are, in words.
    """

    random: ClassVar[bool] = False
    called: ClassVar[tuple[str, str]]
    counted: ClassVar[str]
    sent_bits: Tensor

    def __init__(self, context_shape: tuple[int, ...], rates: Sequence[float], key: str, falling: bool = False) -> None:
        super().__init__()
        if not rates or len(set(rates)) < len(rates):
            raise ValueError(f"{key} of {type(self).__name__} is {list(rates)}; give one or more rates, each once")
        self.rates = tuple(sorted(rates, reverse=falling))
        self.num_units, self.num_places = context_shape[0], math.prod(context_shape[1:])
        self.per_unit = (self.num_units,) + (1,) * (len(context_shape) - 1)
        self.register_buffer("sent_bits", torch.full((len(rates),), torch.nan))

    def name_of(self, number: int) -> str:
        """A rate's, for people."""
        rate = self.rates[number]
        return f"{rate:g} {self.called[rate != 1]}"

    @property
    def description(self) -> str:
        """All that it was made with; two of the same are the same, once they are fitted to the same h."""
        return f"{type(self).__name__}, {', '.join(f'{rate:.9g}' for rate in self.rates)} {self.called[1]}"

    @property
    @abstractmethod
    def nominal_bits(self) -> tuple[float, ...]: ...

    @abstractmethod
    def fit(self, h: Tensor) -> None:
        """Take what it needs from training images' h, [N, ...], and count `sent_bits`."""

    @abstractmethod
    def at(self, h: Tensor, number: int, fresh: bool = False) -> Tensor:
        """h' of h [B, ...] at one rate, by its number; `fresh` as below."""

    def forward(self, h: Tensor, number: int | Tensor, fresh: bool = False) -> Tensor:
        """h' of h [B, ...], the same shape.

        Args:
            number: Of the rate; of each image's rate, int64 [B].
            fresh: Take what is random from torch's stream; else it is a function of h.
        """
        if isinstance(number, int):
            return self.at(h, number, fresh)
        its, found = number.view(-1, *[1] * (h.ndim - 1)), self.at(h, 0, fresh)
        for k in range(1, len(self.rates)):
            found = torch.where(its == k, self.at(h, k, fresh), found)
        return found

    def _rows(self, h: Tensor) -> Tensor:
        """The units at each place, [B P, K], of [B, K] or [B, K, H', W']."""
        return h.movedim(1, -1).reshape(-1, self.num_units)

    def _as_h(self, rows: Tensor, h: Tensor) -> Tensor:
        """`_rows` back as an h."""
        return rows.view(*h.movedim(1, -1).shape).movedim(-1, 1)


ChannelFactory = Callable[[tuple[int, ...]], Channel]


class UniformQuantiser(Channel):
    """Each unit rounded to one of 2^b levels from its smallest value in training to its largest (Choi and Bajic 2018).

    Both ends are levels, so that the 0 of a ReLU stays 0. What lies outside is cut off.

    Args:
        context_shape: (K,) or (K, H', W').
        bits: b of each rate, from 1 to 16.
    """

    called = ("bit a unit", "bits a unit")
    counted = (
        "the entropy of each unit's codes, as training images tell it, which an ideal entropy coder of single units "
        "needs"
    )
    low: Tensor
    high: Tensor

    def __init__(self, context_shape: tuple[int, ...], bits: list[int]) -> None:
        super().__init__(context_shape, _whole(bits, "bits", MOST_BITS), "bits")
        self.register_buffer("low", torch.zeros(self.per_unit))
        self.register_buffer("high", torch.zeros(self.per_unit))

    @property
    def nominal_bits(self) -> tuple[float, ...]:
        return tuple(float(b * self.num_units * self.num_places) for b in self.rates)

    def fit(self, h: Tensor) -> None:
        rows = self._rows(h)
        self.low.copy_(rows.amin(dim=0).view(self.per_unit))
        self.high.copy_(rows.amax(dim=0).view(self.per_unit))
        for k in range(len(self.rates)):
            codes = self._rows(self.codes(h, k)).long()
            self.sent_bits[k] = sum(entropy_bits(unit, 2 ** int(self.rates[k])) for unit in codes.T) * self.num_places

    def codes(self, h: Tensor, number: int) -> Tensor:
        """Whole numbers from 0 to 2^b - 1, as floats, [B, ...]."""
        return ((h - self.low) / self._step(number)).round().clamp(0, 2 ** int(self.rates[number]) - 1)

    def at(self, h: Tensor, number: int, fresh: bool = False) -> Tensor:
        return self.low + self.codes(h, number) * self._step(number)

    def _step(self, number: int) -> Tensor:
        step = (self.high - self.low) / (2 ** int(self.rates[number]) - 1)
        return torch.where(step > 0, step, 1.0)  # of a unit that is constant, code 0 is that constant


class KMeansCodes(Channel):
    """h as the nearest of 2^b centroids, which k-means finds in training; of a map, at each place.

    Args:
        context_shape: (K,) or (K, H', W').
        bits: b of each rate, from 1 to 16.
    """

    called = ("bit a vector", "bits a vector")
    counted = "the entropy of the codes, as training images tell it"
    centroids: Tensor

    def __init__(self, context_shape: tuple[int, ...], bits: list[int]) -> None:
        super().__init__(context_shape, _whole(bits, "bits", MOST_BITS), "bits")
        self.sizes = [2 ** int(b) for b in self.rates]
        self.register_buffer("centroids", torch.zeros(sum(self.sizes), self.num_units))

    @property
    def nominal_bits(self) -> tuple[float, ...]:
        return tuple(float(b * self.num_places) for b in self.rates)

    def fit(self, h: Tensor) -> None:
        from sklearn.cluster import KMeans  # takes seconds to import

        rows = self._rows(h)
        # At random: even steps through rows of images and places would meet the same places in every image.
        chosen = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:MOST_ROWS].sort().values
        few = rows[chosen.to(rows.device)].cpu().double().numpy()
        if len(few) < self.sizes[-1]:
            raise ValueError(
                f"bits of KMeansCodes is {self.rates[-1]}: {self.sizes[-1]} centroids cannot be found among "
                f"{len(few)} vectors of training images; give fewer bits"
            )
        for k, (size, centroids) in enumerate(zip(self.sizes, self.centroids.split(self.sizes), strict=True)):
            centroids.copy_(torch.from_numpy(KMeans(size, n_init=4, random_state=0).fit(few).cluster_centers_))
            self.sent_bits[k] = entropy_bits(self.codes(h, k), size) * self.num_places

    def codes(self, h: Tensor, number: int) -> Tensor:
        """Of the vector at each place of each image, int64 [B P]."""
        rows, centroids = self._rows(h), self.centroids.split(self.sizes)[number]
        most = max(1, 2**24 // len(centroids))
        return torch.cat([torch.cdist(part, centroids).argmin(dim=1) for part in rows.split(most)])

    def at(self, h: Tensor, number: int, fresh: bool = False) -> Tensor:
        return self._as_h(self.centroids.split(self.sizes)[number][self.codes(h, number)], h)


class AdditiveNoise(Channel):
    """h with normal noise, independent at each number, in standard deviations that its unit has in training.

    While an inverter is trained the noise is new each time. Else it is a function of h, known to a quarter of these
    deviations, so that an image keeps its noise, and has the same at all rates, whatever the batch.

    Args:
        context_shape: (K,) or (K, H', W').
        sizes: Of each rate, above 0.
    """

    random = True
    called = ("standard deviation of noise", "standard deviations of noise")
    counted = "the capacity of independent normal channels of these variances, which bounds I(h; h') from above"
    mean: Tensor
    scale: Tensor

    def __init__(self, context_shape: tuple[int, ...], sizes: list[float]) -> None:
        wrong = [size for size in sizes if not 0 < size < math.inf]
        if wrong:
            raise ValueError(f"sizes of AdditiveNoise has {wrong[0]:g}; give numbers above 0")
        super().__init__(context_shape, [float(size) for size in sizes], "sizes", falling=True)
        self.register_buffer("mean", torch.zeros(self.per_unit))
        self.register_buffer("scale", torch.zeros(self.per_unit))

    @property
    def nominal_bits(self) -> tuple[float, ...]:
        return tuple(0.5 * math.log2(1 + size**-2) * self.num_units * self.num_places for size in self.rates)

    def fit(self, h: Tensor) -> None:
        rows = self._rows(h).double()
        self.mean.copy_(rows.mean(dim=0).view(self.per_unit))
        self.scale.copy_(rows.std(dim=0, correction=0).view(self.per_unit))
        share = int((self.scale > 0).sum()) / self.num_units  # a constant unit tells nothing
        self.sent_bits.copy_(share * torch.tensor(self.nominal_bits))

    def at(self, h: Tensor, number: int, fresh: bool = False) -> Tensor:
        noise = torch.randn_like(h) if fresh else self._noise(h)
        return h + self.rates[number] * self.scale * noise

    def _noise(self, h: Tensor) -> Tensor:
        levels = (4 * (h - self.mean) / self.scale.clamp(min=1e-2 * float(self.scale.max()) or 1.0)).round()
        seeds = [zlib.crc32(row.tobytes()) for row in levels.clamp(-100, 100).to("cpu", torch.int8).numpy()]
        drawn = [torch.randn(h.shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return torch.stack(drawn).to(h) if drawn else torch.zeros_like(h)


class UnitsKept(Channel):
    """A share of the units as they are, those of the largest variance in training; the others are at their means.

    Args:
        context_shape: (K,) or (K, H', W').
        shares: Of each rate, above 0 and at most 1; rounded up to whole units.
    """

    called = ("of the units", "of the units")
    counted = f"{FLOAT_BITS} a number"
    mean: Tensor
    place: Tensor

    def __init__(self, context_shape: tuple[int, ...], shares: list[float]) -> None:
        wrong = [share for share in shares if not 0 < share <= 1]
        if wrong:
            raise ValueError(f"shares of UnitsKept has {wrong[0]:g}; give numbers above 0 and up to 1")
        super().__init__(context_shape, [float(share) for share in shares], "shares")
        self.register_buffer("mean", torch.zeros(self.per_unit))
        self.register_buffer("place", torch.zeros(self.per_unit))  # of each unit, by its variance

    def num_kept(self, number: int) -> int:
        """How many units."""
        return math.ceil(round(self.rates[number] * self.num_units, 6))

    @property
    def nominal_bits(self) -> tuple[float, ...]:
        return tuple(float(FLOAT_BITS * self.num_kept(k) * self.num_places) for k in range(len(self.rates)))

    def fit(self, h: Tensor) -> None:
        rows = self._rows(h).double()
        self.mean.copy_(rows.mean(dim=0).view(self.per_unit))
        order = rows.var(dim=0, correction=0).argsort(descending=True, stable=True)
        self.place.view(-1)[order] = torch.arange(self.num_units).to(self.place)
        self.sent_bits.copy_(torch.tensor(self.nominal_bits))

    def at(self, h: Tensor, number: int, fresh: bool = False) -> Tensor:
        return torch.where(self.place < self.num_kept(number), h, self.mean)


class PrincipalComponents(Channel):
    """h projected to the principal components of its units in training, the first so many.

    Args:
        context_shape: (K,) or (K, H', W').
        numbers: Of components, of each rate, from 1 to K.
    """

    called = ("principal component", "principal components")
    counted = f"{FLOAT_BITS} a number"
    mean: Tensor
    components: Tensor

    def __init__(self, context_shape: tuple[int, ...], numbers: list[int]) -> None:
        super().__init__(context_shape, _whole(numbers, "numbers", context_shape[0]), "numbers")
        self.register_buffer("mean", torch.zeros(self.num_units))
        self.register_buffer("components", torch.zeros(self.num_units, int(self.rates[-1])))

    @property
    def nominal_bits(self) -> tuple[float, ...]:
        return tuple(float(FLOAT_BITS * number * self.num_places) for number in self.rates)

    def fit(self, h: Tensor) -> None:
        rows = self._rows(h).double()
        mean = rows.mean(dim=0)
        _, vectors = torch.linalg.eigh((rows - mean).T @ (rows - mean))  # of the smallest first
        self.mean.copy_(mean)
        self.components.copy_(vectors.flip(1)[:, : int(self.rates[-1])])
        self.sent_bits.copy_(torch.tensor(self.nominal_bits))

    def at(self, h: Tensor, number: int, fresh: bool = False) -> Tensor:
        its = self.components[:, : int(self.rates[number])]
        return self._as_h(self.mean + (self._rows(h) - self.mean) @ its @ its.T, h)


class Kept:
    """Evenly chosen rows of a stream that goes by, as many as a channel is fitted to.

    Attributes:
        rows: Of [M, ...] each.
    """

    def __init__(self, most_values: int = MOST_VALUES) -> None:
        self.most_values, self.step, self.count = most_values, 1, 0
        self.rows: list[Tensor] = []

    def passing(self, parts: Iterable[Tensor]) -> Iterator[Tensor]:
        """The parts, [N, ...], as they are."""
        for part in parts:
            self.rows.append(part[-self.count % self.step :: self.step].clone())
            self.count += len(part)
            while sum(rows.numel() for rows in self.rows) > self.most_values and sum(map(len, self.rows)) > 1:
                self.rows, self.step = [torch.cat(self.rows)[::2]], 2 * self.step
            yield part


def entropy_bits(codes: Tensor, num_codes: int) -> float:
    """The entropy of what gave these codes, whole numbers from 0 to `num_codes` - 1, int64 [N], bits.

    That of their shares is too low, as it is at most log2 N: of uniform codes of 16 bits it is 12.1 for N = 4500. This
    is Chao, Wang and Jost's (2013, eq. 7) estimate, which takes what was not seen from how many codes were seen once
    and twice. Of 4500 uniform, normal or rectified ones, at up to 16 bits, it is right to 5 %, of 500 to 25 %. It is
    never more than log2 of `num_codes`.
    """
    from scipy.special import digamma, hyperu  # SciPy takes long to import

    counts = codes.bincount().double().cpu().numpy()
    counts, n = counts[counts > 0], len(codes)
    found = float((counts / n * (digamma(n) - digamma(counts))).sum())
    if once := int((counts == 1).sum()):
        twice = int((counts == 2).sum())
        a = 2 * twice / ((n - 1) * once + 2 * twice) if twice else 2 / ((n - 1) * (once - 1) + 2)
        # Their sum of (1 - A)^t / (t + n - 1) over t from 1 on is e^(nA) E1(nA), but for terms of order A and 1 / n.
        found += once / n * float(hyperu(1, 1, n * a))
    return min(found / math.log(2), math.log2(num_codes))


def _whole(numbers: Sequence[int], key: str, most: int) -> list[int]:
    """As they are. Raises ValueError where one is not from 1 to `most`."""
    wrong = [number for number in numbers if not 1 <= number <= most]
    if wrong:
        raise ValueError(f"{key} has {wrong[0]}; give whole numbers from 1 to {most}")
    return [int(number) for number in numbers]
