"""How many bytes images take in the usual formats without loss."""

import io
import math
from contextlib import suppress
from typing import Any

import numpy as np
from PIL import Image, features

with suppress(ImportError):  # an extra
    import pillow_jxl  # noqa: F401 - Pillow then knows JPEG XL

SETTINGS: dict[str, dict[str, Any]] = {
    "PNG": {"optimize": True},
    "WEBP": {"lossless": True, "quality": 100, "method": 6},
    "JXL": {"lossless": True, "effort": 9},
}
NAMES = {"PNG": "PNG", "WEBP": "WebP", "JXL": "JPEG XL"}


def sizes(images: np.ndarray) -> tuple[dict[str, int], dict[str, int]]:
    """Bytes by the name of the format, where Pillow has it here: of a file for each image, and of one mosaic.

    In the mosaic headers count little, and a format may use what images have in common.

    Args:
        images: uint8 [N, C, H, W]; where C is neither 1 nor 3 there is no format.
    """
    Image.init()
    here = [name for name in SETTINGS if name in Image.SAVE and (name != "WEBP" or features.check("webp"))]
    here = here if images.shape[1] in (1, 3) else []
    alone = {NAMES[name]: sum(_size(image, name) for image in images) for name in here}
    return alone, {NAMES[name]: _size(_mosaic(images), name) for name in here}


def _mosaic(images: np.ndarray) -> np.ndarray:
    """All in rows, [C, R H, S W]; what is left of the last row is black."""
    number, channels, height, width = images.shape
    columns = math.ceil(math.sqrt(number))
    rows = math.ceil(number / columns)
    whole = np.zeros((rows * columns, channels, height, width), np.uint8)
    whole[:number] = images
    tiles = whole.reshape(rows, columns, channels, height, width).transpose(2, 0, 3, 1, 4)
    return tiles.reshape(channels, rows * height, columns * width)


def picture(image: np.ndarray) -> Image.Image:
    """Of uint8 [C, H, W], C being 1 or 3."""
    return Image.fromarray(np.ascontiguousarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)))


def _size(image: np.ndarray, name: str) -> int:
    content = io.BytesIO()
    picture(image).save(content, name, **SETTINGS[name])
    return len(content.getvalue())
