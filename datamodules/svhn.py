"""House numbers: the cropped digits of SVHN."""

from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.io import loadmat
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.datasets import SVHN
from torchvision.datasets.utils import download_url

from datamodules.images import Batch, ImageDataModule


class SVHNDataModule(ImageDataModule):
    """SVHN's cropped digits, 65 931 / 7 326 / 26 032 (Netzer et al. 2011); its `extra` images are never used.

    train_32x32.mat and test_32x32.mat in `data_dir` are used as they lie; what is missing is downloaded there and its
    checksum verified. `index` counts in the training file for the first two splits and in the test file for the last.
    A label is the digit; the files call the digit 0 by 10.

    Args:
        data_dir: The folder that holds the two files.
        val_share: The share of the training file kept for validation, a seeded choice.
        kwargs: As for ImageDataModule.
    """

    name = "svhn"
    image_shape = (3, 32, 32)
    num_classes = 10

    def __init__(
        self,
        data_dir: str = "data",
        val_share: float = 0.1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.data_dir = data_dir
        self.val_share = val_share

    @property
    def _folder(self) -> Path:
        return Path(self.data_dir).expanduser()

    def prepare_data(self) -> None:
        """Download what is missing. Raises OSError naming file, folder and checksum where that fails."""
        for split in ("train", "test"):
            self._download(split)
            self._read(split)

    def _download(self, split: str) -> None:
        url, name, md5 = SVHN.split_list[split]
        if (self._folder / name).exists():
            return
        part = f"{name}.part"  # what was interrupted or fails the checksum must not pass for the file
        try:
            download_url(url, self._folder, part, md5)
            (self._folder / part).rename(self._folder / name)
        except (OSError, RuntimeError, ValueError, EOFError, HTTPException) as error:
            raise OSError(
                f"cannot download SVHN's {name} to {self._folder} ({type(error).__name__}: {error}); put {name} "
                f"(md5 {md5}) there, or give the folder that holds it as --data.data_dir"
            ) from error

    def _read(self, split: str) -> tuple[Tensor, Tensor]:
        """Images uint8 [N, 3, 32, 32] and labels [N] of one of the two files."""
        _, name, md5 = SVHN.split_list[split]
        path = self._folder / name
        remedy = f"delete the file, whose original has md5 {md5}, and it is downloaded again"
        try:
            matrices = loadmat(path, appendmat=False, variable_names=["X", "y"])
            pixels, labels = matrices["X"], matrices["y"].ravel()
        except Exception as error:  # scipy promises no list of what a broken file raises
            raise OSError(f"cannot read {path} ({type(error).__name__}: {error}); {remedy}") from error
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape != (32, 32, 3, len(labels)):
            raise OSError(
                f"{path} has X of type {pixels.dtype} and shape {list(pixels.shape)} and {len(labels)} labels, not "
                f"uint8, [32, 32, 3, N] and N; {remedy}"
            )
        if not (labels.dtype.kind in "iu" and np.isin(labels, range(1, 11)).all()):
            raise OSError(f"{path} has labels that are not integers from 1 to 10; {remedy}")
        images = torch.from_numpy(np.ascontiguousarray(pixels.transpose(3, 2, 0, 1)))
        return images, torch.from_numpy(labels.astype(np.int64) % 10)

    def load(self) -> dict[str, Dataset[Batch]]:
        train = self._read("train")
        num_val = round(self.val_share * len(train[0]))
        return self.split(train, self._read("test"), num_val, f"val_share {self.val_share}")
