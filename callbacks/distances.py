"""How near samples come to their input in the layer's own space: the verb `distances`."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pytorch_lightning import Trainer
from torch import Tensor

from callbacks.atomic import json_bytes, npz_bytes, write_all
from callbacks.cache_activations import cached_activations
from callbacks.datamodule import first_images
from callbacks.processes import shared_draws
from evaluations.distances import (
    closest_samples,
    most_different_samples,
    nearest,
    representation_distances,
    sample_distances,
)
from evaluations.information import mean_and_standard_error
from inverters.inverter import Inverter
from inverters.representation import digest

NUM_SHOWN = 6  # of each kind beside an input, as in the paper's fig 2


def raw_h(inverter: Inverter, images: Tensor) -> Tensor:
    """Raw h of uint8 images [N, C, H, W], on the CPU, [N, ...]."""
    return torch.cat([inverter.representation(x.to(inverter.device)).cpu() for x in images.split(250)])


class Measurement:
    """Table 1 and fig 2 (Nash et al. 2019) of one inverter, and the reverse of fig 2.

    Args:
        trainer: Whose processes share the drawing.
        inverter: In eval mode, with a layer.
        training: Images among which neighbours are sought, uint8 [N, C, H, W].
        h_training: Their raw h, [N, ...].
        seed: Of the noise of the samples.
    """

    def __init__(
        self, trainer: Trainer, inverter: Inverter, training: Tensor, h_training: np.ndarray, seed: int
    ) -> None:
        self.trainer, self.inverter, self.seed = trainer, inverter, seed
        self.training, self.h_training = training, h_training

    def table(self, images: Tensor, index: list[int], num_samples: int) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Table 1: its row, and the distances of each image that it is made of."""
        h = raw_h(self.inverter, images)
        one_nn = nearest(h, self.h_training, k=1)[0][:, 0]
        draws = shared_draws(self.trainer, self.inverter, images, index, num_samples, self.seed)  # [M, S, C, H, W]
        to_samples = torch.cat(
            [
                sample_distances(one[None], raw_h(self.inverter, its).unflatten(0, (1, num_samples)))
                for one, its in zip(h, draws, strict=True)
            ]
        )
        row: dict[str, Any] = representation_distances(one_nn, to_samples)._asdict()
        row |= {"class_agreement": None, "class_agreement_se": None}
        if "logits" in dict(self.inverter.representation.network.named_children()):
            classes = self.classes(images)[:, None]
            agrees = self.classes(draws.flatten(0, 1)).unflatten(0, (len(images), num_samples)) == classes
            # Per image first: samples of one image are not independent.
            row["class_agreement"], row["class_agreement_se"] = mean_and_standard_error(agrees.double().mean(1))
        arrays = {"index": np.array(index), "one_nn": one_nn.numpy(), "samples": to_samples.numpy()}
        return row, arrays

    def classes(self, images: Tensor) -> Tensor:
        """What the classifier takes uint8 images [B, C, H, W] for, [B]."""
        probabilities = self.inverter.representation.class_probabilities
        parts = [probabilities(x.to(self.inverter.device)).argmax(1).cpu() for x in images.split(250)]
        return torch.cat(parts)

    def neighbours(
        self, images: Tensor, index: list[int], num_candidates: int, space: Literal["layer", "pixels"]
    ) -> dict[str, np.ndarray]:
        """Fig 2: of each of Q inputs the nearest of many samples and of the training images, by h or by pixels.

        And of the samples that are as near by h as the nearest training image, those that differ most in pixels. Where
        there are fewer, the rest is black, at distance nan.

        Returns:
            Images uint8 [Q, 6, C, H, W] and distances [Q, 6] by name.
        """
        draws = shared_draws(self.trainer, self.inverter, images, index, num_candidates, self.seed)
        h = raw_h(self.inverter, images)
        to_training, rows = nearest(h, self.h_training, NUM_SHOWN)
        radius = to_training[:, 0]
        if space == "pixels":
            to_training, rows = nearest(images, self.training, NUM_SHOWN)
        found: dict[str, list[Tensor]] = {}
        for i, samples in enumerate(draws):
            h_samples = raw_h(self.inverter, samples)
            one, its = (h[i], h_samples) if space == "layer" else (images[i], samples)
            to_samples, closest = closest_samples(one, its, NUM_SHOWN)
            blind = most_different_samples(images[i], samples, h[i], h_samples, radius[i].item(), NUM_SHOWN)
            shown = torch.zeros(NUM_SHOWN, *images.shape[1:], dtype=torch.uint8)
            shown[: len(blind.indices)] = samples[blind.indices]
            distances = torch.full((NUM_SHOWN,), torch.nan, dtype=torch.float64)
            distances[: len(blind.indices)] = blind.pixel_distances
            for name, value in {
                "samples": samples[closest],
                "sample_distances": to_samples,
                "training": self.training[rows[i]].cpu(),
                "training_distances": to_training[i],
                "blind": shown,
                "blind_distances": distances,
            }.items():
                found.setdefault(name, []).append(value)
        arrays = {name: torch.stack(values).numpy() for name, values in found.items()}
        return arrays | {"inputs": images.numpy(), "num_samples": np.array(num_candidates), "space": np.array(space)}


def measured_distances(
    trainer: Trainer,
    inverter: Inverter,
    datasets: dict[str, Any],
    folder: Path,
    num_images: int,
    num_samples: int,
    num_queries: int,
    num_candidates: int,
    space: Literal["layer", "pixels"],
    seed: int,
) -> dict[str, Any]:
    """Measure and write `distances.json`, `distances.npz` and `nearest.npz` into the folder of a config's results.

    h of the training images is kept on disk, beside that of other runs.

    Raises:
        ValueError: The model has no layer, or the data has no finite set of training images.
    """
    representation = inverter.representation
    if representation.layer is None:
        raise ValueError("an unconditional model has no layer to measure distances in; give the config of an inverter")
    if not hasattr(datasets["train"], "images"):
        raise ValueError("this data draws new training images each time, so that there is no nearest one")
    training = datasets["train"].images
    h_training = cached_activations(representation, training, "train", folder.parent / "activations")
    measurement = Measurement(trainer, inverter, training, h_training, seed)
    batch = first_images(datasets["test"], num_images)
    images, index = batch["image"].cpu(), batch["index"].tolist()
    row, arrays = measurement.table(images, index, num_samples)
    row |= {"name": folder.name, "layer": representation.layer, "seed": seed}
    row |= {"network_digest": digest(representation.network), "density_digest": digest(inverter.density)}
    shown = measurement.neighbours(images[:num_queries], index[:num_queries], num_candidates, space)
    if trainer.is_global_zero:
        files = {folder / "distances.npz": npz_bytes(arrays), folder / "nearest.npz": npz_bytes(shown)}
        write_all({folder / "distances.json": json_bytes(row), **files})
    return row
