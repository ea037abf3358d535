"""House numbers: the cropped digits of SVHN."""

from typing import Any

import torch
from torchvision.datasets import SVHN

from datamodules.downloaded import DownloadedDataModule
from datamodules.split import ImagesAndLabels, Split


class SVHNDataModule(DownloadedDataModule):
    """SVHN's cropped digits, 65 931 / 7 326 / 26 032 (Netzer et al. 2011); its `extra` images are never used.

    The files are train_32x32.mat and test_32x32.mat in `data_dir`. A label is the digit; the files call the digit 0
    by 10.

    Args:
        val_share: The share of the training file kept for validation, a seeded choice.
    """

    name = "svhn"
    image_shape = (3, 32, 32)
    num_classes = 10

    def __init__(self, val_share: float = 0.1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.val_share = val_share

    @property
    def checksums(self) -> dict[str, str]:
        return {name: md5 for _, name, md5 in (SVHN.split_list[split] for split in ("train", "test"))}

    def _read(self, train: bool) -> ImagesAndLabels:
        digits = SVHN(self.data_dir, "train" if train else "test", download=True)
        return torch.from_numpy(digits.data).contiguous(), torch.from_numpy(digits.labels)

    def load(self) -> dict[str, Split]:
        train = self.read(train=True)
        return self.split(train, round(self.val_share * len(train[0])), f"val_share {self.val_share}")
