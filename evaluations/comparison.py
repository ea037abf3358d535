"""One way to invert a layer, by measures that all ways have: what it gives beside the images whose h it was given."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from evaluations.distances import sample_distances
from evaluations.diversity import diversity
from evaluations.information import mean_and_standard_error, ratio_of_means
from evaluations.measurements import Scores

SMALLEST_SIDE = 6  # of an image with a structural similarity, whose window reaches 5 pixels beyond the edge


@dataclass(frozen=True, eq=False)
class Images:
    """What is known of M images, or of S draws of each.

    Attributes:
        pixels: uint8 [M, C, H, W], or [M, S, C, H, W].
        h: Raw, [M, ...], or [M, S, ...].
        classes: That the inverted network gives them, [M], or [M, S]; None where no layer gives classes.
        judged: That another classifier gives them, likewise; None without one.
        log_prob: log p(x) of an unconditional model, nats, likewise; None without one.
    """

    pixels: Tensor
    h: Tensor
    classes: Tensor | None = None
    judged: Tensor | None = None
    log_prob: Tensor | None = None

    def of_one(self) -> "Images":
        """The M images as one draw of each."""

        def one(part: Tensor | None) -> Tensor | None:
            return None if part is None else part[:, None]

        return Images(self.pixels[:, None], self.h[:, None], one(self.classes), one(self.judged), one(self.log_prob))


@dataclass(frozen=True, eq=False)
class TrueImages:
    """Images of the data, among which draws should be as different as those of one class are.

    Attributes:
        pixels: uint8 [N, C, H, W].
        h: Raw, [N, ...].
        classes: Theirs, [N].
    """

    pixels: Tensor
    h: Tensor
    classes: Tensor


def compared(
    images: Images, draws: Images, one_nn: Tensor, differences: tuple[tuple[float, float], ...] | None = None
) -> tuple[Scores, dict[str, np.ndarray]]:
    """How S draws of each of M images compare with these: means over images, with standard errors over them.

    Args:
        images: M.
        draws: Of them.
        one_nn: The distance in h of each image to the nearest training image, [M].
        differences: From `diversities`; None where there are no draws that could differ.

    Returns:
        The numbers, and those of each draw that they are made of, [M, S] each.
    """
    distance = sample_distances(images.h, draws.h)
    error, similarity = squared_error(images.pixels, draws.pixels), structural_similarity(images.pixels, draws.pixels)
    arrays = {"distance": distance, "squared_error": error, "ssim": similarity}
    numbers: dict[str, tuple[float | None, float | None]] = {
        "im_s_ratio": ratio_of_means(distance.mean(1), one_nn),
        "im_nn_ratio": ratio_of_means(distance.amin(1), one_nn),
        "squared_error": mean_and_standard_error(error.mean(1)),
        "ssim": mean_and_standard_error(similarity.mean(1)),
    }
    for name, ours, theirs in (
        ("class_agreement", images.classes, draws.classes), ("judge_agreement", images.judged, draws.judged),
    ):  # fmt: skip
        if ours is not None and theirs is not None:
            arrays[name] = (theirs == ours[:, None]).double()
            numbers[name] = mean_and_standard_error(arrays[name].mean(1))
    if images.log_prob is not None and draws.log_prob is not None:
        arrays["log_prob_difference"] = draws.log_prob.double() - images.log_prob.double()[:, None]
        numbers["log_prob_difference"] = mean_and_standard_error(arrays["log_prob_difference"].mean(1))
    if differences is not None:
        numbers["diversity"], numbers["diversity_in_h"] = differences
    numbers["psnr"] = signal_to_noise(*mean_and_standard_error(error.mean(1)))
    values: dict[str, Any] = {
        f"{name}{end}": value for name, pair in numbers.items() for end, value in zip(("", "_se"), pair, strict=True)
    }
    return Scores(**values), {name: array.numpy() for name, array in arrays.items()}


def diversities(draws: Images, true: TrueImages, classes: Tensor) -> tuple[tuple[float, float], ...]:
    """In pixels and in h, of draws of images of such classes, [M]: 1 is that of true images of one class."""
    return (
        diversity(draws.pixels, true.pixels, true.classes, classes),
        diversity(draws.h, true.h, true.classes, classes),
    )


def squared_error(image: Tensor, draws: Tensor) -> Tensor:
    """The mean squared error of a sub-pixel in [0, 1], of uint8 [M, C, H, W] and [M, S, C, H, W]: float64 [M, S]."""
    return ((draws.double() - image.double()[:, None]) / 255).square().flatten(2).mean(2)


def signal_to_noise(error: float, standard_error: float) -> tuple[float | None, float | None]:
    """PSNR in dB of a mean squared error in [0, 1], and its standard error; None without an error: it is infinite."""
    if not error > 0:
        return None, None
    return -10 * math.log10(error), 10 / math.log(10) * standard_error / error


def structural_similarity(image: Tensor, draws: Tensor) -> Tensor:
    """SSIM (Wang et al. 2004) by torchmetrics, of uint8 [M, C, H, W] and [M, S, C, H, W]: float64 [M, S].

    nan where a side is below SMALLEST_SIDE.
    """
    size = draws.shape[:2]
    if min(image.shape[-2:]) < SMALLEST_SIDE:
        return torch.full(size, torch.nan, dtype=torch.float64)
    drawn, inputs = draws.flatten(0, 1).double(), image[:, None].expand_as(draws).flatten(0, 1).double()
    pairs = zip(drawn.split(250), inputs.split(250), strict=True)
    found = [structural_similarity_index_measure(*pair, data_range=255.0, reduction="none") for pair in pairs]
    return torch.cat([torch.as_tensor(part).reshape(-1) for part in found]).unflatten(0, size)
