"""Where NCE goes as the budget of training grows: a power law and its limit."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from evaluations.information import mean_and_standard_error

NUM_RESAMPLES = 1000
FACTOR = 4  # of the budget, over which an estimate has settled or not
EXPONENTS = np.geomspace(0.05, 4, 200)  # the first stands for a line over ln C, which has no limit
GRID = 0.003  # of a curve's range: more than an exact law is missed by as its exponent lies between two of these
Verdict = Literal["settled", "within its error, still moving", "still moving"]


@dataclass(frozen=True, eq=False)
class PowerLaw:
    """limit - scale C^-exponent, fitted to a mean over test images at several budgets C.

    Attributes:
        limit: As C grows, nats; None where the curve does not bend, so that it has none.
        low: Of its 95 % interval by the bootstrap over test images, -inf or inf where more than 2.5 % of the resamples
            do not bend. It knows nothing of other trainings, nor of whether the power law holds beyond the budgets.
        high: See above.
        scale: In nats, of C as it was given.
        exponent: At least the first of EXPONENTS, and at most the last.
        residuals: By how much each mean is above the law, [K] nats.
        errors: Of these, their standard deviations over the same resamples, [K] nats: they are of the same images, and
            so far smaller than those of the means.
        range: Of the means, nats.
    """

    limit: float | None
    low: float
    high: float
    scale: float
    exponent: float
    residuals: NDArray[np.float64]
    errors: NDArray[np.float64]
    range: float

    @property
    def misfits(self) -> bool:
        """Whether a mean is off by more than the choice of test images explains: by two errors of the residual."""
        return bool((abs(self.residuals) > 2 * self.errors + GRID * self.range).any())

    def at(self, budgets: NDArray[np.float64]) -> NDArray[np.float64]:
        """Its value at these C, nats; only where there is a limit."""
        assert self.limit is not None
        return self.limit - self.scale * budgets**-self.exponent


def power_law(budgets: NDArray[np.float64], values: NDArray[np.float64], seed: int = 0) -> PowerLaw | None:
    """The law that fits best by least squares, all budgets counting alike; None of fewer than three of them.

    Args:
        budgets: C, [K], in any unit, as FLOP.
        values: Of every test image at each budget, log p(x | h), log p(x) or their difference, [K, N] nats.
        seed: Of the bootstrap.
    """
    if len(np.unique(budgets)) < 3:
        return None
    n = values.shape[1]
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=NUM_RESAMPLES)  # [R, N] times
    means = np.vstack([values.mean(axis=1), drawn @ values.T / n])
    limit, scale, best = _fitted(budgets, means)
    off = means - limit[:, None] + scale[:, None] * (budgets / budgets.max()) ** -EXPONENTS[best, None]  # [R, K]
    bends, exponent = best > 0, EXPONENTS[best]
    limit = np.where(bends, limit, np.copysign(math.inf, scale))  # where a line goes
    low, high = np.quantile(limit[1:], (0.025, 0.975), method="nearest")
    found = float(limit[0]) if bends[0] else None
    return PowerLaw(
        found, float(low), float(high), float(scale[0] * budgets.max() ** exponent[0]), float(exponent[0]),
        off[0], off[1:].std(axis=0), float(np.ptp(means[0])),
    )  # fmt: skip


def _fitted(
    budgets: NDArray[np.float64], means: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.intp]]:
    """Of each curve, [R, K]: its limit, its scale at the largest budget, and the number of its exponent, all [R].

    The law is linear in limit and scale, so that of each exponent the best ones are known.
    """
    powers = (budgets / budgets.max()) ** -EXPONENTS[:, None]  # [E, K]
    centred = powers - powers.mean(axis=1, keepdims=True)
    from_mean = means - means.mean(axis=1, keepdims=True)
    slope = from_mean @ (centred / (centred**2).sum(axis=1, keepdims=True)).T  # [R, E]
    explained = slope**2 * (centred**2).sum(axis=1)  # of the squares, by each exponent
    # A flat curve, which every law explains, is at its limit: of the highest exponent.
    flat = abs(from_mean).max(axis=1) <= 1e-12 * abs(means).max(axis=1)
    best = np.where(flat, len(EXPONENTS) - 1, explained.argmax(axis=1))
    of_best = slope[np.arange(len(means)), best]
    return means.mean(axis=1) - of_best * powers.mean(axis=1)[best], -of_best, best


@dataclass(frozen=True, eq=False)
class Curve:
    """A mean over test images at several budgets.

    Attributes:
        name: Of the layer, or p(x).
        images: Seen in training, from the fewest on, [K].
        flop: Of the same trainings, [K].
        values: Of each test image at each budget, [K, N] nats.
    """

    name: str
    images: NDArray[np.int64]
    flop: NDArray[np.float64]
    values: NDArray[np.float64]

    @property
    def means(self) -> NDArray[np.float64]:
        """[K] nats."""
        return self.values.mean(axis=1)

    @property
    def errors(self) -> NDArray[np.float64]:
        """Their standard errors, [K] nats."""
        return np.array([mean_and_standard_error(torch.from_numpy(values))[1] for values in self.values])

    @cached_property
    def law(self) -> PowerLaw | None:
        return power_law(self.flop, self.values)

    @property
    def before(self) -> int | None:
        """The largest budget of at most a quarter of the last, up to rounding; None where there is none."""
        (enough,) = np.nonzero(self.images * FACTOR <= 1.1 * self.images[-1])
        return int(enough[-1]) if len(enough) else None

    @property
    def change(self) -> tuple[float, float] | None:
        """Of the mean since `before`, paired, with its standard error, nats; None where there is none before."""
        if self.before is None:
            return None
        return mean_and_standard_error(torch.from_numpy(self.values[-1] - self.values[self.before]))

    @property
    def verdict(self) -> Verdict | None:
        """As `has_settled`; None where no budget is a quarter of the last, and of one image, which has no error.

        What changed by less than the error over images is still moving where the paired change, which is known better,
        is more than two of its own errors, or where the power law does not bend.
        """
        if self.before is None or self.change is None or self.values.shape[1] < 2:
            return None
        if not has_settled(self.values[self.before], self.values[-1]):
            return "still moving"
        change, error = self.change
        unbent = self.law is not None and self.law.limit is None
        return "within its error, still moving" if abs(change) > 2 * error or unbent else "settled"


def has_settled(before: NDArray[np.float64], last: NDArray[np.float64]) -> bool:
    """Whether a mean changed by less than its standard error over the last factor of four, [N] nats of the same images.

    Never of one image, which has no error.
    """
    return bool(abs(last.mean() - before.mean()) < mean_and_standard_error(torch.from_numpy(last))[1])
