"""How much do the draws of one representation differ, beside true images of one class?"""

import math

import numpy as np
import torch
from scipy.spatial.distance import pdist, squareform
from torch import Tensor

from evaluations.distances import as_rows

COLLAPSED = 0.05  # below this share of the true images' distances, draws are as good as one


def pairwise_distances(draws: Tensor) -> np.ndarray:
    """The mean distance of two of the S draws [M, S, ...] of each image: float64 [M]; 0 where S is 1."""
    if draws.shape[1] < 2:
        return np.zeros(len(draws))
    return np.array([pdist(rows, "cityblock").mean() / rows.shape[1] for rows in map(as_rows, draws)])


def diversity(draws: Tensor, real: Tensor, classes: Tensor, of: Tensor | None = None) -> tuple[float, float]:
    """The mean distance of two draws of one image, over that of two true images of one class.

    0 where all draws of an image are the same, and 1 where they differ as much as true images of a class do. Distances
    are the mean absolute difference per pixel, or per unit of h (`evaluations.distances`).

    Args:
        draws: Of M images, or their h, [M, S, ...].
        real: True images, or their h, [N, ...].
        classes: Of these, [N].
        of: The classes of the M images: each is compared with true images of its own. Where there are not two of its
            class, it is left out. By default all are compared with what the true images give on average.

    Returns:
        The ratio, and its standard error over the M images and the N true ones; nan where nothing can be compared.
    """
    rows, labels = as_rows(real), classes.cpu().numpy()
    means, variances = {}, {}  # of the distance of two, by class, and of the error of that
    for label in np.unique(labels):
        its = rows[labels == label]
        if len(its) > 1:
            each = squareform(pdist(its, "cityblock")).sum(1) / (its.shape[1] * (len(its) - 1))
            # The first term of the variance of a U-statistic of pairs (Hoeffding 1948).
            means[label], variances[label] = each.mean(), 4 * each.var(ddof=1) / len(its)
    kept = np.ones(len(draws), bool) if of is None else np.isin(of.cpu().numpy(), list(means))
    if not means or not kept.any():
        return math.nan, math.nan
    mine = pairwise_distances(draws[kept])
    if of is None:
        shares = {label: float((labels == label).sum()) for label in means}
        theirs = np.full(len(mine), sum(shares[label] * means[label] for label in means) / sum(shares.values()))
    else:
        own = of.cpu().numpy()[kept]
        shares = {label: float((own == label).sum()) for label in means}
        theirs = np.array([means[label] for label in own])
    if not theirs.mean() > 0:  # true images that are all the same
        return math.nan, math.nan
    ratio = mine.mean() / theirs.mean()
    if len(mine) < 2:
        return float(ratio), math.nan
    of_draws = (mine - ratio * theirs).var(ddof=1) / len(mine)
    of_real = sum((shares[label] / sum(shares.values())) ** 2 * variances[label] for label in means)
    return float(ratio), float(np.sqrt(of_draws + ratio**2 * of_real) / theirs.mean())


def spreads(draws: Tensor, images: Tensor) -> tuple[float | None, float | None]:
    """The `diversity` in pixels of draws of several h, and of one, where all true images are as of one class.

    Where the first is small, all h give one image, whatever they say; where the second is, all noise gives one image,
    which is right only for a layer that keeps everything.

    Args:
        draws: Of N images' h, N > 1, M each, [N, M, C, H, W].
        images: Those, [N, C, H, W], in the same units.

    Returns:
        That of one draw of each h; that of the draws of one h, None where there is one of each. Both None where the
        true images are all the same, and there is nothing to compare with.
    """
    one_class = torch.zeros(len(images))
    over_h, _ = diversity(draws[:, 0][None], images, one_class)
    over_noise, _ = diversity(draws, images, one_class) if draws.shape[1] > 1 else (math.nan, math.nan)
    return (None if math.isnan(over_h) else over_h, None if math.isnan(over_noise) else over_noise)
