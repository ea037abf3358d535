"""affNIST: MNIST's digits under random affine transformations on a larger canvas."""

import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from scipy.io import loadmat
from scipy.io.matlab import MatReadError
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from datamodules.images import Batch, ImageDataModule, ImageDataset
from datamodules.mnist import MNISTDataModule

SIDE = 40
RECIPE = 1  # counts up when `transformed` changes what it gives, so that older files are not taken for its
URL = "https://www.cs.toronto.edu/~tijmen/affNIST/32x/transformed/"
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
        kwargs: As for ImageDataModule.
    """

    image_shape = (1, SIDE, SIDE)
    num_classes = 10

    def __init__(
        self,
        data_dir: str = "data",
        source: Literal["auto", "official", "generated"] = "auto",
        num_transformations: int = 32,
        val_split: int = 10_000,
        all_test_transformations: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if source not in ("auto", "official", "generated"):
            raise ValueError(f"source {source!r} must be auto, official or generated")
        if num_transformations < 1:
            raise ValueError(f"num_transformations {num_transformations} must be positive")
        self.data_dir = data_dir
        self.folder = Path(data_dir) / "affNIST"
        self.is_official = source == "official" or (
            source == "auto" and any((self.folder / name).exists() for name in (TRAIN_ZIP, TEST_ZIP))
        )
        self.name = "affnist" if self.is_official else "affnist_generated"
        self.num_transformations = num_transformations
        self.val_split = val_split
        self.all_test_transformations = all_test_transformations

    def prepare_data(self) -> None:
        """Write the files that are mapped. Raises OSError where there is nothing to make them from, or no room."""
        self.load()

    def load(self) -> dict[str, Dataset[Batch]]:
        return self._official() if self.is_official else self._generated()

    def _num_train(self, num_originals: int) -> int:
        if not 0 < self.val_split < num_originals:
            raise ValueError(f"val_split {self.val_split} must lie between 1 and {num_originals - 1}")
        return num_originals - self.val_split

    def _official(self) -> dict[str, Dataset[Batch]]:
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
        datasets: dict[str, Dataset[Batch]] = {"train": _all(train, train_zip.labels[:n], torch.arange(n), K)}
        originals = torch.randperm(self.val_split, generator=self.generator())
        k = torch.randint(K, (self.val_split,), generator=self.generator())
        index = (n + originals) * K + k
        datasets["val"] = ImageDataset(val[k, originals], train_zip.labels[n:][originals], index)

        K, n = len(test_zip.members), len(test_zip.labels)
        path = self.folder / f"official_test.{n}x{K}.{test_zip.digest}.npy"
        test = memory_mapped(path, K * n, ((k * n, test_zip.images(k)) for k in range(K)))
        k = torch.randint(K, (n,), generator=self.generator())
        datasets["test"] = self._test(test, test_zip.labels, k, K)
        return datasets

    def _generated(self) -> dict[str, Dataset[Batch]]:
        mnist = MNISTDataModule(self.data_dir)
        K = self.num_transformations
        digits, labels = mnist._read(train=True)
        order = torch.randperm(len(digits), generator=self.generator())
        n = self._num_train(len(digits))
        originals, held_out = order[:n].sort().values, order[n:]
        chunks = (
            (k * n + first, transformed(digits, originals[first : first + 10_000], k, self.seed))
            for k in range(K)
            for first in range(0, n, 10_000)
        )
        digest = sha256(digits.numpy().tobytes()).hexdigest()[:8]
        path = self.folder / f"generated.{n}x{K}.seed{self.seed}.recipe{RECIPE}.{digest}.npy"
        datasets: dict[str, Dataset[Batch]] = {
            "train": _all(memory_mapped(path, K * n, chunks), labels[originals], originals, K),
            "val": ImageDataset(transformed(digits, held_out, 0, self.seed), labels[held_out], held_out * K),
        }
        digits, labels = mnist._read(train=False)
        every = torch.arange(len(digits))
        drawn = range(K) if self.all_test_transformations else range(1)
        test = torch.cat([transformed(digits, every, k, self.seed, is_test=True) for k in drawn])
        datasets["test"] = self._test(test, labels, torch.zeros_like(every), K)
        return datasets

    def _test(self, images: Tensor, labels: Tensor, k: Tensor, num: int) -> ImageDataset:
        """In a seeded order: of images [num n, 1, 40, 40], by transformation, all or `k` [n] of each original."""
        n = len(labels)
        row = torch.arange(num * n) if self.all_test_transformations else k * n + torch.arange(n)
        row = row[torch.randperm(len(row), generator=self.generator())]
        return ImageDataset(images[row], labels[row % n], (row % n) * num + row // n, with_other=True)


def _all(images: Tensor, labels: Tensor, originals: Tensor, num: int) -> ImageDataset:
    """All images [num n, 1, 40, 40], sorted by transformation, of originals [n] with labels [n]."""
    k = torch.arange(num)[:, None]
    return ImageDataset(images, labels.repeat(num), (originals * num + k).flatten())


def memory_mapped(path: Path, num_images: int, chunks: Iterator[tuple[int, Tensor]]) -> Tensor:
    """The images of a file, which is made first where it is not there: uint8 [num_images, 1, 40, 40].

    The file's name is its kind, its parameters and a digest of what it is made from, so that no other is read for it.

    Args:
        path: Of the .npy.
        num_images: In it.
        chunks: The position of a chunk's first image, and its images: uint8 [n, 1, 40, 40].

    Raises:
        OSError: Where the disk has no room, or the file is not what its name says.
    """
    shape = (num_images, 1, SIDE, SIDE)
    if not path.exists():
        _write(path, shape, chunks)
    try:
        # "c": a private mapping, which torch takes for writable; nobody writes.
        images = np.load(path, mmap_mode="c")
    except (OSError, ValueError, EOFError) as error:
        raise OSError(f"cannot read {path} ({error}); delete it and it is made again") from error
    if images.shape != shape or images.dtype != np.uint8:
        raise OSError(f"{path} holds {images.dtype} {list(images.shape)}, not uint8 {list(shape)}; delete it")
    return torch.from_numpy(images)


def _write(path: Path, shape: tuple[int, ...], chunks: Iterator[tuple[int, Tensor]]) -> None:
    """Under another name first, so that there is a whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    size = int(np.prod(shape))
    free = shutil.disk_usage(path.parent).free
    if free < size + 2**20:
        raise OSError(f"{path} needs {size / 1e9:.2f} GB and {path.parent} has {free / 1e9:.2f} GB free; make room")
    others = sorted(other.name for other in path.parent.glob(f"{path.name.split('.')[0]}.*.npy"))
    note = f"; {', '.join(others)} beside it has other parameters or data, and stays" if others else ""
    print(f"making {path}, {size / 1e9:.2f} GB, once{note}", flush=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with (
            os.fdopen(handle, "wb") as file,
            tqdm(total=shape[0], desc=path.name, unit=" images", delay=5, leave=False) as bar,
        ):
            np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
            start = file.tell()
            for first, images in chunks:
                file.seek(start + first * SIDE**2)
                file.write(images.numpy().tobytes())
                bar.update(len(images))
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


# Generated


CHUNK = 500  # images transformed at a time: what the processor's cache holds


def transformed(digits: Tensor, originals: Tensor, k: int, seed: int, is_test: bool = False) -> Tensor:
    """Transformation k of some digits, each a function of (seed, is_test, original, k).

    Rotation in ±20°, shear in ±0.2, horizontal and vertical scale in 0.8 to 1.2, all uniform and independent, and
    every translation for which the ink, that is pixels above 0, stays on the canvas, equally likely.

    Args:
        digits: All of a file: uint8 [N, 1, 28, 28].
        originals: Which of them: [n].
        k: Which transformation.
        seed: Of all.
        is_test: For the digits of the other file, which are numbered alike.

    Returns:
        uint8 [n, 1, 40, 40].
    """
    random = np.random.Generator(np.random.Philox(key=[seed, 2 * k + is_test]))
    u = torch.from_numpy(random.random((len(digits), 6)))[originals]  # row i is the same for any N > i
    angle = torch.deg2rad(40 * u[:, 0] - 20)
    shear = 0.4 * u[:, 1] - 0.2
    scale = 0.8 + 0.4 * u[:, 2:4]
    parts = [
        shifted(warped(digits[originals[c]], angle[c], shear[c], scale[c]), u[c, 4:])
        for c in torch.arange(len(originals)).split(CHUNK)
    ]
    return torch.cat(parts)


def ink_box(images: Tensor) -> Tensor:
    """The first and last row and the first and last column with ink, of images [n, 1, H, W]: [n, 4]."""
    ends = []
    for axis in (2, 1):
        ink = (images[:, 0].amax(axis) > 0).byte()  # [n, H], [n, W]
        ends += [ink.argmax(1), ink.shape[1] - 1 - ink.flip(1).argmax(1)]
    return torch.stack(ends, dim=1)


def warped(digits: Tensor, angle: Tensor, shear: Tensor, scale: Tensor) -> Tensor:
    """Digits scaled, then sheared, then rotated, about the middle of their ink, which goes to the canvas's middle.

    An original's ink is at most 20x20, so it never reaches beyond the canvas.

    Args:
        digits: uint8 [n, 1, 28, 28].
        angle: [n] radians.
        shear: [n], horizontal, per unit of height.
        scale: [n, 2], horizontal and vertical.

    Returns:
        uint8 [n, 1, 40, 40], bilinear.
    """
    top, bottom, left, right = (end[:, None, None] for end in ink_box(digits).float().unbind(1))
    middle_y, middle_x = (top + bottom) / 2, (left + right) / 2  # whole or half pixels
    pixel = torch.arange(SIDE, dtype=torch.float32)
    # With whole pixels between the two middles, the identity interpolates nothing.
    y = pixel[:, None] - (SIDE // 2 - 1 + middle_y % 1)  # [n, 40, 1]
    x = pixel - (SIDE // 2 - 1 + middle_x % 1)  # [n, 1, 40]
    angle, shear, scale = angle.float(), shear.float(), scale.float()
    cos, sin, shear = (value[:, None, None] for value in (angle.cos(), angle.sin(), shear))
    rotated_x, rotated_y = cos * x + sin * y, cos * y - sin * x  # backwards: from the canvas to the original
    source_y = rotated_y / scale[:, 1, None, None] + middle_y
    source_x = (rotated_x - shear * rotated_y) / scale[:, 0, None, None] + middle_x
    last = digits.shape[-1] - 1
    grid = torch.stack((source_x, source_y), dim=-1) * (2 / last) - 1  # [n, 40, 40, 2]
    values = F.grid_sample(digits.float(), grid, mode="bilinear", align_corners=True)
    return values.round().byte()


def shifted(images: Tensor, u: Tensor) -> Tensor:
    """Images moved by whole pixels to where u [n, 2] in [0, 1), vertical and horizontal, sends their ink on the canvas.

    All positions on the canvas are equally likely for uniform u. Takes and returns [n, 1, 40, 40].
    """
    top, bottom, left, right = ink_box(images).unbind(1)
    to_top = (u[:, 0] * (SIDE - (bottom - top))).long()
    to_left = (u[:, 1] * (SIDE - (right - left))).long()
    pixel = torch.arange(SIDE)
    # What wraps around has no ink.
    rows = (pixel - (to_top - top)[:, None]) % SIDE  # [n, 40]
    columns = (pixel - (to_left - left)[:, None]) % SIDE
    n = torch.arange(len(images))[:, None, None]
    return images[n, 0, rows[:, :, None], columns[:, None, :]][:, None]


# Official


class MatZip:
    """A zip of .mat files, one for each transformation, of the same originals in the same order.

    Args:
        path: Of the zip. Nothing is unpacked to disk.

    Attributes:
        members: The .mat files in it, 1.mat, 2.mat and so on.
        digest: Of their checksums.
        labels: Of the originals: int64 [N].

    Raises:
        OSError: Where it is not there or not such a zip.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with zipfile.ZipFile(path) as archive:
                found = [member for member in archive.infolist() if Path(member.filename).match("[0-9]*.mat")]
            self.members = sorted(found, key=lambda member: int(Path(member.filename).stem))
        except FileNotFoundError:
            raise FileNotFoundError(
                f"there is no {path.name} in {path.parent}; put it there from {URL}, or give --data.source generated"
            ) from None
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise self._error(error) from error
        if not self.members:
            raise self._error("no 1.mat in it")
        self.digest = sha256(repr([member.CRC for member in self.members]).encode()).hexdigest()[:8]
        self.labels = self._read(0)[1]

    def _error(self, reason: Exception | str) -> OSError:
        kind = f"{type(reason).__name__}: " if isinstance(reason, Exception) else ""
        return OSError(f"cannot read {self.path} ({kind}{reason}); put {self.path.name} from {URL} there again")

    def _read(self, k: int) -> tuple[np.ndarray, Tensor]:
        """Pixels uint8 [1600, N], an image a column, and labels int64 [N]."""
        name = self.members[k].filename
        try:
            with zipfile.ZipFile(self.path) as archive:
                content = loadmat(BytesIO(archive.read(name)), variable_names=["affNISTdata"])
            fields = content["affNISTdata"][0, 0]
            pixels, labels = fields["image"], fields["label_int"].ravel().astype(np.int64)
        except (
            OSError, ValueError, KeyError, IndexError, TypeError, EOFError, AttributeError, NotImplementedError,
            RuntimeError, zlib.error, zipfile.BadZipFile, MatReadError,
        ) as error:  # fmt: skip
            raise self._error(f"{name}: {type(error).__name__}: {error}") from error
        if pixels.shape != (SIDE**2, len(labels)) or pixels.dtype != np.uint8:
            raise self._error(
                f"{name}: {pixels.dtype} {list(pixels.shape)} of images, {len(labels)} labels; "
                f"not uint8 [{SIDE**2}, N] and N"
            )
        if len(labels) == 0 or labels.min() < 0 or labels.max() > 9:
            raise self._error(f"{name}: the labels are not digits")
        return pixels, torch.from_numpy(labels)

    def images(self, k: int) -> Tensor:
        """Transformation k of all originals: uint8 [N, 1, 40, 40]."""
        pixels, labels = self._read(k)
        if not torch.equal(labels, self.labels):
            raise self._error(f"{self.members[k].filename}: its labels are not those of {self.members[0].filename}")
        return upright(torch.from_numpy(np.ascontiguousarray(pixels.T)).view(-1, 1, SIDE, SIDE))


def upright(images: Tensor) -> Tensor:
    """Images [N, 1, 40, 40], transposed where all of them together have wider ink than tall.

    The files do not say whether an image's column of pixels goes by rows or, as is MATLAB's habit, by columns, and
    public readers differ. Handwritten digits are taller than wide, MNIST's by a quarter on average.
    """
    top, bottom, left, right = ink_box(images).unbind(1)
    return images if (bottom - top).sum() >= (right - left).sum() else images.mT.contiguous()
