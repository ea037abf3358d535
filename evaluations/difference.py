"""How do two models p_A(x | h_A) and p_B(x | h_B) of the same images differ: in nats, in pairs and sets of images?"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor

from evaluations.distances import sample_distances
from evaluations.information import paired_difference
from evaluations.rows import Number, Row

NUM_PAIRS = 5  # that are listed each way
NUM_ALIKE = 6  # images of a set, the input with them


@dataclass(frozen=True, eq=False)
class Crossed:
    """log p of the same N images, and of M draws of each by A and by B, under A and under B: float64 nats.

    A draw is scored with h of the image that it was drawn for, which is the other layer's h of that image.

    Attributes:
        images: Under A and under B, [2, N].
        draws: Of A and of B, under A and under B, [2 (of whom), 2 (under whom), N, M].
    """

    images: Tensor
    draws: Tensor


@dataclass(frozen=True, kw_only=True)
class Nats(Row):
    """A mean over images in nats, its standard error, and the 95 % percentile bootstrap interval.

    Attributes:
        mean: None where it is infinite.
    """

    mean: float | None
    standard_error: Number
    low: Number
    high: Number


def divergence(of: int, found: Crossed) -> Nats:
    """KL of one's draws from the other, E_{x' ~ p_A(. | h_A)} [log p_A(x' | h_A) - log p_B(x' | h_B)], for `of` 0.

    Unbiased, for any two models: the draws are exact and both log p are, so that it is at least 0 but for the error of
    these draws, and 0 where both are one. It is of the models, and knows nothing of how well they fit.

    Where h_B is a function of h_A and both models are exact it is I(x; h_A | h_B), what is lost between the layers: p(x
    | h_A) = p(x | h_A, h_B) then, and E KL(p(x | h_A) || p(x | h_B)) is that information by definition. The paired
    difference of log p on data estimates the same: it is I(x; h_A | h_B) - KL(p || p_A) + KL(p || p_B). The other way
    round, KL(p_B || p_A) says how firmly A rules out what B allows. It is no information, and infinite for exact models
    of a network without noise.
    """
    return _nats(found.draws[of, of], found.draws[of, 1 - of])


def gap(of: int, by: int, found: Crossed) -> Nats:
    """How much less likely one finds draws than the images: E log p_A(x | h_A) - E log p_A(x' | h_A), x' of B.

    Here `of` is whose draws (1, B) and `by` who scores (0, A). Of one's own draws it is 0 where a model is calibrated
    (its cross-entropy on data is its entropy); where it is not, that is the model's own part in the gap of the others'.

    If h_B is a function of h_A and both are exact, it is I(x; h_A | h_B) + E KL(p(x | h_B) || p(x | h_A)): the draws
    have the entropy H(x | h_B), which is by I(x; h_A | h_B) above H(x | h_A). So it is at least what is lost, and as a
    rule much more. Of trained models nothing of the kind is proven.
    """
    return _nats(found.images[by][:, None], found.draws[of, by])


def _nats(a: Tensor, b: Tensor) -> Nats:
    """The mean of a - b, [N, 1 or M] nats; each image's draws first, for they are not independent."""
    each = (a.double() - b.double()).mean(1)
    if not each.isfinite().all():
        return Nats(mean=None, standard_error=math.nan, low=math.nan, high=math.nan)
    return Nats(**paired_difference(each, torch.zeros_like(each))._asdict())


def matching(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """The log odds, nats, with which a model tells whose of two h is whose, from L(i, j) = log p(x_i | h_j) [N, N].

    L(i, i) + L(j, j) - L(i, j) - L(j, i): of two images and their two representations, the log of how much likelier the
    right assignment is than the wrong one, where both are as likely beforehand. What is added to all L of an image, or
    of a representation, changes nothing. 0 where h_i = h_j: these are not told apart; below 0 the model is wrong.

    Returns:
        [N, N], symmetric, 0 on the diagonal; inf where an image cannot be with the other's h.
    """
    lost = np.diagonal(scores)[:, None] - scores  # of x_i with the h of x_j
    return np.asarray(lost + lost.T)


@dataclass(frozen=True, kw_only=True)
class Pair(Row):
    """Two images, and how well A and B tell them apart.

    Attributes:
        first, second: Their positions.
        a, b: `matching`, nats; None where it is infinite.
        rank_a, rank_b: The share of all pairs that each tells apart less well, from 0 to 1; ties count half.
    """

    first: int
    second: int
    a: float | None
    b: float | None
    rank_a: float
    rank_b: float


def told_apart(a: NDArray[np.float64], b: NDArray[np.float64], k: int = NUM_PAIRS) -> tuple[list[Pair], list[Pair]]:
    """The pairs that A tells apart and B does not, and those that B does and A does not, at most k each.

    Nats of two models have scales of their own: where all odds of one are ten times the other's, the largest
    difference is that of any two images. So pairs are sorted by the difference of ranks: A tells them apart better
    than half of all, and B worse than half. Where both order all pairs alike there are none.

    Args:
        a, b: `matching` of the same N images, [N, N].
        k: Of each.
    """
    rows, columns = np.triu_indices(len(a), 1)
    odds = [m[rows, columns] for m in (a, b)]
    of_a, of_b = ((rankdata(values) - 0.5) / len(values) for values in odds)
    found = []
    for more, less in ((of_a, of_b), (of_b, of_a)):
        order = np.argsort(less - more, kind="stable")[:k]
        found.append([
            Pair(
                first=int(rows[p]), second=int(columns[p]), a=_finite(odds[0][p]), b=_finite(odds[1][p]),
                rank_a=float(of_a[p]), rank_b=float(of_b[p]),
            ) for p in order if more[p] > 0.5 > less[p]
        ])  # fmt: skip
    return found[0], found[1]


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def share_matched(odds: NDArray[np.float64]) -> float:
    """The share of pairs whose right assignment is the likelier one; equal odds count half."""
    values = odds[np.triu_indices(len(odds), 1)]
    return float((values > 0).mean() + (values == 0).mean() / 2)


def most_different(images: Tensor, alike: Tensor, k: int = NUM_ALIKE) -> list[int]:
    """Images that are as far from one another in pixels as can be had, of those that a layer cannot tell apart.

    The input comes first, then again and again what is farthest from the nearest of those that are chosen (Gonzalez
    1985): their least distance is at least half that of the best such set.

    Args:
        images: uint8 [S, C, H, W], the input first.
        alike: Which may be chosen, bool [S].
        k: At most so many.

    Returns:
        Positions among them, 0 first.
    """
    chosen = [0]
    distance = _to(images, 0)
    while len(chosen) < k:
        open_ = torch.where(alike, distance, -1.0)
        open_[chosen] = -1
        best = int(open_.argmax())
        if open_[best] <= 0:  # nothing more, or what is there already
            break
        chosen.append(best)
        distance = torch.minimum(distance, _to(images, best))
    return chosen


def _to(images: Tensor, k: int) -> Tensor:
    """The distance of all to one, [S]."""
    return sample_distances(images[k][None], [images])[0]


def alike(images: Tensor, draws: Tensor, far: Tensor, by: int) -> tuple[Tensor, Tensor]:
    """Of each image a set of most different ones that a layer cannot tell apart: `most_different` of what is as near.

    As near means by h, to the input, as its nearest training image or nearer.

    Args:
        images: The inputs, uint8 [Q, C, H, W].
        draws: Of each, uint8 [Q, S, C, H, W].
        far: Their `ratios` by A and by B, [Q, S, 2].
        by: Whose layer it is: 0, A, or 1, B.

    Returns:
        The sets, uint8 [Q, K, C, H, W], the input first, with K = NUM_ALIKE; and far of them, float64 [Q, K, 2], nan
        where there are fewer.
    """
    sets = torch.zeros(len(images), NUM_ALIKE, *images.shape[1:], dtype=torch.uint8)
    distances = torch.full((len(images), NUM_ALIKE, 2), torch.nan, dtype=torch.float64)
    for q, image in enumerate(images):
        candidates, its = torch.cat([image[None], draws[q]]), torch.cat([far.new_zeros(1, 2), far[q]])
        chosen = most_different(candidates, its[:, by] <= 1)
        sets[q, : len(chosen)], distances[q, : len(chosen)] = candidates[chosen], its[chosen]
    return sets, distances


def ratios(h: Tensor, h_draws: Iterable[Tensor], one_nn: Tensor) -> Tensor:
    """How far draws are from their images in h, over the distance of the nearest training image, float64 [Q, S].

    Args:
        h: Of the images, [Q, ...].
        h_draws: Of S draws of each, [Q, S, ...], or image by image.
        one_nn: [Q]. Where it is 0, draws at 0 are at 1.
    """
    found = sample_distances(h, h_draws)
    ratio = found / one_nn.double()[:, None]
    return torch.where((found == 0) & (one_nn[:, None] == 0), 1.0, ratio)
