"""L1 distances between representations: neighbours, table 1 of Nash et al. 2019, and what a layer does not see.

A distance is the mean absolute difference per unit, of raw h or of pixels, in the units of either, taken in float64.
"""

import math
from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
import torch
from scipy.spatial.distance import cdist
from torch import Tensor
from tqdm import tqdm

from evaluations.information import mean_and_standard_error, ratio_of_means, wilson_interval

NUM_SHOWN = 6  # of each kind beside an input (Nash et al. 2019, fig 2)


def nearest(
    queries: Tensor, rows: Tensor | np.ndarray, k: int, chunk_bytes: int | None = None
) -> tuple[Tensor, Tensor]:
    """The k rows nearest to each query, nearest first, by exhaustive search; of equally near ones the first.

    The rows are read once, a chunk at a time, so they may lie on disk. The search is on the queries' device, where it
    takes the memory of the queries in float64 and a few times `chunk_bytes`, however many rows there are.

    Args:
        queries: [M, ...], of any type.
        rows: [N, ...], of any type; a memory-mapped array of a training set's h, say.
        k: At most N.
        chunk_bytes: Of one chunk of rows, and of its distances to the queries, in float64. By default 4 MiB, which a
            CPU's caches hold, and 128 MiB on a GPU.

    Returns:
        On the CPU: distances float64 [M, k] and positions among the rows int64 [M, k].

    Raises:
        ValueError: k is more than N.
    """
    if k > len(rows):
        raise ValueError(f"k is {k} and there are only {len(rows)} rows to be near; take a k of at most {len(rows)}")
    device, flat = queries.device, _flat(queries, queries.device)  # [M, D]
    chunk_bytes = chunk_bytes or 2 ** (22 if device.type == "cpu" else 27)
    size = max(1, chunk_bytes // (8 * max(flat.shape)))
    distances = torch.empty(len(flat), 0, dtype=torch.float64, device=device)
    indices = torch.empty(len(flat), 0, dtype=torch.int64, device=device)
    for start in tqdm(range(0, len(rows), size), "nearest neighbours", unit="chunk", delay=5, leave=False):
        found = _distances(flat, _flat(rows[start : start + size], device))  # [M, size]
        found_indices = torch.arange(start, start + found.shape[1], device=device).expand_as(found)
        # Stable, with the earlier rows ahead: of equals the first stays.
        distances, order = torch.cat([distances, found], 1).sort(dim=1, stable=True)
        distances, order = distances[:, :k].clone(), order[:, :k]
        indices = torch.cat([indices, found_indices], 1).gather(1, order)
    return distances.cpu(), indices.cpu()


def sample_distances(h: Tensor, h_samples: Iterable[Tensor]) -> Tensor:
    """From each image's h [M, ...] to that of its own samples [M, S, ...], which may come image by image: [M, S]."""
    pairs = zip(h, h_samples, strict=True)
    return torch.cat([_distances(_flat(one[None], h.device), _flat(its, h.device)) for one, its in pairs])


def table_1(
    one_nn: Tensor, h: Tensor, h_samples: Iterable[Tensor], agrees: Tensor | None
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """A column of table 1 (Nash et al. 2019): how near samples come, beside the nearest training image.

    1NN is the distance to the nearest training image, IM-S that to a random sample, IM-NN that to the closest of an
    image's S samples (10 in the paper). All are averaged over images. IM-NN falls as S rises; IM-S does not.

    differs: IM-S is the mean over all S samples of an image where the paper takes one at random, because the
    expectation is the same and the noise less.

    Args:
        one_nn: Of each image to its nearest training image, [M], from `nearest`.
        h, h_samples: Raw h of the images, [M, ...], and of S samples of each, [M, S, ...], or image by image.
        agrees: Whether a sample gets the class of its input, [M, S]; None where no layer gives classes.

    Returns:
        The numbers of a `DistancesResult`, and the distances that they are made of: one_nn [M] and samples [M, S].
    """
    one_nn, samples = one_nn.double(), sample_distances(h, h_samples)
    im_s, im_nn = samples.mean(1), samples.amin(1)
    means = {
        "one_nn": mean_and_standard_error(one_nn),
        "im_s": mean_and_standard_error(im_s),
        "im_nn": mean_and_standard_error(im_nn),
        "im_s_ratio": ratio_of_means(im_s, one_nn),
        "im_nn_ratio": ratio_of_means(im_nn, one_nn),
        # Per image first: samples of one image are not independent.
        "class_agreement": (None, None) if agrees is None else mean_and_standard_error(agrees.double().mean(1)),
    }
    numbers: dict[str, Any] = {"num_images": len(samples), "num_samples": samples.shape[1]}
    for name, (mean, error) in means.items():
        numbers |= {name: mean, f"{name}_se": error}
    if agrees is not None:
        low, high = wilson_interval(numbers["class_agreement"], len(samples))
        numbers |= {"class_agreement_low": low, "class_agreement_high": high}
    return numbers, {"one_nn": one_nn.numpy(), "samples": samples.numpy()}


def most_different_samples(
    image: Tensor, samples: Tensor, h: Tensor, h_samples: Tensor, radius: float, k: int
) -> tuple[Tensor, Tensor]:
    """What a layer is most blind to: of the samples within a radius of h, the k that differ most in pixels.

    The image is uint8 [C, H, W], samples [S, C, H, W], and h of these [...] and [S, ...]. The radius is the distance
    to h of the nearest training image; samples at this distance count.

    Returns:
        Distances to the image in pixels, falling, float64 [k or fewer], and positions among the samples.
    """
    (distances,) = sample_distances(h[None], h_samples[None])
    (pixel_distances,) = sample_distances(image[None], samples[None])
    order = pixel_distances.argsort(descending=True, stable=True)
    indices = order[distances[order] <= radius][:k]
    return pixel_distances[indices], indices


def neighbours(
    images: Tensor, samples: Tensor, h: Tensor, h_samples: Iterable[Tensor], training: Tensor,
    h_training: Tensor | np.ndarray, space: Literal["layer", "pixels"],
) -> dict[str, np.ndarray]:  # fmt: skip
    """Fig 2 (Nash et al. 2019): of each input the nearest samples and training images, by h or by pixels.

    And of the samples that are as near by h as the nearest training image, those that differ most in pixels. Where
    there are fewer, the rest is black, at distance nan.

    Args:
        images, h: The inputs, uint8 [Q, C, H, W], and their raw h, [Q, ...].
        samples, h_samples: Of each, uint8 [Q, S, C, H, W] and [Q, S, ...], or input by input.
        training, h_training: Among which neighbours are sought, uint8 [N, C, H, W] and [N, ...].
        space: In which samples and training images are nearest.

    Returns:
        What `evaluations.figures.nearest_grid` shows, K = NUM_SHOWN of each, and num_samples, S.
    """
    to_training, rows = nearest(h, h_training, NUM_SHOWN)
    radius = to_training[:, 0]
    if space == "pixels":
        to_training, rows = nearest(images, training, NUM_SHOWN)
    shown = torch.zeros(2, len(images), NUM_SHOWN, *images.shape[1:], dtype=torch.uint8)  # the closest, and the blind
    distances = torch.full(shown.shape[:3], torch.nan, dtype=torch.float64)
    for i, (its, h_its) in enumerate(zip(samples, h_samples, strict=True)):
        one, those = (h[i], h_its) if space == "layer" else (images[i], its)
        (near,), (closest,) = nearest(one[None], those, NUM_SHOWN)
        far, blind = most_different_samples(images[i], its, h[i], h_its, radius[i].item(), NUM_SHOWN)
        for k, (values, indices) in enumerate(((near, closest), (far, blind))):
            shown[k, i, : len(indices)], distances[k, i, : len(indices)] = its[indices], values
    return {
        "inputs": images.numpy(), "num_samples": np.array(samples.shape[1]), "space": np.array(space),
        "samples": shown[0].numpy(), "sample_distances": distances[0].numpy(),
        "training": training[rows].cpu().numpy(), "training_distances": to_training.numpy(),
        "blind": shown[1].numpy(), "blind_distances": distances[1].numpy(),
    }  # fmt: skip


def as_rows(values: Tensor | np.ndarray) -> np.ndarray:
    """[N, ...] of any type as float64 [N, D]."""
    return _flat(values, torch.device("cpu")).numpy()


def _flat(values: Tensor | np.ndarray, device: torch.device) -> Tensor:
    """The same on a device, which widens them itself: there are fewer bytes to move."""
    moved = (values if isinstance(values, Tensor) else torch.from_numpy(np.array(values))).to(device)
    return moved.double().reshape(len(moved), math.prod(moved.shape[1:]))


def _distances(a: Tensor, b: Tensor) -> Tensor:
    """[M, D], [N, D] -> [M, N], all float64 and on one device."""
    return (_by_scipy if a.device.type == "cpu" else _by_torch)(a, b) / a.shape[1]


def _by_scipy(a: Tensor, b: Tensor) -> Tensor:
    """On a CPU twice as fast as torch.cdist(p=1) in float32."""
    return torch.from_numpy(cdist(a.numpy(), b.numpy(), "cityblock"))


def _by_torch(a: Tensor, b: Tensor) -> Tensor:
    """On a GPU one block of threads a pair, of which there may be 2^31; `nearest` has 2^24."""
    return torch.cdist(a, b, p=1)
