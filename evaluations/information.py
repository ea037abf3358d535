"""What the log-probabilities of a test set say: means, differences and maps, in nats, with their errors."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import bootstrap
from torch import Tensor

NUM_RESAMPLES = 2000
NORMAL_975 = NormalDist().inv_cdf(0.975)


class Estimate(NamedTuple):
    """A mean over images with its standard error, and the 95 % percentile bootstrap interval over the same images."""

    mean: float
    standard_error: float
    low: float
    high: float


def mean_and_standard_error(values: Tensor) -> tuple[float, float]:
    """The mean of [N] values, and its standard error; nan for the latter where N is 1."""
    values = values.double()
    return values.mean().item(), (values.std() / math.sqrt(len(values))).item() if len(values) > 1 else math.nan


def wilson_interval(share: float, num_trials: float) -> tuple[float, float]:
    """The 95 % interval of a probability, from the share of so many independent trials that came out (Wilson 1927).

    Unlike a standard error it does not shrink to nothing where all came out, or none.
    """
    centre = share + NORMAL_975**2 / (2 * num_trials)
    half = NORMAL_975 * math.sqrt(share * (1 - share) / num_trials + (NORMAL_975 / (2 * num_trials)) ** 2)
    scale = 1 + NORMAL_975**2 / num_trials
    return max((centre - half) / scale, 0.0), min((centre + half) / scale, 1.0)


def ratio_of_means(a: Tensor, b: Tensor) -> tuple[float, float]:
    """mean(a) / mean(b) of [N] paired values, and the delta method's standard error."""
    a, b = a.double(), b.double()
    ratio = a.mean() / b.mean()
    _, error = mean_and_standard_error((a - ratio * b) / b.mean())
    return ratio.item(), error


def paired_difference(a: Tensor, b: Tensor, seed: int = 0) -> Estimate:
    """The mean of a - b, paired: what the images have in common cancels.

    Both are [N] nats, log p of the same images in the same order, each under one model; the seed is the bootstrap's.
    """
    difference = a.double() - b.double()
    interval = _interval(lambda d, axis: d.mean(axis), (difference,), seed)
    return Estimate(*mean_and_standard_error(difference), *interval)


def information_estimate(log_prob_given_h: Tensor, log_prob: Tensor) -> Estimate:
    """Estimate I(x; h) from two models' log-probabilities of the same images (Nash et al. 2019, section 4.1).

    An estimate, not a bound: E[log q(x | h) - log q(x)] = I(x; h) - KL of the conditional + KL of the unconditional
    model, so a poor q(x) inflates it. Arguments are as for `paired_difference`.
    """
    return paired_difference(log_prob_given_h, log_prob)


def relative_nce(log_prob: Tensor, reference: Tensor) -> Estimate:
    """NCE / abs(NCE of a reference layer) (Nash et al. 2019, fig 5a takes the first).

    The standard error is the delta method's. Arguments are as for `paired_difference`.
    """
    a, b = log_prob.double(), reference.double()
    ratio, error = ratio_of_means(a, b * b.mean().sign())
    interval = _interval(lambda x, y, axis: x.mean(axis) / abs(y.mean(axis)), (a, b))
    return Estimate(ratio, error, *interval)


def data_processing_rises(
    log_probs: Mapping[str, Tensor], pairs: Iterable[tuple[str, str]]
) -> dict[tuple[str, str], Estimate]:
    """By how much NCE rises, nats, from an (earlier, later) layer to a function of it, where it does.

    I(x; h) cannot rise (the data processing inequality), so there the earlier layer's inverter is too weak.

    Args:
        log_probs: [N] nats each, of the same images in the same order.
        pairs: Layers with a function of theirs; of any other two, as of branches beside each other, it says nothing.
    """
    differences = {pair: paired_difference(log_probs[pair[1]], log_probs[pair[0]]) for pair in pairs}
    return {pair: difference for pair, difference in differences.items() if is_rise(difference)}


def is_rise(difference: Estimate) -> bool:
    """Whether it is above 0 by more than two paired standard errors."""
    return difference.mean > 2 * difference.standard_error


def information_map(per_pixel_given_h: Tensor, per_pixel: Tensor) -> Tensor:
    """Where h informs: log p(x_i | x_<i, h) - log p(x_i | x_<i) of every pixel, [N, H, W] nats.

    By the chain rule it sums to log p(x | h) - log p(x) of each image, and its mean over images to the estimate of
    I(x; h). A pixel's value is what h adds to the pixels before it in raster order, so the map is a map of where
    information enters in that order, and not of the whole that h knows about a pixel.
    """
    return per_pixel_given_h.double() - per_pixel.double()


def rows_below(maps: Tensor) -> dict[int, float]:
    """Of maps [N, H, W] the rows, with their means, that are below 0 by more than two errors: p(x) is better there."""
    found = map(mean_and_standard_error, maps.sum(dim=2).unbind(dim=1))
    return {row: mean for row, (mean, error) in enumerate(found) if mean < -2 * error}


def selected_by_row(maps: Tensor) -> Tensor:
    """The maps [N, H, W] of a better model, which is in each row of pixels the better of p(x | h) and p(x).

    Row by row p(x_row | rows above, h) or p(x_row | rows above), whichever is taken, makes a density of x given h, if
    the image itself does not choose. Here images with even numbers choose for those with odd ones, and these for them,
    by the mean over each half. So of independent images, some dozens at least, chance gains nothing, and p(x)'s NCE and
    the mean map's sum are no more than -H(x | h) on average, as any model's NCE.

    It mends rows in which p(x | h) is the worse model, and none in which p(x) is, so that as an estimate of I(x; h) it
    lies above the plain one: by 0.4 nats between trainings of p(x) that know no h. A mixture of the two, of which each
    makes up for the other's errors, does so by more. An error over its images takes the choice as given, and is too
    small where many rows are near 0.

    Raises:
        ValueError: There is one image, and none to choose for it.
    """
    if len(maps) < 2:
        raise ValueError(f"the rows of an image are chosen by others, and there is {len(maps)} image; give more")
    rows = maps.double().sum(dim=2)
    helps = torch.stack((rows[1::2].mean(dim=0) > 0, rows[::2].mean(dim=0) > 0))  # of the even and of the odd
    return torch.where(helps[torch.arange(len(maps)) % 2, :, None], maps, 0)


@dataclass(frozen=True, eq=False)
class Information:
    """An estimate of I(x; h), and where it comes from: all in nats.

    Attributes:
        nats: The estimate.
        standard_error: Its own, over images.
        low: Of its 95 % bootstrap interval, as is the next.
        high: See above.
        per_image: log p(x | h) - log p(x), float64 [N], whose mean is the estimate.
        maps: The same at each pixel (`information_map`), float64 [N, H, W], whose sums are those of `per_image`; None
            where one of the models does not go pixel by pixel.
    """

    nats: float
    standard_error: float
    low: float
    high: float
    per_image: Tensor
    maps: Tensor | None

    @property
    def map(self) -> Tensor | None:
        """The mean of the maps, [H, W], which sums to the estimate."""
        return None if self.maps is None else self.maps.mean(dim=0)

    def selected_by_row(self) -> "Information":
        """The same of the model that is in each row the better of the two, as `selected_by_row` says.

        Raises:
            ValueError: There are no maps, or there is one image.
        """
        if self.maps is None:
            raise ValueError("one of the two models has no log p of single pixels, by which rows would be chosen")
        maps = selected_by_row(self.maps)
        per_image = maps.sum((1, 2))
        return Information(*paired_difference(per_image, torch.zeros_like(per_image)), per_image, maps)

    def __repr__(self) -> str:
        interval = f"95 % interval {self.low:.2f} to {self.high:.2f}, {len(self.per_image)} images"
        return f"{self.nats:.2f} nats (standard error {self.standard_error:.2f}, {interval})"


def information(
    log_prob_given_h: Tensor, log_prob: Tensor, per_pixel_given_h: Tensor | None, per_pixel: Tensor | None
) -> Information:
    """What `information_estimate` and `information_map` say, [N] and [N, H, W] nats of the same images.

    Raises:
        ValueError: A log-probability is not finite.
    """
    per_image = log_prob_given_h.double() - log_prob.double()
    if not per_image.isfinite().all():
        raise ValueError(
            f"log p of {int((~per_image.isfinite()).sum())} of {len(per_image)} images is not finite, so that there is "
            f"no estimate; leave them out, or train a model whose likelihood has all values of the images"
        )
    maps = None
    if per_pixel_given_h is not None and per_pixel is not None:
        maps = information_map(per_pixel_given_h, per_pixel)
    return Information(*information_estimate(log_prob_given_h, log_prob), per_image, maps)


def _interval(statistic: object, samples: tuple[Tensor, ...], seed: int = 0) -> tuple[float, float]:
    """The 95 % percentile bootstrap interval of a statistic of paired samples."""
    values = tuple(sample.numpy() for sample in samples)
    if len(values[0]) < 2:
        return math.nan, math.nan
    found = bootstrap(
        values, statistic, n_resamples=NUM_RESAMPLES, batch=100, paired=True, vectorized=True, method="percentile",
        rng=np.random.default_rng(seed),
    )  # fmt: skip
    return float(found.confidence_interval.low), float(found.confidence_interval.high)
