"""Patches of two colour photographs."""

from pathlib import Path
from typing import Any

import numpy as np
import sklearn.datasets
import torch
from jsonargparse.typing import PositiveInt
from sklearn.datasets import load_sample_image
from torch import Tensor

from datamodules.attributes import Attribute
from datamodules.images import ImageDataModule
from datamodules.split import Batch, ImageDataset, Split

FOLDER = Path(sklearn.datasets.__file__).parent / "images"
HEIGHT, WIDTH, SIDE = 427, 640, 32  # of a photograph, and of a patch
PERIOD = 128  # a photograph is five times these columns:
BANDS = {"train": (0, 64), "val": (64, 96), "test": (96, 128)}


class PhotosDataModule(ImageDataModule):
    """32x32 patches of the two photographs in scikit-learn's wheel: no download.

    The class is the photograph, 0 china and 1 flower. Both are cut into vertical bands, of 64, 32 and 32 columns in
    turn, for training, validation and test, so that no pixel is in two splits, although the bands touch. In each band
    the patches' corners are on a grid, and within a split patches overlap where `stride` is less than 32: standard
    errors that take images for independent are then too small. With the default there are 5600 / 800 / 800 patches, in
    general 10 (32 // stride + 1) (395 // stride + 1) for training and 10 (395 // stride + 1) for each of the others;
    the classes have equally many.

    `index` is the position of the patch's first pixel in the two photographs, one after another, row by row:
    (class * 427 + row) * 640 + column, whatever the stride.

    Args:
        stride: Pixels from one patch to the next, down and across, in all splits.
    """

    name = "photos"
    class_names = ("china", "flower")
    image_shape = (3, SIDE, SIDE)
    num_classes = 2

    def __init__(self, stride: PositiveInt = 5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stride = stride

    def load(self) -> dict[str, Split]:
        """Raises OSError where scikit-learn's photographs are not what they were."""
        photographs = torch.stack([_photograph(f"{name}.jpg") for name in self.class_names])
        position = torch.arange(2 * HEIGHT * WIDTH).view(-1, 1, HEIGHT, WIDTH)
        generator = self.generator()
        datasets: dict[str, Split] = {}
        for name, (first, last) in BANDS.items():
            images = self._patches(photographs, first, last).flatten(0, 3)
            order = torch.randperm(len(images), generator=generator)
            index = self._patches(position, first, last)[..., 0, 0, 0].flatten()[order]
            datasets[name] = ImageDataset(images[order], index // (HEIGHT * WIDTH), index, with_other=name == "test")
        return datasets

    def attributes(self, split: str, batch: Batch) -> dict[str, Attribute]:
        """And the place of the patch's first pixel in the photograph: a row, and a column."""
        row, column = batch["index"] // WIDTH % HEIGHT, batch["index"] % WIDTH
        place = {"row": Attribute("continuous", row.double()), "column": Attribute("continuous", column.double())}
        return super().attributes(split, batch) | place

    def _patches(self, x: Tensor, first: int, last: int) -> Tensor:
        """All patches [2, rows, 5, columns, C, 32, 32] in some columns of every period of x, [2, C, 427, 640]."""
        bands = x.unflatten(3, (-1, PERIOD))[..., first:last]  # [2, C, 427, 5, last - first]
        patches = bands.unfold(2, SIDE, self.stride).unfold(4, SIDE, self.stride)  # [2, C, rows, 5, columns, 32, 32]
        return patches.movedim(1, 4)


def _photograph(name: str) -> Tensor:
    """Uint8 [3, 427, 640]."""
    remedy = "reinstall scikit-learn, which ships it"
    try:
        pixels = load_sample_image(name)
    except (OSError, AttributeError, ValueError) as error:
        raise OSError(f"cannot read {name} in {FOLDER} ({type(error).__name__}: {error}); {remedy}") from error
    if pixels.dtype != np.uint8 or pixels.shape != (HEIGHT, WIDTH, 3):
        raise OSError(
            f"{FOLDER / name} has pixels of type {pixels.dtype} and shape {list(pixels.shape)}, not uint8 and "
            f"{[HEIGHT, WIDTH, 3]}; {remedy}"
        )
    return torch.tensor(pixels).permute(2, 0, 1)
