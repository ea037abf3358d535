"""L1 distances between representations: neighbours, Table 1 of Nash et al. 2019, and what a layer does not see.

A distance is the mean absolute difference per unit, of raw h or of pixels, in the units of either, taken in float64.
"""

from typing import NamedTuple

import numpy as np
import torch
from scipy.spatial.distance import cdist
from torch import Tensor
from tqdm import tqdm

from evaluations.information import mean_and_standard_error, ratio_of_means


class RepresentationDistances(NamedTuple):
    """One column of Table 1: means over test images, each with its standard error; `_asdict()` is a row for JSON.

    The ratios to 1NN do not depend on the arbitrary scale of h. Their standard errors are the delta method's for the
    ratio of two paired means.
    """

    num_images: int
    num_samples: int
    one_nn: float
    one_nn_se: float
    im_s: float
    im_s_se: float
    im_nn: float
    im_nn_se: float
    im_s_ratio: float
    im_s_ratio_se: float
    im_nn_ratio: float
    im_nn_ratio_se: float
    unit: str = "mean absolute difference per unit"


class DifferentSamples(NamedTuple):
    """Samples by falling distance to the input in pixels: K of them, as many as there were up to those asked for.

    indices: Among all samples, int64 [K].
    pixel_distances: To the input, in levels of 0 to 255, [K].
    distances: Of their representations to the input's, [K].
    """

    indices: Tensor
    pixel_distances: Tensor
    distances: Tensor


def nearest(
    queries: Tensor,
    rows: Tensor | np.ndarray,
    k: int,
    progress: str = "nearest neighbours",
    chunk_bytes: int = 2**22,
) -> tuple[Tensor, Tensor]:
    """The k rows nearest to each query, nearest first, by exhaustive search; of equally near ones the first.

    The rows are read once, a chunk at a time, so they may lie on disk. Memory is that of the queries in float64 and a
    few times `chunk_bytes`, however many rows there are.

    Args:
        queries: [M, ...], of any type.
        rows: [N, ...] of the same shape but for N, of any type; a memory-mapped array of a training set's h, say.
        k: At most N.
        progress: The title of the bar that shows where the search takes more than 5 seconds.
        chunk_bytes: Of one chunk of rows, and of its distances to the queries, in float64.

    Returns:
        Distances float64 [M, k] and positions among the rows int64 [M, k].

    Raises:
        ValueError: k is more than N.
    """
    if k > len(rows):
        raise ValueError(f"k is {k} and there are only {len(rows)} rows to be near; take a k of at most {len(rows)}")
    flat = as_rows(queries)  # [M, D]
    size = max(1, chunk_bytes // (8 * max(flat.shape)))
    distances = torch.empty(len(flat), 0, dtype=torch.float64)
    indices = torch.empty(len(flat), 0, dtype=torch.int64)
    for start in tqdm(range(0, len(rows), size), progress, unit="chunk", delay=5, leave=False):
        found = _distances(flat, as_rows(rows[start : start + size]))  # [M, size]
        found_indices = torch.arange(start, start + found.shape[1]).expand_as(found)
        # Stable, with the earlier rows ahead: of equals the first stays.
        distances, order = torch.cat([distances, found], 1).sort(dim=1, stable=True)
        distances, order = distances[:, :k].clone(), order[:, :k]
        indices = torch.cat([indices, found_indices], 1).gather(1, order)
    return distances, indices


def closest_samples(x: Tensor, samples: Tensor, k: int = 6) -> tuple[Tensor, Tensor]:
    """The k samples that are nearest to one input, nearest first (Nash et al. 2019, fig 2, takes 6 of 1024 in fc3).

    Args:
        x: The raw h of the input [...], or the image itself, for neighbours in pixels.
        samples: The same of its samples, [S, ...].
        k: At most S.

    Returns:
        Distances float64 [k] and positions among the samples int64 [k].

    Raises:
        ValueError: k is more than S.
    """
    distances, indices = nearest(x[None], samples, k)
    return distances[0], indices[0]


def sample_distances(h: Tensor, h_samples: Tensor) -> Tensor:
    """Of each image to each of its own samples, float64 [M, S].

    Args:
        h: Raw h of M images, [M, ...].
        h_samples: Raw h of S samples of each, [M, S, ...].
    """
    return torch.cat([_distances(as_rows(one[None]), as_rows(its)) for one, its in zip(h, h_samples, strict=True)])


def representation_distances(one_nn: Tensor, samples: Tensor) -> RepresentationDistances:
    """One column of Table 1 (Nash et al. 2019): how near samples come, beside the nearest training image.

    1NN is the distance to the nearest training image, IM-S that to a random sample, IM-NN that to the closest of an
    image's S samples (10 in the paper). All are averaged over images. IM-NN falls as S rises; IM-S does not.

    differs: IM-S is the mean over all S samples of an image where the paper takes one at random, because the
    expectation is the same and the noise less.

    Args:
        one_nn: Of each image to its nearest training image, [M], from `nearest`.
        samples: Of each image to each of its samples, [M, S], from `sample_distances`.
    """
    one_nn, samples = one_nn.double(), samples.double()
    im_s, im_nn = samples.mean(1), samples.amin(1)
    return RepresentationDistances(
        len(samples),
        samples.shape[1],
        *mean_and_standard_error(one_nn),
        *mean_and_standard_error(im_s),
        *mean_and_standard_error(im_nn),
        *ratio_of_means(im_s, one_nn),
        *ratio_of_means(im_nn, one_nn),
    )


def most_different_samples(
    image: Tensor, samples: Tensor, h: Tensor, h_samples: Tensor, radius: float, k: int
) -> DifferentSamples:
    """What a layer is most blind to: of the samples within a radius of h, the k that differ most in pixels.

    There are fewer than k, or none, where fewer lie within the radius.

    Args:
        image: The input, uint8 [C, H, W].
        samples: Drawn for it, uint8 [S, C, H, W].
        h: Raw h of the input, [...].
        h_samples: Raw h of the samples, [S, ...].
        radius: The distance of h to the nearest training image's; samples at this distance count.
        k: How many.
    """
    (distances,) = sample_distances(h[None], h_samples[None])
    (pixel_distances,) = sample_distances(image[None], samples[None])
    order = pixel_distances.argsort(descending=True, stable=True)
    indices = order[distances[order] <= radius][:k]
    return DifferentSamples(indices, pixel_distances[indices], distances[indices])


def as_rows(values: Tensor | np.ndarray) -> np.ndarray:
    """[N, ...] of any type as float64 [N, D]."""
    array = values.double().numpy(force=True) if isinstance(values, Tensor) else np.asarray(values, dtype=np.float64)
    return array.reshape(len(array), -1)


def _distances(a: np.ndarray, b: np.ndarray) -> Tensor:
    """[M, D], [N, D] -> [M, N]. SciPy's is exact to float64, and twice as fast as torch.cdist(p=1) in float32."""
    return torch.from_numpy(cdist(a, b, "cityblock") / a.shape[1])
