"""The user's own pictures, in one folder a class, or in a zip of such folders."""

import os
import struct
import zipfile
import zlib
from contextlib import nullcontext
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jsonargparse.typing import PositiveInt
from PIL import Image, ImageOps
from torch import Tensor
from tqdm import tqdm

from datamodules.images import ImageDataModule, ImagesAndLabels, Split, splits

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
FEWEST = 10  # images that divide 80 / 10 / 10, or of which 10 % can be kept for validation
Parts = tuple[str, ...]


class ImageFolderDataModule(ImageDataModule):
    """Pictures of any size, decoded into memory; a picture's class is the folder that it lies in.

    Where the class folders lie in folders `train` and `test`, these are used, and a seeded 10 % of the first are kept
    for validation; otherwise all images are divided 80 / 10 / 10, seeded. One more folder may wrap everything. Files
    without an image's extension and hidden ones are ignored. A zip is read where it lies, nothing is unpacked to disk.
    `index` counts in the sorted list of all files, of `train` for the first two splits and of `test` for the last
    where there are such folders.

    Args:
        path: The folder or the .zip.
        side: Of the square that images are brought to, or their [height, width].
        fit: "crop" scales the image to cover that area, and cuts off what stands out, equally at both ends; "resize"
            stretches it. Neither touches an image of the right size.
        channels: 3 for colour, 1 for grey.
        kwargs: As for ImageDataModule.

    Attributes:
        classes: The names of the folders, sorted; a label counts in them.

    Raises:
        OSError: Where there is nothing to read at `path`.
        ValueError: Where the folders are not such as described.
    """

    def __init__(
        self,
        path: str,
        side: PositiveInt | tuple[PositiveInt, PositiveInt],
        fit: Literal["resize", "crop"] = "crop",
        channels: Literal[1, 3] = 3,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        height, width = (side, side) if isinstance(side, int) else side
        self.path, self.side, self.fit, self.channels = path, side, fit, channels
        self.is_zip = not Path(path).is_dir()
        self.image_shape = (channels, height, width)
        self.name = f"images:{Path(path).resolve().name.removesuffix('.zip')}"
        self.classes, self.files = _classes_and_files(path, *(_zip_tree if self.is_zip else _folder_tree)(path))
        self.num_classes = len(self.classes)

    @property
    def class_names(self) -> list[str]:
        return self.classes

    def load(self) -> dict[str, Split]:
        train = self._read(self.files["train"])
        order = torch.randperm(len(train[0]), generator=self.generator())
        tenth = len(order) // 10
        if "test" not in self.files:
            first, second, rest = order.split((tenth, tenth, len(order) - 2 * tenth))
            return splits(*train, {"train": rest, "val": first, "test": second})
        test = self._read(self.files["test"])
        shuffled = torch.randperm(len(test[0]), generator=self.generator())
        return splits(*train, {"train": order[tenth:], "val": order[:tenth]}) | splits(*test, {"test": shuffled})

    def _read(self, files: list[tuple[str, int]]) -> ImagesAndLabels:
        """Raises OSError naming an image that cannot be read."""
        images = torch.empty(len(files), *self.image_shape, dtype=torch.uint8)
        with zipfile.ZipFile(self.path) if self.is_zip else nullcontext() as archive:
            for i, (file, _) in enumerate(tqdm(files, f"reading images from {self.path}", delay=5, leave=False)):
                try:
                    content = archive.read(file) if archive else Path(self.path, file).read_bytes()
                    images[i] = self._image(content)
                except (
                    OSError, ValueError, SyntaxError, RuntimeError, EOFError, struct.error, zlib.error,
                    zipfile.BadZipFile, Image.DecompressionBombError,
                ) as error:  # fmt: skip
                    raise OSError(
                        f"cannot read the image {file} in {self.path} ({type(error).__name__}: {error}); replace it or "
                        f"take it out"
                    ) from error
        return images, torch.tensor([label for _, label in files])

    def _image(self, content: bytes) -> Tensor:
        """One decoded file: uint8 [C, H, W]."""
        channels, height, width = self.image_shape
        with Image.open(BytesIO(content)) as file:
            if file.mode[0] in "IF":
                raise ValueError(f"mode {file.mode} has more than 8 bits a channel")
            longer = 2 * max(height, width)
            file.draft(None, (longer, longer))  # large photographs: a JPEG decodes faster at 1/2, 1/4 or 1/8
            upright = ImageOps.exif_transpose(file).convert("L" if channels == 1 else "RGB")
        if self.fit == "crop":
            upright = ImageOps.fit(upright, (width, height), Image.Resampling.BICUBIC)
        else:
            upright = upright.resize((width, height), Image.Resampling.BICUBIC)
        return torch.from_numpy(np.array(upright)).view(height, width, channels).permute(2, 0, 1)


def _zip_tree(path: str) -> tuple[list[Parts], list[Parts]]:
    """Folders and files of a zip, from its directory."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no {path}; give a folder or a .zip as --data.path") from None
    except (OSError, zipfile.BadZipFile) as error:
        raise OSError(
            f"cannot read {path} ({type(error).__name__}: {error}); give a folder or a whole .zip as --data.path"
        ) from error
    files = [tuple(name.split("/")) for name in names if not name.endswith("/")]
    empty = [tuple(name.rstrip("/").split("/")) for name in names if name.endswith("/")]
    return empty + [parts[:-1] for parts in files], files


def _folder_tree(path: str) -> tuple[list[Parts], list[Parts]]:
    """Folders and files below a folder."""
    folders: list[Parts] = []
    files: list[Parts] = []
    for folder, _, names in os.walk(path, followlinks=True):
        parts = Path(folder).relative_to(path).parts
        folders.append(parts)
        files += [(*parts, name) for name in names]
    return folders, files


def _is_seen(parts: Parts) -> bool:
    return not any(part.startswith(".") or part == "__MACOSX" for part in parts)


def _classes_and_files(
    path: str, folders: list[Parts], files: list[Parts]
) -> tuple[list[str], dict[str, list[tuple[str, int]]]]:
    """The sorted class names, and sorted (file, label) of "train", and of "test" where there is such a folder."""
    files = sorted({parts for parts in files if _is_seen(parts) and parts[-1].lower().endswith(EXTENSIONS)})
    folders = [parts for parts in folders if _is_seen(parts)]
    if not files:
        raise ValueError(f"{path} holds no image; those with the extensions {', '.join(EXTENSIONS)} are read")
    start = 1 if len({parts[0] for parts in files}) == 1 and min(map(len, files)) > 2 else 0  # one folder wraps all
    if start:
        folders = [parts for parts in folders if parts[:1] == files[0][:1]]
    tops = {parts[start] for parts in files}
    split = {"train", "test"} <= tops
    if split and tops != {"train", "test"}:
        raise ValueError(
            f"{path} holds {', '.join(sorted(tops - {'train', 'test'}))} beside train and test, which would not be "
            f"read; take it out, or put its images into one of the two"
        )
    level = start + 1 if split else start  # of the class folders
    for parts in files:
        if len(parts) < level + 2:
            raise ValueError(f"{'/'.join(parts)} in {path} lies in no class folder; put it in one or take it out")
    filled = {parts[: level + 1] for parts in files}
    for parts in sorted({parts[: level + 1] for parts in folders if len(parts) > level} - filled):
        raise ValueError(f"the class folder {'/'.join(parts)} in {path} holds no image; fill it or take it out")
    found = {
        name: [parts for parts in files if not split or parts[start] == name]
        for name in (("train", "test") if split else ("train",))
    }
    if len(found["train"]) < FEWEST:
        raise ValueError(f"{path} holds {len(found['train'])} images to train with; at least {FEWEST} are needed")
    classes = sorted({parts[level] for parts in found["train"]})
    for parts in found.get("test", ()):
        if parts[level] not in classes:
            raise ValueError(f"the class folder {'/'.join(parts[: level + 1])} in {path} has none of its name in train")
    number = {name: k for k, name in enumerate(classes)}
    return classes, {
        name: [("/".join(parts), number[parts[level]]) for parts in chosen] for name, chosen in found.items()
    }
