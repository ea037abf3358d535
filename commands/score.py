"""How good a match is an image for a representation: log p(x | h) of image files."""

import csv
import io
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch import Tensor
from tqdm import tqdm

from commands.trained_inverter import NO_H_OF_X, scores, trained_inverter
from datamodules import ImageDataModule
from datamodules.picture_files import found_in, pictures_in
from datamodules.pictures import cannot_be_read, file_bytes, opened, printable, read_pictures
from runtime.files import write_all
from runtime.run import Run

AT_ONCE = 64  # images


def score(
    trainer: pl.Trainer,
    model: pl.LightningModule,
    datamodule: ImageDataModule,
    images: list[str] | str,
    contexts: list[str] | str | None = None,
    ckpt_path: str | None = None,
) -> None:
    """Print log p(x_i | h_j) in nats, for pictures i and the representations of pictures j.

    Pictures are prepared as those that the inverter was trained on: those of an image folder are cropped or stretched
    as its `fit` says, whatever their size; a data set that never scales takes those of its size.

    Args:
        images: A picture, a list of pictures, or a folder or a .zip, of which all are taken.
        contexts: Likewise; without them each image is scored under its own representation.
        ckpt_path: A file, or best or last of the newest run; best by default.

    Raises:
        ValueError: An image has no representation of its own, as in a world whose h is of a partner.
    """
    if not images:
        raise ValueError("no images to score; give --images '[a.png, b.png]'")
    inverter = trained_inverter(trainer, model, datamodule, ckpt_path)
    if datamodule.has_partners and inverter.representation.layer is not None and not contexts:
        raise ValueError(f"{NO_H_OF_X.format(datamodule.name)}; give the partners as --contexts")
    names, x, its = load_images(images, datamodule)
    columns, _, others = load_images(contexts, datamodule) if contexts else (["itself"], None, None)
    if others is not None:
        matrix = scores(inverter, x, others)  # [N, M]
    else:
        parts = tqdm(torch.arange(len(x)).split(AT_ONCE), "scoring images", delay=5, leave=False)
        batches = ({"image": x[part], "context_image": its[part]} for part in parts)
        own = [inverter.log_prob_in_parts({k: v.to(inverter.device) for k, v in batch.items()}) for batch in batches]
        matrix = torch.cat(own).cpu()[:, None]
    if matrix.isnan().any():
        raise ValueError("log p(x | h) of an image is NaN: the model has diverged; train it with a lower learning rate")
    header = ["image", *(f"log p(x | h of {printable(name)}), nats" for name in columns)]
    rows = [
        [printable(name), *(f"{value:.3f}" for value in row)] for name, row in zip(names, matrix.tolist(), strict=True)
    ]
    path = Run.of_trainer(trainer).folder / "scores.csv"
    text = io.StringIO()
    csv.writer(text).writerows([header, *rows])
    write_all({path: text.getvalue().encode()})
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in [header, *rows]:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))
    print(f"as CSV: {path}")


def load_images(paths: list[str] | str, datamodule: ImageDataModule) -> tuple[list[str], Tensor, Tensor]:
    """All pictures of files, folders and zips, as a data set has its own.

    Returns:
        Their names; what the density models, uint8 [N, C, H, W]; and what the network sees, uint8 [N, C, H', W'].

    Raises:
        OSError: Some cannot be read, or are of a size that the data set does not take; those are named.
        ValueError: A folder or a zip has none.
    """
    names: list[str] = []
    content: dict[str, Callable[[], bytes]] = {}
    with ExitStack() as stack:
        for path in [paths] if isinstance(paths, str) else paths:
            if Path(path).is_dir() or path.lower().endswith(".zip"):
                inside = ["/".join(parts) for parts in pictures_in(path, found_in(path).sizes)]
                of_name = stack.enter_context(opened(path))
                names += [f"{path}/{name}" for name in inside]
                content |= {f"{path}/{name}": partial(of_name, name) for name in inside}
            else:
                names.append(path)
                content[path] = partial(file_bytes, Path(path))
        images, bad = read_pictures(names, lambda name: content[name](), datamodule.pictures, datamodule.shapes)
    if bad:
        raise cannot_be_read(bad, len(names), "")
    return names, images[0], images[-1]
