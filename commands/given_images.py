"""What a user of Python gives for images, as uint8 tensors."""

import os
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from datamodules.pictures import file_bytes, fitted, of_its_size
from inverters.generators import ImageShape, check_images


def images_of(given: Any, shape: ImageShape, fit: Any) -> Tensor:
    """What a user gives for images, as uint8 [N, C, H, W] on the CPU.

    Args:
        given: As TrainedInverter describes.
        shape: (C, H, W).
        fit: How pictures are brought to it: "crop", "resize", or not at all.

    Raises:
        ValueError: It is something else, or nothing.
    """
    if isinstance(given, Image.Image):
        return _of_picture(given, shape, fit)[None]
    if isinstance(given, list | tuple):
        images = [image for one in given for image in images_of(one, shape, fit)]
    else:
        images = list(_of_array(given, shape))
    if not images:
        raise ValueError("no images are given; give at least one")
    return torch.stack(images)


def _of_array(given: Any, shape: ImageShape) -> Tensor:
    if isinstance(given, Tensor):
        images = given.detach().cpu()
    else:
        array = np.asarray(given) if hasattr(given, "__array__") else None
        if array is None or array.ndim == 0 or array.dtype.kind not in "buif":
            raise ValueError(
                f"images are uint8 arrays or tensors, or PIL's pictures, or a list of these, not {type(given).__name__}"
                f"{'; a file is opened by PIL.Image.open' if isinstance(given, str | os.PathLike) else ''}"
            )
        images = torch.tensor(np.ascontiguousarray(array, array.dtype.newbyteorder("=")))  # it may be flipped
    channels, height, width = shape
    if tuple(images.shape[-3:]) == (height, width, channels) != shape and images.ndim in (3, 4):
        images = images.movedim(-1, -3)
    if channels == 1 and images.ndim in (2, 3) and tuple(images.shape[-2:]) == (height, width):
        images = images.reshape(-1, 1, height, width)
    elif images.ndim == 3:
        images = images[None]
    check_images(images, shape)
    return images


def _of_picture(picture: Image.Image, shape: ImageShape, fit: Any) -> Tensor:
    """uint8 [C, H, W], by the one reader of pictures."""
    try:
        content = _content(picture)
        return fitted(content, shape, fit) if fit in ("crop", "resize") else of_its_size(content, shape)
    except Exception as error:  # Pillow promises no list of what it raises
        raise ValueError(f"cannot use the picture {getattr(picture, 'filename', '') or picture}: {error}") from error


def _content(picture: Image.Image) -> bytes:
    """The bytes of a picture's file; of one that has none, or was changed since, a file of its pixels."""
    name = getattr(picture, "filename", "")
    if name and Path(os.fsdecode(name)).is_file():
        content = file_bytes(Path(os.fsdecode(name)))
        with Image.open(BytesIO(content)) as file:
            if (file.mode, file.size) == (picture.mode, picture.size) and file.tobytes() == picture.tobytes():
                return content
    stream: Any = getattr(picture, "fp", None)  # of one that is not read yet, as one in memory or in a zip
    if stream is not None and picture.tell() == 0:
        start = stream.tell()
        stream.seek(0)
        content = stream.read()
        stream.seek(start)
        return bytes(content)
    if picture.mode[0] in "IF":
        raise ValueError(f"mode {picture.mode} has more than 8 bits a channel")
    if picture.mode in ("CMYK", "YCbCr", "LAB", "HSV"):  # which a PNG has not
        picture = picture.convert("RGB")
    pixels = BytesIO()
    picture.save(pixels, "PNG", exif=picture.getexif())
    return pixels.getvalue()
