"""Other estimators of what a layer keeps, for comparison: binning, kernel density, nearest neighbours.

Each takes raw h of N images, [N, ...], and no other knowledge; none says what of x is kept.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.special import digamma, gammaln
from scipy.stats import entropy, norm
from sklearn.metrics import pairwise_distances_chunked
from torch import Tensor

from evaluations.distances import as_rows
from evaluations.measurements import EstimatorResult

NUM_BINS = 30  # Shwartz-Ziv and Tishby (2017)
RELATIVE_NOISE = 0.1  # standard deviation of the noise of the kernel density bounds, over that of a unit of the layer
NUM_NEIGHBOURS = 3
SMALLEST = 1e-10  # added to a neighbour's distance, in the units of h
DISTANCES_MEGABYTES = 128  # of distances between images at once
DIMENSIONS = (1, 2, 4, 8, 16, 32, 64, 128, 256)  # in which estimates stand beside the truth


class Breakdown(NamedTuple):
    """An estimate beside the truth, nats, for so many samples of so many independent normal variables."""

    estimator: str
    dimension: int
    num_samples: int
    estimate_nats: float
    truth_nats: float


def binned_information(h: Tensor, num_bins: int = NUM_BINS) -> float:
    """I(x; binned h) = H(binned h), nats, by counting patterns (Nash et al. 2019, eq. 12; Shwartz-Ziv and Tishby 2017).

    Bins are equally wide between each unit's own smallest and largest value, so that they fit unbounded activations.
    A constant unit has one. It can be no more than ln N, which it reaches as soon as all patterns differ.
    """
    flat = as_rows(h)
    low, high = flat.min(0), flat.max(0)
    scaled = flat - low  # [N, D], many numbers: the rest is done in place
    scaled *= num_bins / np.where(high > low, high - low, 1)
    np.minimum(scaled, num_bins - 1, out=scaled)
    bins = scaled.astype(np.min_scalar_type(num_bins - 1))
    _, counts = np.unique(bins, axis=0, return_counts=True)
    return float(entropy(counts))


def kernel_density_bounds(h: Tensor, noise_variance: float) -> tuple[float, float]:
    """Lower and upper bound on I(x; h + noise), nats, for N equally likely images (Kolchinsky and Tracey 2017).

    p(h + noise) is a mixture of N Gaussians, and its entropy less that of the noise lies between
    -mean_i ln mean_j exp(-D(i, j)) for D the Bhattacharyya distance, |h_i - h_j|^2 / 8 variance, and for D the
    Kullback-Leibler divergence, |h_i - h_j|^2 / 2 variance: the kernel density estimate of Nash et al. 2019, eq. 2.
    Both are between 0 and ln N, whatever is true of images beyond these. The noise is Gaussian, on every unit.
    """
    log_densities = [  # ln sum_j exp(-D(i, j)) for both divergences, [N, 2]; at least 0, as D(i, i) is 0
        np.log(np.column_stack([np.exp(squares / (-factor * noise_variance)).sum(axis=1) for factor in (8, 2)]))
        for _, squares in _over_distances(as_rows(h))
    ]
    found = np.concatenate(log_densities)
    lower, upper = (math.log(len(found)) - found.mean(axis=0)).clip(min=0)  # rounding
    return float(lower), float(upper)


def nearest_neighbour_entropy(h: Tensor, k: int = NUM_NEIGHBOURS) -> float:
    """Differential entropy of h, nats, from distances to the k-th neighbour (Nash et al. 2019, eq. 13-14).

    The estimator of Kozachenko and Leonenko, as in Kraskov et al. 2004. It depends on the scale of h, and may be
    negative. For a deterministic network I(x; h) of continuous x is infinite; the entropy takes its place there.

    Units that are the same for all images are left out; where no unit varies, h is a point, and its entropy 0. A layer
    of ReLU units has no differential entropy, for each is exactly 0 for many images: what is returned then says how far
    apart the images lie, and no more.

    Where more than k images collide, as where all units of a ReLU layer are off, their distance is 0 and the entropy
    minus infinity; SMALLEST, the epsilon of eq. 13, keeps it finite and very low, and then decides the result.

    Raises:
        ValueError: k is not less than N.
    """
    flat = as_rows(h)
    if k >= len(flat):
        raise ValueError(f"no neighbour number {k} among {len(flat)} images; give at least {k + 1} images")
    d = _num_varying(flat)
    if d == 0:
        return 0.0
    distances = []
    for rows, squares in _over_distances(flat):
        neighbours = squares.argpartition(k, axis=1)[:, k]  # a row itself comes first
        distances.append(np.linalg.norm(rows - flat[neighbours], axis=1))  # exactly, so that equals are at 0
    unit_ball = d / 2 * math.log(math.pi) - gammaln(d / 2 + 1)
    return float(d * np.log(np.concatenate(distances) + SMALLEST).mean() + unit_ball + digamma(len(flat)) - digamma(k))


def all_estimates(h: Tensor, network_digest: str) -> list[EstimatorResult]:
    """What each says of a layer's raw h [N, ...], with the ceiling that an estimate cannot exceed.

    The noise of the kernel density bounds is a tenth of the layer's standard deviation, so that they are free of scale.

    Raises:
        ValueError: N is not more than NUM_NEIGHBOURS.
    """
    flat = as_rows(h)
    variance = RELATIVE_NOISE**2 * float(flat.var(axis=0).mean())
    lower, upper = kernel_density_bounds(h, variance or 1.0)  # the same h for all is one point, under any noise
    noise, ceiling = {"noise_variance": variance}, math.log(len(flat))
    neighbour = {"k": NUM_NEIGHBOURS, "smallest": SMALLEST, "num_units": _num_varying(flat)}
    estimates: list[tuple[str, float, float | None, dict[str, float]]] = [
        ("binning, I(x; binned h)", binned_information(h), ceiling, {"num_bins": NUM_BINS}),
        ("kernel density, lower bound on I(x; h + noise)", lower, ceiling, noise),
        ("kernel density, upper bound on I(x; h + noise)", upper, ceiling, noise),
        ("nearest neighbours, differential entropy of h", nearest_neighbour_entropy(h), None, neighbour),
    ]
    return [
        EstimatorResult(
            estimator=name, estimate_nats=estimate, ceiling_nats=most, parameters=parameters, num_images=len(flat),
            network_digest=network_digest,
        )
        for name, estimate, most, parameters in estimates
    ]  # fmt: skip


def breakdown(dimensions: Sequence[int] = DIMENSIONS, num_samples: int = 2000) -> list[Breakdown]:
    """Estimates beside the truth, nats, as the dimension d of h grows and the number of samples does not.

    All are asked of d standard normal variables, with the settings of `all_estimates`. The truth for binning is the sum
    of the units' own entropies in the same bins; for the kernel density bounds, the capacity of d Gaussian channels,
    d/2 ln(1 + 1 / variance of the noise); for nearest neighbours, d/2 ln(2 pi e).
    """
    variance = RELATIVE_NOISE**2
    generator = torch.Generator().manual_seed(0)
    rows = []
    for d in dimensions:
        h = torch.randn(num_samples, d, generator=generator, dtype=torch.float64)
        edges = np.linspace(h.amin(0).numpy(), h.amax(0).numpy(), NUM_BINS + 1)  # [bins + 1, d]
        of_bins = float(entropy(np.diff(norm.cdf(edges), axis=0)).sum())
        of_channels = d / 2 * math.log(1 + 1 / variance)
        lower, upper = kernel_density_bounds(h, variance)
        of_normal = d / 2 * math.log(2 * math.pi * math.e)
        rows += [
            Breakdown("binning", d, num_samples, binned_information(h), of_bins),
            Breakdown("kernel density, lower", d, num_samples, lower, of_channels),
            Breakdown("kernel density, upper", d, num_samples, upper, of_channels),
            Breakdown("nearest neighbours", d, num_samples, nearest_neighbour_entropy(h), of_normal),
        ]
    return rows


def breaks_down_at(rows: Sequence[Breakdown], estimator: str) -> int | None:
    """The smallest dimension from which on an estimator is always more than a nat off; None if it is not.

    A share of the truth would depend on the units of h, where that is a differential entropy.
    """
    found = None
    for row in sorted((row for row in rows if row.estimator == estimator), key=lambda row: row.dimension):
        found = (found or row.dimension) if abs(row.estimate_nats - row.truth_nats) > 1 else None
    return found


def _over_distances(flat: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Some rows after others, [n, D], with their squared distances to all rows, [n, N]."""
    start, centred = 0, flat - flat.mean(axis=0)  # as |a|^2 + |b|^2 - 2 a.b loses what is small beside |a|^2
    for squares in pairwise_distances_chunked(centred, squared=True, working_memory=DISTANCES_MEGABYTES):
        yield flat[start : start + len(squares)], squares
        start += len(squares)


def _num_varying(flat: np.ndarray) -> int:
    """How many units are not the same for all images."""
    return int((flat != flat[0]).any(axis=0).sum())
