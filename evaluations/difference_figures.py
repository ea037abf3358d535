"""The pictures of a difference of two runs, from the arrays beside its numbers."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from evaluations.difference import Pair
from evaluations.difference_result import DifferenceResult
from evaluations.figures import information_maps, labelled_rows, layers_grid

NONE = "\N{EN DASH}"


def figures(result: DifferenceResult, arrays: Mapping[str, np.ndarray]) -> dict[str, tuple[str, Figure]]:
    """By name, the caption and the figure: draws, map, pairs and alike; what there is no data for is not there.

    Args:
        result: The numbers.
        arrays: inputs uint8 [Q, C, H, W]; draws_a, draws_b uint8 [Q, M, C, H, W]; mean_map [H, W] and maps [K, H, W],
            nats; pairs_of_a, pairs_of_b uint8 [P, 2, C, H, W]; of sets alike_a, alike_b uint8 [Q, K, C, H, W] and
            their distances over those of the nearest training image by A and by B, alike_a_far [Q, K, 2], nan where
            there is no image.
    """
    a, b = result.a.called, result.b.called
    found = {}
    inputs = arrays["inputs"]
    columns = {f"draws from {a}": arrays["draws_a"], f"draws from {b}": arrays["draws_b"]}
    words = (
        "Test images, and draws of both by the same noise: what differs is what the two keep, and have learnt of it."
    )
    found["draws"] = words, layers_grid(inputs, columns)
    if "mean_map" in arrays:
        words = (
            f"Where {b} has more nats than {a} (red), and where fewer (blue): log p(x_i | x_<i, h) of the two, less "
            f"one another; the mean over {result.num_tested} images, then single ones."
        )
        maps = arrays["maps"]
        found["map"] = words, information_maps(arrays["mean_map"], inputs[: len(maps)], maps, f"{b} less {a}")
    rows = [
        (f"told apart by {more}, and less by {less}: log odds of {a} / {b}, nats", _side_by_side(images), labels(pairs))
        for more, less, pairs, images in (
            (a, b, result.pairs_of_a, arrays["pairs_of_a"]), (b, a, result.pairs_of_b, arrays["pairs_of_b"]),
        ) if pairs
    ]  # fmt: skip
    if rows:
        words = (
            f"Pairs of test images that one tells apart better than most pairs, and the other worse than most: the "
            f"log odds, in nats, with which each says whose of the two h is whose, by {a} and by {b}."
        )
        found["pairs"] = words, labelled_rows(rows)
    rows = []
    for name, side in (("a", result.a), ("b", result.b)):
        for k, images in enumerate(arrays.get(f"alike_{name}", ())):
            far = arrays[f"alike_{name}_far"][k]
            there = ~np.isnan(far[:, "ab".index(name)])
            told = [" / ".join(NONE if np.isnan(x) else f"{x:.2f}" for x in one) for one in far[there]]
            title = f"as near to image {k + 1} by {side.called} as its nearest training image"
            none = "" if there.sum() > 1 else f": none of {result.num_candidates} draws"
            rows.append((title + none, images[there], ["input", *told[1:]]))
    if rows:
        words = (
            f"Sets of images that are as near to the input, by the layer's h, as its nearest training image or nearer, "
            f"and as far from one another in pixels as could be found among {result.num_candidates} draws. Under each "
            f"its distance in h from the input by {a} / by {b}, where the nearest training image is at 1."
        )
        found["alike"] = words, labelled_rows(rows)
    return found


def labels(pairs: tuple[Pair, ...]) -> list[str]:
    """The odds of each."""
    return [" / ".join("\N{INFINITY}" if x is None else f"{x:.0f}" for x in (pair.a, pair.b)) for pair in pairs]


def _side_by_side(pairs: np.ndarray) -> np.ndarray:
    """[P, 2, C, H, W] -> [P, C, H, 2 W + 2], with a white line between."""
    first, second = pairs[:, 0], pairs[:, 1]
    return np.concatenate([first, np.full_like(first[..., :2], 255), second], axis=-1)
