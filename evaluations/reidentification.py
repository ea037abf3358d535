"""Whose h is it? How often the right image is among the first k of N, from log p of every image with every h."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from evaluations.information import wilson_interval


class Accuracy(NamedTuple):
    """A share of images that are found, with its standard error and its 95 % interval."""

    share: float
    standard_error: float
    low: float
    high: float


def whose(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """How well each image i fits a given h_j, so that the images can be ranked, a row an h: [N, N] nats.

    It is ln p(x_i | h_j) - ln mean_j' p(x_i | h_j'). Scores of two images are not comparable as they are, for a plain
    image is likely whatever h says; what is taken off stands in for ln p(x_i), so that for the true densities this is
    ln p(h_j | x_i) - ln p(h_j), by which Bayes' rule ranks N equally likely images.

    Args:
        scores: ln p(x_i | h_j), h_j being of image j, [N, N] nats.
    """
    n = len(scores)
    return (scores - logsumexp(scores, axis=1, keepdims=True) + np.log(n)).T


def accuracy(scores: NDArray[np.float64], k: int) -> Accuracy:
    """How often the candidate i of row i is among the k highest of its row.

    Rows of `scores` are an image's with the h of all: it finds the h that is of an image (an attacker has one picture
    and N stored representations). Rows of `whose(scores)` are an h's with all images: it finds whose h it is (one
    representation leaked, and N pictures among which the one is). Both attackers have the trained inverter, and nothing
    of these images was trained on. It is what this attacker finds, and another one may find more: where the network is
    at hand too, h of every candidate can be computed and compared. So a high share proves a leak, a low one nothing.

    Equals are in a random order, whose expectation is taken: where all are equal it is exactly chance, k / N. The error
    and the interval, Wilson's, are those of N independent trials: two images that are taken for each other are wrong
    together, but that this adds little is tested.

    Raises:
        ValueError: There are fewer than 2 candidates, or some scores are NaN.
    """
    n = len(scores)
    if n < 2:
        raise ValueError(f"{n} image has no other to be told from; give at least 2")
    if np.isnan(scores).any():
        raise ValueError(f"{int(np.isnan(scores).any(axis=1).sum())} of {n} images have a score that is not a number")
    own = np.diagonal(scores)[:, None]
    num_above, num_equal = (scores > own).sum(axis=1), (scores == own).sum(axis=1)  # [N], itself among the equals
    share = float(((k - num_above) / num_equal).clip(0, 1).mean())
    return Accuracy(share, math.sqrt(share * (1 - share) / n), *wilson_interval(share, n))
