"""What was compressed, bit for bit, from its file and h."""

import io
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from commands.trained_inverter import trained_inverter
from datamodules import ImageDataModule
from evaluations.other_formats import picture
from inverters.compressed_file import decompressed
from runtime.files import npy_bytes, write_all


def decompress(
    trainer: pl.Trainer,
    model: pl.LightningModule,
    datamodule: ImageDataModule,
    input: str = "images.nats",
    h: str | None = None,
    output: str = "decompressed",
    ckpt_path: str | None = None,
) -> None:
    """Get back images that compress has written, bit for bit, from the file and h.

    Args:
        input: The file.
        h: The .npy of their h, which compress has written beside it; not of an unconditional model.
        output: A folder for a PNG of each, in their order; or NAME.npy, for an array [N, C, H, W].
        ckpt_path: A file, or best or last of the newest run; best by default.

    Raises:
        OSError: A file cannot be read or written.
        ValueError: The file is damaged, or of other weights, or h of other images.
    """
    inverter, path = trained_inverter(trainer, model, datamodule, ckpt_path), Path(output)
    if inverter.representation.layer is None and h is not None:
        raise ValueError("an unconditional model has no h; leave out --h")
    if path.suffix != ".npy" and path.is_dir() and any(path.iterdir()):
        raise FileExistsError(f"the folder {path} is not empty; give another --output")
    image = decompressed(inverter, Path(input).read_bytes(), None if h is None else _array(h), input).numpy()
    if path.suffix == ".npy":
        files = {path: npy_bytes(image)}
    elif image.shape[1] in (1, 3):
        digits = len(str(len(image) - 1))
        files = {path / f"{i:0{digits}}.png": _png(each) for i, each in enumerate(image)}
    else:
        raise ValueError(f"images of {image.shape[1]} channels are no PNG; give --output NAME.npy")
    write_all(files)
    print(f"{len(image)} images, bit for bit those that were compressed: {path}")


def _array(path: str) -> Tensor:
    """Raises ValueError where it is no array of numbers."""
    try:
        return torch.from_numpy(np.load(path, allow_pickle=False))
    except FileNotFoundError:
        raise
    except Exception as error:  # a broken file can raise nearly anything in NumPy's reader
        raise ValueError(f"{path} is no .npy of h ({error}); give the one that compress has written") from error


def _png(image: np.ndarray) -> memoryview:
    content = io.BytesIO()
    picture(image).save(content, "PNG")
    return content.getbuffer()
