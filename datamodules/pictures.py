"""What a person sees in a picture file, from its bytes."""

import re
import stat
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import IO, Literal

import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor
from tqdm import tqdm

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
# Pillow's names of those: it would start Ghostscript for an EPS, whatever it is called.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
MOST_NAMED = 10  # of the pictures that cannot be read
MOST_BYTES = 2**30  # of a file; the most pixels that Pillow decodes (2**29 / 3) take half of it as colours


def printable(name: str) -> str:
    """A file's name, which need not be text."""
    return name.encode(errors="backslashreplace").decode()


def check_regular(path: str | Path) -> None:
    """Raises OSError where there is no file, and ValueError for what may never end, such as a pipe or a device."""
    if not stat.S_ISREG(Path(path).stat().st_mode):
        raise ValueError(f"{path} is no regular file")


def file_bytes(path: Path) -> bytes:
    """The bytes of a picture file.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no regular file, or has more than MOST_BYTES.
    """
    check_regular(path)
    with path.open("rb") as file:
        return _bounded(file, path.stat().st_size)


def member_bytes(archive: zipfile.ZipFile, name: str) -> bytes:
    """Likewise, of a file in a zip, which may have packed a great many into a few."""
    with archive.open(name) as file:
        return _bounded(file, archive.getinfo(name).file_size)


def _bounded(file: IO[bytes], num_bytes: int) -> bytes:
    """All of a file that says to have so many bytes, and may have more."""
    content = file.read(MOST_BYTES + 1) if num_bytes <= MOST_BYTES else b""
    if max(num_bytes, len(content)) > MOST_BYTES:
        raise ValueError(f"it has {max(num_bytes, len(content))} bytes, more than {MOST_BYTES}")
    return content


@contextmanager
def opened(path: str) -> Iterator[Callable[[str], bytes]]:
    """What gives the bytes of a picture in a folder, or in a zip, by its name in there."""
    if Path(path).is_dir():
        yield lambda name: file_bytes(Path(path, name))
    else:
        with zipfile.ZipFile(path) as archive:
            yield lambda name: member_bytes(archive, name)


def decoded(content: bytes, channels: int, side: int | None = None) -> Image.Image:
    """A picture as it is seen: upright as its camera says, and on white where it is transparent; the first of several.

    Args:
        content: Of a file of one of FORMATS.
        channels: 3 for colour, 1 for grey.
        side: Where it is scaled to no more afterwards, a JPEG may be decoded at a half, a quarter or an eighth.

    Returns:
        Of mode "RGB" or "L".

    Raises:
        ValueError: It has more than 8 bits a channel.
        Exception: Pillow promises no list of what a broken file raises.
    """
    with warnings.catch_warnings():
        # Of a size that is allowed: what is twice as large, Pillow refuses.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(BytesIO(content), formats=FORMATS) as file:
            if file.mode[0] in "IF" or _has_deep_channels(file):
                raise ValueError(f"mode {file.mode} has more than 8 bits a channel")
            if side:
                file.draft(None, (2 * side, 2 * side))
            upright = ImageOps.exif_transpose(file)
    if upright.has_transparency_data:
        coloured = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", coloured.size, "white"), coloured)
    return upright.convert("L" if channels == 1 else "RGB")


def fitted(content: bytes, image_shape: tuple[int, int, int], fit: Literal["crop", "resize"]) -> Tensor:
    """A picture of any size, uint8 [C, H, W]: cut to the middle that fills the area, or stretched to it."""
    channels, height, width = image_shape
    picture = decoded(content, channels, max(height, width))
    if fit == "crop":
        picture = ImageOps.fit(picture, (width, height), Image.Resampling.BICUBIC)
    else:
        picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    return pil_to_tensor(picture)


def of_its_size(content: bytes, image_shape: tuple[int, int, int]) -> Tensor:
    """A picture that must have the size, uint8 [C, H, W]. Raises ValueError for one of another."""
    channels, height, width = image_shape
    picture = decoded(content, channels)
    if picture.size != (width, height):
        raise ValueError(f"it is {picture.width}x{picture.height} pixels, and must be {width}x{height}")
    return pil_to_tensor(picture)


def read_pictures(
    names: Sequence[str],
    content: Callable[[str], bytes],
    prepared: Callable[[bytes], Sequence[Tensor]],
    shapes: Sequence[tuple[int, int, int]],
    label: str = "reading images",
) -> tuple[list[Tensor], dict[str, str]]:
    """Those that can be read, in their order, of each shape uint8 [N, C, H, W]; and of the others, by name, why not.

    Args:
        names: Of the pictures.
        content: Gives one's bytes.
        prepared: Makes of them images, uint8 [C, H, W], one of each shape.
        shapes: (C, H, W) of each.
        label: Of the progress bar.
    """
    found, bad = [torch.empty(len(names), *shape, dtype=torch.uint8) for shape in shapes], dict[str, str]()
    for i, name in enumerate(tqdm(names, label, delay=5, leave=False)):
        try:
            for images, image in zip(found, prepared(content(name)), strict=True):
                images[i - len(bad)] = image
        except Exception as error:  # Pillow promises no list of what a broken file raises
            said = re.sub(r" <_io\.BytesIO.*?>", "", str(error))  # where a file's bytes are in memory
            bad[name] = f"{type(error).__name__}: {said}"
    return [images[: len(names) - len(bad)] for images in found], bad


def listed(bad: Mapping[str, str]) -> str:
    """The first of the pictures that cannot be read, with the reasons, and how many more there are."""
    few = ", ".join(f"{printable(name)} ({reason})" for name, reason in list(bad.items())[:MOST_NAMED])
    return few + (f" and {len(bad) - MOST_NAMED} more" if len(bad) > MOST_NAMED else "")


def cannot_be_read(bad: Mapping[str, str], num_images: int, where: str, otherwise: str = "") -> OSError:
    """The error for pictures that cannot be read, of so many."""
    if len(bad) == 1:
        ((name, reason),) = bad.items()
        return OSError(
            f"cannot read the image {printable(name)}{where} ({reason}); replace it or take it out{otherwise}"
        )
    return OSError(
        f"cannot read {len(bad)} of {num_images} images{where}: {listed(bad)}; replace them or take them out{otherwise}"
    )


def _has_deep_channels(file: Image.Image) -> bool:
    """Whether Pillow would drop bits of its colours without a word."""
    tiles = getattr(file, "tile", [])
    is_deep = any(re.search(r";16[BLN]", str(tile)) for tile in tiles)
    if file.format == "PPM":  # its tile ends with the greatest value
        is_deep |= any(isinstance(tile[3], tuple) and max(tile[3][1:]) > 255 for tile in tiles)
    bits = getattr(file, "tag_v2", {}).get(258, 8)  # a TIFF's BitsPerSample
    return is_deep or max(bits if isinstance(bits, tuple) else (bits,)) > 8
