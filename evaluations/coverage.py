"""Do draws reach all that they may be, where the truth is a list of images?"""

from torch import Tensor


def covered(draws: Tensor, truth: Tensor, tolerance: float = 0.0) -> float:
    """The share of the true images that some draw is: 1 of a distribution that leaves none out, 0 of a mean of them.

    Args:
        draws: Of one h, [N, C, H, W].
        truth: Every image of this h, [P, C, H, W].
        tolerance: A draw is a true image where no pixel is further away from its own; half of the step between two
            levels, so that a pixel is that level which it is nearest to.

    Returns:
        From 0 to 1. With N draws of all P at random 1 - (1 - 1/P)^N are expected, 0.9997 for 512 of 64.
    """
    drawn, true = draws.double().flatten(1), truth.double().flatten(1)
    off = (true[:, None] - drawn).abs().amax(dim=2)  # [P, N]
    return float((off <= tolerance).any(dim=1).double().mean())


def valid(draws: Tensor, truth: Tensor, tolerance: float = 0.0) -> float:
    """The share of the draws that are true images, in the sense of `covered`."""
    return covered(truth, draws, tolerance)
