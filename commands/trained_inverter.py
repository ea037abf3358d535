"""The trained inverter that is asked, and what several ask of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from tqdm import tqdm

from datamodules import ImageDataModule
from inverters import Inverter
from runtime.checkpoints import check_fit, load_checkpoint

NO_H_OF_X = "h of {} is of a partner of x and no function of x, so that an image has none of its own"


def trained_inverter(
    trainer: pl.Trainer, model: pl.LightningModule, data: ImageDataModule, ckpt_path: str | None
) -> Inverter:
    """The model with a checkpoint's weights, on the trainer's device, in eval mode.

    Raises:
        ValueError: The model is no inverter, or the checkpoint is of another one or of other data.
    """
    if not isinstance(model, Inverter):
        raise ValueError(f"this needs an inverter's config; {type(model).__name__} has no p(x | h)")
    path = Path(str(ckpt_path))
    checkpoint = load_checkpoint(path)
    inverter = with_weights(model, checkpoint, path)
    data.check(checkpoint, path)
    return inverter.to(trainer.strategy.root_device)


def with_weights(inverter: Inverter, checkpoint: dict[str, Any], path: Path) -> Inverter:
    """An inverter with the weights of a checkpoint, in their precision, as a test has them, and in eval mode.

    Raises:
        ValueError: The checkpoint is of another one.
    """
    weights = checkpoint["state_dict"]
    inverter.check_layer(checkpoint, path)
    check_fit(inverter, weights, path)
    inverter.on_load_checkpoint(checkpoint)
    inverter.density.to(weights["context_mean"].dtype)
    inverter.load_state_dict(weights, assign=True)  # a network may have a precision of its own
    inverter.check_network(checkpoint, path)
    return inverter.eval()


def check_draws_have_h(inverter: Inverter) -> str:
    """The layer that is inverted. Raises ValueError where there is none, or draws are not what its network sees."""
    layer = inverter.representation.layer
    if layer is None:
        raise ValueError("an unconditional model has no layer to measure distances in; give the config of an inverter")
    if inverter.sees_original:
        seen, drawn = ("x".join(map(str, shape[1:])) for shape in (inverter.seen_shape, inverter.density.image_shape))
        raise ValueError(
            f"{layer} sees the pictures at {seen}, and draws have {drawn} pixels, so that there is no distance between "
            f"their h; give a config without data.original_side"
        )
    return layer


def training_images(data: ImageDataModule) -> Tensor:
    """All of them, uint8 [N, C, H, W], of data that is set up. Raises ValueError where there is an endless number."""
    images = data.datasets["train"].images
    if images is None:
        raise ValueError("this data draws new training images each time, so that there is no nearest one")
    return images


def in_parts(function: Callable[[Tensor], Tensor], inverter: Inverter, images: Tensor) -> Tensor:
    """What a function on the inverter's device makes of uint8 images [N, C, H, W], on the CPU, [N, ...]."""
    parts = tqdm(images.split(250), "encoding images", delay=5, leave=False)
    return torch.cat([function(x.to(inverter.device)).cpu() for x in parts])


def scores(inverter: Inverter, image: Tensor, pictures: Tensor, batch_size: int = 250) -> Tensor:
    """log p(x_i | h_j) of every image i with the h of every picture j.

    Args:
        inverter: On its device.
        image: x, uint8 [N, C, H, W].
        pictures: Of which h is taken, uint8 [M, C, H', W'].
        batch_size: Pairs at once.

    Returns:
        float64 [N, M] nats, on the CPU.
    """
    h = in_parts(inverter.representation, inverter, pictures)
    found, num_pairs = [torch.empty(0, dtype=torch.float64)], len(image) * len(h)  # a process may have no image
    for first in tqdm(range(0, num_pairs, batch_size), "scoring pairs, batches", delay=5, leave=False):
        pair = torch.arange(first, min(first + batch_size, num_pairs))
        batch = {"image": image[pair // len(h)], "h": h[pair % len(h)]}
        batch = {name: values.to(inverter.device) for name, values in batch.items()}
        found.append(inverter.log_prob_in_parts(batch).cpu())
    return torch.cat(found).reshape(len(image), len(h))
