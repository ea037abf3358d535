"""The user's own pictures, in one folder a class, or in a zip of such folders."""

import os
import zipfile
from collections.abc import Sequence
from contextlib import nullcontext
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import torch
from jsonargparse.typing import PositiveInt
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor
from tqdm import tqdm

from datamodules.images import ImageDataModule
from datamodules.split import ImagesAndLabels, Split, splits

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
FEWEST = 10  # images that divide 80 / 10 / 10, or of which 10 % can be kept for validation
Parts = tuple[str, ...]  # of a file's path, or of a folder's with an empty one behind it


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

    Raises:
        OSError: Where there is nothing to read at `path`.
        ValueError: Where the folders are not such as described.
    """

    class_names: Sequence[str] = ()  # of the folders, sorted; a label counts in them

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
        self.class_names, self.files = _classes_and_files(path, _tree(path))
        self.num_classes = len(self.class_names)

    @property
    def place(self) -> str:
        return f"in {Path(self.path).resolve()}"

    def load(self) -> dict[str, Split]:
        train = self._read(self.files["train"])
        order = torch.randperm(len(train[0]), generator=self.generator())
        tenth = len(order) // 10
        if not self.files["test"]:
            return splits(*train, {"train": order[2 * tenth :], "val": order[:tenth], "test": order[tenth : 2 * tenth]})
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
                except Exception as error:  # Pillow promises no list of what a broken file raises
                    reason = f"{type(error).__name__}: {error}"
                    raise OSError(
                        f"cannot read the image {file} in {self.path} ({reason}); replace it or take it out"
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
        return pil_to_tensor(upright)


def _tree(path: str) -> list[Parts]:
    """Files and folders of a folder, or of a zip, from its directory."""
    if Path(path).is_dir():
        walked = os.walk(path, followlinks=True)
        return [(*Path(folder).relative_to(path).parts, name) for folder, _, names in walked for name in ("", *names)]
    try:
        with zipfile.ZipFile(path) as archive:
            return [tuple(name.split("/")) for name in archive.namelist()]
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no {path}; give a folder or a .zip as --data.path") from None
    except (OSError, zipfile.BadZipFile) as error:
        raise OSError(
            f"cannot read {path} ({type(error).__name__}: {error}); give a folder or a whole .zip as --data.path"
        ) from error


def _classes_and_files(path: str, tree: list[Parts]) -> tuple[list[str], dict[str, list[tuple[str, int]]]]:
    """The sorted class names, and sorted (file, label) of "train" and "test", which has none without such a folder."""
    seen = {parts for parts in tree if not any(part.startswith(".") or part == "__MACOSX" for part in parts)}
    files = sorted(parts for parts in seen if parts[-1].lower().endswith(EXTENSIONS))
    if not files:
        raise ValueError(f"{path} holds no image; those with the extensions {', '.join(EXTENSIONS)} are read")
    start = int(len({parts[0] for parts in files}) == 1 and min(map(len, files)) > 2)  # one folder wraps all
    tops = {parts[start] for parts in files}
    is_split = {"train", "test"} <= tops
    if is_split and tops != {"train", "test"}:
        raise ValueError(
            f"{path} holds {', '.join(sorted(tops - {'train', 'test'}))} beside train and test, which would not be "
            f"read; take it out, or put its images into one of the two"
        )
    level = start + is_split  # of the class folders
    for parts in files:
        if len(parts) < level + 2:
            raise ValueError(f"{'/'.join(parts)} in {path} lies in no class folder; put it in one or take it out")
    inside = {parts[: level + 1] for parts in seen if len(parts) > level + 1 and parts[:start] == files[0][:start]}
    for parts in sorted(inside - {parts[: level + 1] for parts in files}):
        raise ValueError(f"the class folder {'/'.join(parts)} in {path} holds no image; fill it or take it out")
    train = [parts for parts in files if not is_split or parts[start] == "train"]
    if len(train) < FEWEST:
        raise ValueError(f"{path} holds {len(train)} images to train with; at least {FEWEST} are needed")
    classes = sorted({parts[level] for parts in train})
    test = [parts for parts in files if is_split and parts[start] == "test"]
    for parts in test:
        if parts[level] not in classes:
            raise ValueError(f"the class folder {'/'.join(parts[: level + 1])} in {path} has none of its name in train")
    number = {name: k for k, name in enumerate(classes)}
    found = {"train": train, "test": test}
    return classes, {name: [("/".join(parts), number[parts[level]]) for parts in x] for name, x in found.items()}
