"""affNIST: MNIST's digits under random affine transformations on a larger canvas."""

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import torch
from jsonargparse.typing import PositiveInt
from torch import Tensor

from datamodules.affine import RECIPE, SIDE, drawn, ink_box, transformed
from datamodules.affnist_files import MatZip, memory_mapped
from datamodules.attributes import Attribute
from datamodules.images import ImageDataModule
from datamodules.mnist import MNISTDataModule
from datamodules.split import Batch, ImageDataset, Split

TRAIN_ZIP, TEST_ZIP = "training_and_validation_batches.zip", "test_batches.zip"


class AffNISTDataModule(ImageDataModule):
    """affNIST (Tieleman 2013), or a set like it that is generated from MNIST; `name` tells which.

    The official files are `data_dir`/affNIST/training_and_validation_batches.zip and test_batches.zip; where they lie
    there they are used, otherwise MNIST is, from `data_dir`/MNIST/raw or downloaded. Every training original comes in
    all its transformations, every validation and test original in one. Training and validation share no original.
    Training images are kept in `data_dir`/affNIST, 2.6 GB at the defaults (3.6 GB with the official files' other
    splits), and mapped into memory, not read into it.

    `index` is original * K + k for transformation k of K. An original counts in its file of MNIST.

    Args:
        data_dir: The folder that holds affNIST and MNIST/raw.
        source: "official" or "generated"; "auto" is official where one of the official files is there.
        num_transformations: K of the generated set. The official one has a file each, 32.
        val_split: Originals kept for validation: a seeded choice in the generated set, the last of the official one.
        all_test_transformations: Test on all transformations instead of one, a seeded choice.
    """

    image_shape = (1, SIDE, SIDE)
    num_classes = 10
    # `name` tells the source.
    NOT_IDENTIFYING = (*ImageDataModule.NOT_IDENTIFYING, "source", "all_test_transformations")

    def __init__(
        self,
        data_dir: str = "data",
        source: Literal["auto", "official", "generated"] = "auto",
        num_transformations: PositiveInt = 32,
        val_split: int = 10_000,
        all_test_transformations: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.data_dir, self.folder = data_dir, Path(data_dir) / "affNIST"
        is_there = any((self.folder / name).exists() for name in (TRAIN_ZIP, TEST_ZIP))
        self.is_official = source == "official" or (source == "auto" and is_there)
        self.name = "affnist" if self.is_official else "affnist_generated"
        self.note = None if self.is_official else f"{self.name} is made from MNIST and is not the paper's affNIST."
        self.num_transformations, self.val_split = num_transformations, val_split
        self.all_test_transformations = all_test_transformations

    @property
    def place(self) -> str:
        return f"in {self.folder.expanduser().resolve()}"

    def prepare_data(self) -> None:
        """Write the files that are mapped. Raises OSError where there is nothing to make them from, or no room."""
        self.load()

    def load(self) -> dict[str, Split]:
        return self._official() if self.is_official else self._generated()

    def attributes(self, split: str, batch: Batch) -> dict[str, Attribute]:
        """And where the middle of the ink is; of the generated set, with what it was transformed."""
        top, bottom, left, right = ink_box(batch["image"].cpu()).double().unbind(1)
        found = {"row": (top + bottom) / 2, "column": (left + right) / 2}
        if not self.is_official:
            index, K = batch["index"].cpu(), self.num_transformations
            original, of = index // K, index % K
            its = torch.empty(len(index), 4, dtype=torch.float64)
            for k in of.unique().tolist():
                chosen = original[of == k]
                angle, shear, scale, _ = drawn(int(chosen.max()) + 1, chosen, k, self.seed, split == "test")
                its[of == k] = torch.column_stack((angle, shear, scale))
            found |= dict(zip(("rotation", "shear", "width", "height"), its.unbind(1), strict=True))
        numbers = {name: Attribute("continuous", values) for name, values in found.items()}
        return super().attributes(split, batch) | numbers

    def _num_train(self, num_originals: int) -> int:
        if not 0 < self.val_split < num_originals:
            raise ValueError(f"val_split {self.val_split} must lie between 1 and {num_originals - 1}")
        return num_originals - self.val_split

    def _official(self) -> dict[str, Split]:
        train_zip, test_zip = (MatZip(self.folder / name) for name in (TRAIN_ZIP, TEST_ZIP))
        K, n = len(train_zip.members), self._num_train(len(train_zip.labels))

        # The file of transformation k holds all originals. Ours has the training images of all k, then the others.
        def split_by_original() -> Iterator[tuple[int, Tensor]]:
            for k in range(K):
                images = train_zip.images(k)
                yield k * n, images[:n]
                yield K * n + k * self.val_split, images[n:]

        path = self.folder / f"official.{n}x{K}.{train_zip.digest}.npy"
        images = memory_mapped(path, K * len(train_zip.labels), split_by_original())
        train, val = images[: K * n], images[K * n :].unflatten(0, (K, self.val_split))
        originals = torch.randperm(self.val_split, generator=self.generator())
        k = torch.randint(K, (self.val_split,), generator=self.generator())
        datasets: dict[str, Split] = {
            "train": _all(train, train_zip.labels[:n], torch.arange(n), K),
            "val": ImageDataset(val[k, originals], train_zip.labels[n:][originals], (n + originals) * K + k),
        }

        K, n = len(test_zip.members), len(test_zip.labels)
        path = self.folder / f"official_test.{n}x{K}.{test_zip.digest}.npy"
        test = memory_mapped(path, K * n, ((k * n, test_zip.images(k)) for k in range(K)))
        k = torch.randint(K, (n,), generator=self.generator())
        return {**datasets, "test": self._test(test, test_zip.labels, k, K)}

    def _generated(self) -> dict[str, Split]:
        mnist, K = MNISTDataModule(data_dir=self.data_dir), self.num_transformations
        digits, labels = mnist.read(train=True)
        order = torch.randperm(len(digits), generator=self.generator())
        n = self._num_train(len(digits))
        originals, held_out = order[:n].sort().values, order[n:]
        chunks = ((k * n, transformed(digits, originals, k, self.seed)) for k in range(K))
        digest = sha256(digits.numpy().tobytes()).hexdigest()[:8]
        path = self.folder / f"generated.{n}x{K}.seed{self.seed}.recipe{RECIPE}.{digest}.npy"
        datasets: dict[str, Split] = {
            "train": _all(memory_mapped(path, K * n, chunks), labels[originals], originals, K),
            "val": ImageDataset(transformed(digits, held_out, 0, self.seed), labels[held_out], held_out * K),
        }
        digits, labels = mnist.read(train=False)
        every = torch.arange(len(digits))
        drawn = range(K) if self.all_test_transformations else range(1)
        test = torch.cat([transformed(digits, every, k, self.seed, is_test=True) for k in drawn])
        return {**datasets, "test": self._test(test, labels, torch.zeros_like(every), K)}

    def _test(self, images: Tensor, labels: Tensor, k: Tensor, num: int) -> ImageDataset:
        """All images [num n, 1, 40, 40], sorted by transformation, or k [n] of each original, in a seeded order."""
        n = len(labels)
        row = torch.arange(num * n) if self.all_test_transformations else k * n + torch.arange(n)
        row = row[torch.randperm(len(row), generator=self.generator())]
        return ImageDataset(images[row], labels[row % n], (row % n) * num + row // n, with_other=True)


def _all(images: Tensor, labels: Tensor, originals: Tensor, num: int) -> ImageDataset:
    """All images [num n, 1, 40, 40], sorted by transformation, of originals [n] with labels [n]."""
    return ImageDataset(images, labels.repeat(num), (originals * num + torch.arange(num)[:, None]).flatten())
