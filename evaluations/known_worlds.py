"""Is a measured p(x | h) the true one, where the truth is known?"""

from typing import NamedTuple

from torch import Tensor

from evaluations.information import mean_and_standard_error


class Score(NamedTuple):
    """The mean excess of log p - log q over images and its standard error, nats, and whether it may be so."""

    excess: float
    standard_error: float
    passes: bool


def score(exact_log_prob: Tensor, log_prob: Tensor, entropy: float) -> Score:
    """Compare a model with the truth on the same test images.

    It passes where -4 standard errors <= excess <= 0.02 H(x). Below that is a leak: the model knows what it cannot.

    Args:
        exact_log_prob: log p(x | h), [N] nats.
        log_prob: The model's, [N] nats.
        entropy: H(x), nats.
    """
    excess, error = mean_and_standard_error(exact_log_prob.double() - log_prob.double())
    return Score(excess, error, -4 * error <= excess <= 0.02 * entropy)
