"""Small files of every data set, in its real format, and their checksums where the original ones are looked up."""

import hashlib
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from torchvision.datasets import CIFAR10, MNIST, SVHN

from datamodules import ImageDataModule, mnist

NOWHERE = "http://127.0.0.1:9/"  # nobody listens there


def loaded(data: ImageDataModule) -> ImageDataModule:
    """Its files are there, or made; its splits are there."""
    data.prepare_data()
    data.setup("fit")
    return data


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def without_downloads(patch: pytest.MonkeyPatch) -> None:
    """No test asks the mirrors."""
    patch.setattr(MNIST, "mirrors", [NOWHERE])
    patch.setattr(CIFAR10, "url", NOWHERE)
    patch.setattr(SVHN, "split_list", {split: [NOWHERE, *entry[1:]] for split, entry in SVHN.split_list.items()})


def write_mnist(root: Path, patch: pytest.MonkeyPatch, num_train: int = 60, num_test: int = 20) -> None:
    """Random images and labels as idx files in root/MNIST/raw."""
    without_downloads(patch)
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for prefix, n in (("train", num_train), ("t10k", num_test)):
        pixels = random.integers(256, size=(n, 28, 28), dtype=np.uint8)
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 2051, n, 28, 28) + pixels.tobytes())
        labels = np.arange(n, dtype=np.uint8) % 10
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, n) + labels.tobytes())
    patch.setattr(mnist, "MD5", {name: md5(folder / name) for name in mnist.MD5})


def write_cifar10(root: Path, patch: pytest.MonkeyPatch, num_images: int = 10) -> None:
    """Files of so many random images each in root/cifar-10-batches-py."""
    without_downloads(patch)
    folder = root / CIFAR10.base_folder
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for files in ("train_list", "test_list"):
        for name, _ in getattr(CIFAR10, files):
            pixels = random.integers(256, size=(num_images, 3072), dtype=np.uint8)
            labels = random.integers(10, size=num_images).tolist()
            (folder / name).write_bytes(pickle.dumps({"data": pixels, "labels": labels}, protocol=2))
        patch.setattr(CIFAR10, files, [[name, md5(folder / name)] for name, _ in getattr(CIFAR10, files)])
    meta = folder / CIFAR10.meta["filename"]
    meta.write_bytes(pickle.dumps({CIFAR10.meta["key"]: []}))
    patch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": md5(meta)})


def write_svhn(root: Path, patch: pytest.MonkeyPatch, num_train: int = 40, num_test: int = 20) -> None:
    """X [32, 32, 3, N] and y [N, 1], from 1 to 10, in root."""
    without_downloads(patch)
    root.mkdir(exist_ok=True)
    random = np.random.default_rng(0)
    for split, n in (("train", num_train), ("test", num_test)):
        url, name, _ = SVHN.split_list[split]
        pixels = random.integers(256, size=(32, 32, 3, n), dtype=np.uint8)
        savemat(root / name, {"X": pixels, "y": np.arange(n, dtype=np.uint8)[:, None] % 10 + 1})
        patch.setitem(SVHN.split_list, split, [url, name, md5(root / name)])


def noise(i: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(i).integers(256, size=(8, 8, 3), dtype=np.uint8))


def write_images(root: Path, folders: dict[str, int], picture: Callable[[int], Image.Image] = noise) -> Path:
    """So many PNGs in each folder."""
    for k, (folder, n) in enumerate(folders.items()):
        (root / folder).mkdir(parents=True, exist_ok=True)
        for i in range(n):
            picture(100 * k + i).save(root / folder / f"{i:02}.png")
    return root


def zipped(root: Path, is_wrapped: bool = False) -> str:
    """A zip beside a folder, of what is in it, or of itself."""
    return shutil.make_archive(str(root), "zip", root.parent if is_wrapped else root, root.name if is_wrapped else None)


def write_data_sets(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """MNIST, CIFAR-10 and SVHN in folder/data, and folder/pictures.zip with two classes; for as long as the patch."""
    write_mnist(folder / "data", patch, num_train=100, num_test=10)
    write_cifar10(folder / "data", patch)
    write_svhn(folder / "data", patch)
    zipped(write_images(folder / "pictures", {"cats": 30, "dogs": 30}))
