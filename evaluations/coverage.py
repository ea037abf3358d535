"""Do draws reach all that they may be, where the truth is a list of images?"""

import torch
from torch import Tensor


def covered(draws: Tensor, truth: Tensor) -> float:
    """The share of the true images that some draw is: 1 of a distribution that leaves none out, 0 of a mean of them.

    A draw is a true image where its Euclidean distance to it is below half of the smallest between two true images, so
    that it can be one of them at most, and the mean of two is neither. So are modes counted in the literature of GANs,
    by a distance from each (Srivastava et al. 2017, VEEGAN; Lin et al. 2018, PacGAN); differs: theirs is in standard
    deviations, and these modes have none. How sharp a draw is beyond that is no matter of coverage.

    Args:
        draws: Of one h, [N, C, H, W].
        truth: Every image of this h, at least two and all different, [P, C, H, W].

    Returns:
        From 0 to 1. With N draws of all P at random 1 - (1 - 1/P)^N are expected, 0.9997 for 512 of 64.
    """
    return _which(draws, truth).any(dim=1).double().mean().item()


def valid(draws: Tensor, truth: Tensor) -> float:
    """The share of the draws that are true images, in the sense of `covered`, of which the arguments are."""
    return _which(draws, truth).any(dim=0).double().mean().item()


def _which(draws: Tensor, truth: Tensor) -> Tensor:
    """Whether a true image is a draw, bool [P, N]."""
    drawn, true = draws.double().flatten(1), truth.double().flatten(1)
    return torch.cdist(true, drawn) < torch.pdist(true).min() / 2
