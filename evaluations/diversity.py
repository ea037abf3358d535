"""How diverse are draws, beside true images?"""

import torch
from torch import Tensor

COLLAPSED = 0.05  # of what true images have


def mean_pairwise_distance(images: Tensor) -> float:
    """The mean Euclidean distance of two different ones of N images [N, ...], N > 1, in their own units."""
    flat = images.double().flatten(1)
    return float(torch.nn.functional.pdist(flat).mean())


def diversity(draws: Tensor, images: Tensor) -> tuple[float, float | None]:
    """Mean pairwise distances in pixels of draws over those of the true images: of several h, and of one.

    Where the first is small, all h give one image, whatever they say; where the second is, all noise gives one image,
    which is right only for a layer that keeps everything.

    Args:
        draws: Of N images' h, N > 1, M each, [N, M, C, H, W].
        images: Those, [N, C, H, W], in the same units.

    Returns:
        That of one draw of each h; that of the draws of one h, the mean over h, and None where there is one of each.
    """
    true = mean_pairwise_distance(images)
    if not true:
        return 1.0, None  # there is nothing to compare with
    over_noise = [mean_pairwise_distance(of_one) for of_one in draws] if draws.shape[1] > 1 else []
    over_h = mean_pairwise_distance(draws[:, 0]) / true
    return over_h, sum(over_noise) / len(over_noise) / true if over_noise else None
