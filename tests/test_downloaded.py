"""MNIST, CIFAR-10 and SVHN, through torchvision's own readers."""

import gzip
import os
import pickle
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from dataset_files import loaded, md5, without_downloads, write_cifar10, write_mnist, write_svhn
from scipy.io import loadmat
from torchvision.datasets import MNIST

from datamodules import CIFAR10DataModule, MNISTDataModule, SVHNDataModule, mnist

KINDS = {
    "mnist": (write_mnist, partial(MNISTDataModule, val_split=10)),
    "cifar10": (write_cifar10, partial(CIFAR10DataModule, val_split=10)),
    "svhn": (write_svhn, partial(SVHNDataModule, val_share=0.25)),
}
READERS = ("torchvision.datasets.mnist.read_image_file", "pickle.load", "scipy.io.loadmat")
ORIGINAL = {  # the files' well-known checksums, none of them from our tables
    "mnist": ("MNIST/raw", "train-images-idx3-ubyte", "6bbc9ace898e44ae57da46a324031adb"),
    "cifar10": ("cifar-10-batches-py", "data_batch_4", "634d18415352ddfa80567beed471001a"),
    "svhn": (".", "test_32x32.mat", "eb5a983be6a315427106f1b164d9cef3"),
}


def truth(kind: str, folder: Path, train: bool) -> tuple[np.ndarray, np.ndarray]:
    """Pixels [N, C, H, W] and labels of one of the two files, from its bytes."""
    if kind == "mnist":
        raw, prefix = folder / "MNIST" / "raw", "train" if train else "t10k"
        pixels = np.frombuffer((raw / f"{prefix}-images-idx3-ubyte").read_bytes()[16:], np.uint8)
        labels = np.frombuffer((raw / f"{prefix}-labels-idx1-ubyte").read_bytes()[8:], np.uint8)
        return pixels.reshape(-1, 1, 28, 28), labels
    if kind == "svhn":
        content = loadmat(folder / f"{'train' if train else 'test'}_32x32.mat")
        return content["X"].transpose(3, 2, 0, 1), content["y"][:, 0] % 10  # 10 stands for 0
    names = [f"data_batch_{i}" for i in range(1, 6)] if train else ["test_batch"]
    entries = [pickle.loads((folder / "cifar-10-batches-py" / name).read_bytes()) for name in names]
    pixels = np.concatenate([entry["data"] for entry in entries])
    return pixels.reshape(-1, 3, 32, 32), np.concatenate([entry["labels"] for entry in entries])


@pytest.fixture(params=KINDS)
def kind(request, tmp_path, monkeypatch):
    KINDS[request.param][0](tmp_path, monkeypatch)
    return request.param


def made(kind, folder, **kwargs):
    return KINDS[kind][1](data_dir=str(folder), **kwargs)


def splits(*args, **kwargs):
    return loaded(made(*args, **kwargs)).datasets


def test_index_finds_the_image_in_the_files(kind, tmp_path):
    for split, dataset in splits(kind, tmp_path).items():
        pixels, labels = truth(kind, tmp_path, train=split != "test")
        assert np.array_equal(dataset.images, pixels[dataset.index])
        assert np.array_equal(dataset.labels, labels[dataset.index])


def test_a_damaged_file_is_refused_before_it_is_read_and_named(kind, tmp_path, monkeypatch):
    for reader in READERS:
        monkeypatch.setattr(reader, Mock(side_effect=AssertionError("it was read")))
    data = made(kind, tmp_path)
    checksums = data.checksums
    checksums.pop("cifar-10-batches-py/batches.meta", None)  # which is read after the others, see below
    for name, right in checksums.items():
        file = tmp_path / name
        content = file.read_bytes()
        for damaged in (content[:-1], content[:-1] + bytes([content[-1] ^ 1]), b""):
            file.write_bytes(damaged)
            message = rf"damaged of {kind} in {file.parent} .*; put {file.name} \(md5 {right}\)"
            with pytest.raises(OSError, match=message):
                data.read(train=not file.name.startswith(("t10k", "test")))
        file.write_bytes(content)


@pytest.mark.parametrize("kind", KINDS)
def test_a_failed_download_names_folder_files_and_checksums(kind, tmp_path, monkeypatch):
    without_downloads(monkeypatch)
    folder, name, checksum = ORIGINAL[kind]
    with pytest.raises(OSError, match=rf"{name} \(md5 {checksum}\)") as caught:
        made(kind, tmp_path).prepare_data()
    assert f"damaged of {kind} in {tmp_path / folder} (" in str(caught.value)
    assert "--data.data_dir" in str(caught.value)


def test_nothing_in_an_unverified_file_is_executed(tmp_path, monkeypatch):
    class Command:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'executed'}",)

    write_cifar10(tmp_path, monkeypatch)
    for name in ("data_batch_2", "batches.meta"):
        file = tmp_path / "cifar-10-batches-py" / name
        content = file.read_bytes()
        file.write_bytes(pickle.dumps({"data": Command(), "label_names": Command()}))
        with pytest.raises(OSError, match=f"put {name} "):
            splits("cifar10", tmp_path)
        file.write_bytes(content)
    write_mnist(tmp_path, monkeypatch)
    before = splits("mnist", tmp_path)["train"].images
    old = tmp_path / "MNIST" / "processed"  # as torchvision once kept it, without a checksum
    old.mkdir()
    for name in (MNIST.training_file, MNIST.test_file):
        (old / name).write_bytes(pickle.dumps(Command()))
    assert torch.equal(splits("mnist", tmp_path)["train"].images, before)
    assert not (tmp_path / "executed").exists()


def test_packed_mnist_is_unpacked_where_it_lies_and_verified_too(tmp_path, monkeypatch):
    write_mnist(tmp_path, monkeypatch)
    before = splits("mnist", tmp_path)["train"].images
    files = sorted((tmp_path / "MNIST" / "raw").iterdir())
    for file in files:
        file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    packed = [file.with_name(f"{file.name}.gz") for file in files]
    monkeypatch.setattr(MNIST, "resources", [(file.name, md5(file)) for file in packed])
    assert torch.equal(splits("mnist", tmp_path)["train"].images, before)
    files[0].unlink()
    packed[0].write_bytes(packed[1].read_bytes())
    with pytest.raises(OSError, match=f"put {files[0].name} "):
        splits("mnist", tmp_path)


@pytest.mark.parametrize(("kind", "key", "value"), [
    ("mnist", "val_split", -1), ("mnist", "val_split", 60), ("cifar10", "val_split", 0), ("cifar10", "val_split", 50),
    ("svhn", "val_share", 0.001), ("svhn", "val_share", 1.0),
])  # fmt: skip
def test_validation_leaves_images_on_either_side(kind, key, value, tmp_path, monkeypatch):
    KINDS[kind][0](tmp_path, monkeypatch)
    with pytest.raises(ValueError, match=f"{key} {value} keeps"):
        splits(kind, tmp_path, **{key: value})


def test_a_file_of_the_right_checksum_with_other_contents_is_one_sentence(tmp_path, monkeypatch):
    """Which a data set of somebody else's may be; the published files are what they are."""
    write_mnist(tmp_path, monkeypatch)
    images, labels = (tmp_path / "MNIST" / "raw" / f"train-{kind}-ubyte" for kind in ("images-idx3", "labels-idx1"))
    for file, content, message in (
        (labels, labels.read_bytes()[:-1] + b"\xff", r"the training file of mnist in .*raw has no labels from 0 to 9"),
        (labels, b"\0\0\x0d\1" + labels.read_bytes()[4:8] + bytes(240), r"cannot read mnist in .*raw \(TypeError: "),
        (
            images,
            b"\0\0\x07\3" + images.read_bytes()[4:],
            r"cannot read mnist in .*raw \(AssertionError\), though its checksums are right",
        ),
        (
            images,
            images.read_bytes()[:12] + b"\0\0\0\x0e" + bytes(60 * 28 * 14),
            r"does not hold mnist, but .*28, 14\]",
        ),
    ):
        before = file.read_bytes()
        file.write_bytes(content)
        monkeypatch.setitem(mnist.MD5, file.name, md5(file))
        with pytest.raises(OSError, match=message):
            splits("mnist", tmp_path)
        file.write_bytes(before)
        monkeypatch.setitem(mnist.MD5, file.name, md5(file))
