"""Small photographs of ten kinds of things: CIFAR-10."""

from typing import Any

import torch
from torchvision.datasets import CIFAR10

from datamodules.downloaded import DownloadedDataModule
from datamodules.split import ImagesAndLabels, Split


class CIFAR10DataModule(DownloadedDataModule):
    """CIFAR-10, 45 000 / 5 000 / 10 000 (Krizhevsky 2009), from its Python version in `data_dir`/cifar-10-batches-py.

    The training file's parts are counted one after another.

    Args:
        val_split: Images of the training file kept for validation, a seeded choice.
    """

    name = "cifar10"
    class_names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    image_shape = (3, 32, 32)
    num_classes = 10
    packed = f", or {CIFAR10.filename} (md5 {CIFAR10.tgz_md5}) beside that folder"

    def __init__(self, val_split: int = 5000, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.val_split = val_split

    @property
    def checksums(self) -> dict[str, str]:
        files = [*CIFAR10.train_list, *CIFAR10.test_list, (CIFAR10.meta["filename"], CIFAR10.meta["md5"])]
        return {f"{CIFAR10.base_folder}/{name}": md5 for name, md5 in files}

    def _read(self, train: bool) -> ImagesAndLabels:
        photographs = CIFAR10(self.data_dir, train, download=True)
        return torch.from_numpy(photographs.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(photographs.targets)

    def load(self) -> dict[str, Split]:
        return self.split(self.read(train=True), self.val_split, f"val_split {self.val_split}")
