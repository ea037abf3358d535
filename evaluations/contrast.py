"""A lower bound of I(x; h) that holds for any model of p(x | h), by contrast with other images' h."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from evaluations.information import Estimate

NUM_RESAMPLES = 1000
NEAR_CEILING = 0.8  # of ln N, above which a bound says more of N than of h


def contrastive_bound(scores: NDArray[np.float64], seed: int = 0) -> Estimate:
    """The bound I_N = mean_i [ L(i, i) - ln mean_j exp L(i, j) ] (van den Oord et al. 2018; Poole et al. 2019, eq. 10).

    Over draws of N independent images E[I_N] <= I(x; h), whatever L is, as long as L does not depend on these images,
    and I_N <= ln N always. The mean over j has i in it: without, it would be no bound. What is added to all L(i, j) of
    an x_i changes nothing, so that a model need not be normalised, and p(x) is not needed.

    The error and the interval are the bootstrap's over images, an image being a row and its column. Drawn twice, an
    image is two positives and not its own negative: the N - 1 others of each are drawn from the other images, for with
    its own copies among them every resample would be lower by up to ln 2.

    Args:
        scores: L(i, j) = ln p(x_i | h_j), h_j being of image j, [N, N] nats. One with another's h may be -inf.
        seed: Of the bootstrap.

    Returns:
        I_N in nats.

    Raises:
        ValueError: N is less than 2, a score is NaN or +inf, or that of an image with its own h is not finite.
    """
    n, ceiling = len(scores), math.log(len(scores) or 1)
    if n < 2:
        raise ValueError(f"{n} image has no other to be told from; give at least 2")
    own = np.diagonal(scores)
    wrong = int((~np.isfinite(own) | (np.isnan(scores) | (scores == math.inf)).any(axis=1)).sum())
    if wrong:
        raise ValueError(
            f"ln p(x | h) of {wrong} of {n} images is not finite, so that there is no bound; train for longer or with "
            f"a lower learning rate, or, where it is -inf, give a likelihood that has all values of the images"
        )
    gains = scores - own[:, None]  # [N, N], 0 on the diagonal
    bound = min(float((ceiling - logsumexp(gains, axis=1)).mean()), ceiling)  # rounding
    np.fill_diagonal(gains, -math.inf)
    highest = gains.max(axis=1)
    highest[highest == -math.inf] = 0
    others = np.exp(gains - highest[:, None])  # [N, N]
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=NUM_RESAMPLES)  # [R, N] times
    num_others = np.maximum(n - drawn, 1)  # an image may be all that is drawn
    with np.errstate(divide="ignore"):  # or of the others none that could be taken for it
        against = highest + np.log((n - 1) * (drawn @ others.T) / num_others)  # [R, N]
    found = (drawn * (ceiling - np.logaddexp(0, against))).mean(axis=1)
    low, high = np.quantile(found, (0.025, 0.975))
    return Estimate(bound, float(found.std(ddof=1)), float(low), float(high))
