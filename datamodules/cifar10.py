"""Small photographs of ten kinds of things: CIFAR-10."""

import pickle
import tarfile
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.datasets import CIFAR10
from torchvision.datasets.utils import download_and_extract_archive

from datamodules.images import Batch, ImageDataModule

MD5 = dict(CIFAR10.train_list + CIFAR10.test_list)  # of each file, in the order of `index`
TRAIN_FILES = [name for name, _ in CIFAR10.train_list]
TEST_FILES = [name for name, _ in CIFAR10.test_list]


class _ArrayUnpickler(pickle.Unpickler):
    """Reads plain values and NumPy arrays, and refuses everything else, which a file could have executed."""

    def find_class(self, module: str, name: str) -> Any:
        reconstruct = np.empty(0).__reduce__()[0]
        allowed = {  # of our own, methods: a file can set the attributes of a function
            "numpy.core.multiarray._reconstruct": reconstruct,
            "numpy._core.multiarray._reconstruct": reconstruct,
            "numpy.ndarray": np.ndarray,
            "numpy.dtype": self._dtype,
            "_codecs.encode": self._encode,
        }
        if f"{module}.{name}" not in allowed:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not part of an array")
        return allowed[f"{module}.{name}"]

    def _dtype(self, name: str, align: int, copy: int) -> np.dtype[Any]:
        """The original files give the flags as integers, at which NumPy 2.4 warns."""
        return np.dtype(name, bool(align), bool(copy))

    def _encode(self, text: str, encoding: str) -> bytes:
        """How Python 3 writes bytes in Python 2's protocol, the encoding always latin1."""
        return text.encode("latin1")


class CIFAR10DataModule(ImageDataModule):
    """CIFAR-10, 45 000 / 5 000 / 10 000 (Krizhevsky 2009), from the files of its Python version.

    Files in `data_dir`/cifar-10-batches-py are used as they lie, and nothing in them is executed. Where one is missing
    the archive is downloaded, its checksum verified, and all of it extracted there. `index` counts in the five training
    files one after another for the first two splits and in the test file for the last.

    Args:
        data_dir: The folder that holds cifar-10-batches-py.
        val_split: Images of the training files kept for validation, a seeded choice.
        kwargs: As for ImageDataModule.
    """

    name = "cifar10"
    class_names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    image_shape = (3, 32, 32)
    num_classes = 10

    def __init__(
        self,
        data_dir: str = "data",
        val_split: int = 5000,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.data_dir = data_dir
        self.val_split = val_split

    @property
    def _folder(self) -> Path:
        return Path(self.data_dir).expanduser() / CIFAR10.base_folder

    def prepare_data(self) -> None:
        """Download what is missing. Raises OSError naming files, folder and checksums where that fails."""
        if not all((self._folder / name).exists() for name in MD5):
            self._download()
        self._read(TRAIN_FILES)
        self._read(TEST_FILES)

    def _download(self) -> None:
        """Not by torchvision's data set, which would unpickle whatever lies there."""
        root = self._folder.parent
        try:
            download_and_extract_archive(CIFAR10.url, root, filename=CIFAR10.filename, md5=CIFAR10.tgz_md5)
        except (OSError, RuntimeError, ValueError, EOFError, HTTPException, tarfile.TarError) as error:
            files = ", ".join(f"{name} (md5 {md5})" for name, md5 in MD5.items())
            raise OSError(
                f"cannot download CIFAR-10 to {self._folder} ({type(error).__name__}: {error}); put {files} there, or "
                f"{CIFAR10.filename} (md5 {CIFAR10.tgz_md5}) into {root}, or give the folder above "
                f"{CIFAR10.base_folder} as --data.data_dir"
            ) from error

    def _read(self, names: list[str]) -> tuple[Tensor, Tensor]:
        """Images uint8 [N, 3, 32, 32] and labels [N] of some of the files, one after another."""
        batches = [self._read_file(name) for name in names]
        images, labels = (np.concatenate(part) for part in zip(*batches, strict=True))
        return torch.from_numpy(images).view(-1, 3, 32, 32), torch.from_numpy(labels)

    def _read_file(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Pixels uint8 [N, 3072] and labels int64 [N]."""
        path = self._folder / name
        remedy = f"delete the file, whose original has md5 {MD5[name]}, and CIFAR-10 is downloaded again"
        try:
            with path.open("rb") as file:
                entry = _ArrayUnpickler(file, encoding="latin1").load()
            pixels, labels = np.asarray(entry["data"]), np.asarray(entry["labels"])
        except Exception as error:  # pickle promises no list of what a broken file raises
            raise OSError(f"cannot read {path} ({type(error).__name__}: {error}); {remedy}") from error
        if pixels.dtype != np.uint8 or pixels.shape[1:] != (3072,) or labels.shape != pixels.shape[:1]:
            raise OSError(
                f"{path} has data of type {pixels.dtype} and shape {list(pixels.shape)}, not uint8 and [N, 3072], or "
                f"other than N labels (their shape is {list(labels.shape)}); {remedy}"
            )
        if not (labels.dtype.kind in "iu" and np.isin(labels, range(10)).all()):
            raise OSError(f"{path} has labels that are not integers from 0 to 9; {remedy}")
        return pixels, labels.astype(np.int64)

    def load(self) -> dict[str, Dataset[Batch]]:
        return self.split(
            self._read(TRAIN_FILES), self._read(TEST_FILES), self.val_split, f"val_split {self.val_split}"
        )
