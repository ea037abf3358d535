"""How good a match is an image for a representation: log p(x | h) of image files."""

import csv
import io
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from commands.trained_inverter import trained_inverter
from datamodules import ImageDataModule
from datamodules.pictures import decoded, file_bytes, printable
from runtime.files import write_all
from runtime.run import Run


def score(
    trainer: pl.Trainer,
    model: pl.LightningModule,
    datamodule: ImageDataModule,
    images: list[str],
    contexts: list[str] | None = None,
    ckpt_path: str | None = None,
) -> None:
    """Print log p(x_i | h_j) in nats, for image files i and the representations of image files j.

    Args:
        images: Files of the size that the inverter knows.
        contexts: Likewise; without them each image is scored under its own representation.
        ckpt_path: A file, or best or last of the newest run; best by default.
    """
    if not images:
        raise ValueError("no images to score; give --images '[a.png, b.png]'")
    inverter = trained_inverter(trainer, model, datamodule, ckpt_path)
    x = load_images(images, datamodule.image_shape).to(inverter.device)
    h = load_images(contexts, datamodule.image_shape).to(inverter.device) if contexts else x
    with torch.no_grad():
        if contexts:
            each = [inverter.log_prob({"image": x, "context_image": row.expand_as(x)}) for row in h]
            matrix = torch.stack(each, dim=1)  # [N, M]
        else:
            matrix = inverter.log_prob({"image": x})[:, None]
    if matrix.isnan().any():
        raise ValueError("log p(x | h) of an image is NaN: the model has diverged; train it with a lower learning rate")
    names, columns = (list(map(printable, x)) for x in (images, contexts or ["itself"]))
    header = ["image", *(f"log p(x | h of {name}), nats" for name in columns)]
    rows = [[name, *(f"{value:.3f}" for value in row)] for name, row in zip(names, matrix.tolist(), strict=True)]
    path = Run.of_trainer(trainer).folder / "scores.csv"
    text = io.StringIO()
    csv.writer(text).writerows([header, *rows])
    write_all({path: text.getvalue().encode()})
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in [header, *rows]:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))
    print(f"as CSV: {path}")


def load_images(paths: list[str], image_shape: tuple[int, int, int]) -> Tensor:
    """Image files as uint8 [N, C, H, W]. Raises OSError or ValueError naming the file that cannot be used."""
    channels, height, width = image_shape
    images = []
    for path in paths:
        try:
            picture = decoded(file_bytes(Path(path)), channels)
        except Exception as error:  # Pillow promises no list of what a broken file raises
            raise OSError(f"cannot read {path} as an image ({type(error).__name__}: {error})") from error
        if picture.size != (width, height):
            raise ValueError(f"{path} is {picture.width}x{picture.height} pixels; this inverter takes {width}x{height}")
        images.append(pil_to_tensor(picture))
    return torch.stack(images)
