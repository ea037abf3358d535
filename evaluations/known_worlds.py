"""Is a measured p(x | h) the true one, where the truth is known?"""

import math

from torch import Tensor

from evaluations.information import mean_and_standard_error
from evaluations.results import WorldResult


def compared(
    exact_log_prob: Tensor, log_prob: Tensor, entropy: float, must_fail: bool = False, information: float | None = None
) -> WorldResult:
    """A model beside the truth on the same test images: the excess is the mean of log p - log q.

    It passes where -4 standard errors <= excess <= 0.02 H(x). Below that is a leak: the model knows what it cannot.
    Both are log p(x | h), [N] nats, entropy and information are H(x) and I(x; h), nats. A negative control must
    fail.
    """
    excess, error = mean_and_standard_error(exact_log_prob.double() - log_prob.double())
    return WorldResult(
        entropy_nats=entropy,
        exact_nce_nats=exact_log_prob.mean().item(),
        excess_nats=excess,
        excess_nats_se=error,
        passes=-4 * error <= excess <= 0.02 * entropy,
        must_fail=must_fail,
        information_nats=information,
    )


def information_alone(information: float | None) -> WorldResult:
    """Of a world that knows I(x; h), nats, and not log p(x | h): only a difference of two runs can be compared."""
    return WorldResult(
        entropy_nats=math.nan, exact_nce_nats=math.nan, excess_nats=math.nan, excess_nats_se=math.nan, passes=None,
        must_fail=False, information_nats=information,
    )  # fmt: skip
