"""affNIST's official zips, and the memory-mapped file that a set of images is kept in."""

import zipfile
from collections.abc import Iterator
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from scipy.io import loadmat
from torch import Tensor

from datamodules.affine import SIDE, ink_box
from datamodules.pictures import check_regular, member_bytes
from runtime.files import write_npy

URL = "https://www.cs.toronto.edu/~tijmen/affNIST/32x/transformed/"


def memory_mapped(path: Path, num_images: int, chunks: Iterator[tuple[int, Tensor]]) -> Tensor:
    """The images of a file, which is made first where it is not there: uint8 [num_images, 1, 40, 40].

    The file's name is its kind, its parameters and a digest of what it is made from, so that no other is read for it.
    A chunk is the position of its first image, and its images.

    Raises:
        OSError: Where the disk has no room, or the file is not what its name says.
    """
    shape = (num_images, 1, SIDE, SIDE)
    if not path.exists():
        others = sorted(other.name for other in path.parent.glob(f"{path.name.split('.')[0]}.*.npy"))
        note = f"; {', '.join(others)} beside it has other parameters or data, and stays" if others else ""
        write_npy(path, np.dtype(np.uint8), shape, chunks, f"making {path}", note)
    try:
        # "c": a private mapping, which torch takes for writable; nobody writes.
        images = np.load(path, mmap_mode="c")
    except (OSError, ValueError, EOFError) as error:
        raise OSError(f"cannot read {path} ({error}); delete it and it is made again") from error
    if images.shape != shape or images.dtype != np.uint8:
        raise OSError(f"{path} holds {images.dtype} {list(images.shape)}, not uint8 {list(shape)}; delete it")
    return torch.from_numpy(images)


class MatZip:
    """A zip of .mat files, one for each transformation, of the same originals in the same order.

    Nothing is unpacked to disk.

    Raises:
        OSError: Where it is not there or not such a zip.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            check_regular(path)
            with zipfile.ZipFile(path) as archive:
                found = [member for member in archive.infolist() if Path(member.filename).match("[0-9]*.mat")]
            self.members = sorted(found, key=lambda member: int(Path(member.filename).stem))  # 1.mat, 2.mat and so on
        except FileNotFoundError:
            raise FileNotFoundError(
                f"there is no {path.name} in {path.parent}; put it there from {URL}, or give --data.source generated"
            ) from None
        except Exception as error:  # zipfile promises no list of what a broken file raises
            raise self._error(f"{type(error).__name__}: {error}") from error
        if not self.members:
            raise self._error("no 1.mat in it")
        self.digest = sha256(repr([member.CRC for member in self.members]).encode()).hexdigest()[:8]
        self.labels = self._read(0)[1]  # of the originals: int64 [N]

    def _error(self, reason: str) -> OSError:
        return OSError(f"cannot read {self.path} ({reason}); put {self.path.name} from {URL} there again")

    def _read(self, k: int) -> tuple[np.ndarray, Tensor]:
        """Pixels uint8 [1600, N], an image a column, and labels int64 [N]."""
        name = self.members[k].filename
        try:
            with zipfile.ZipFile(self.path) as archive:
                content = loadmat(BytesIO(member_bytes(archive, name)), variable_names=["affNISTdata"])
            fields = content["affNISTdata"][0, 0]
            pixels, labels = fields["image"], fields["label_int"].ravel().astype(np.int64)
        except Exception as error:  # scipy promises no list of what a broken file raises
            raise self._error(f"{name}: {type(error).__name__}: {error}") from error
        if pixels.shape != (SIDE**2, len(labels)) or pixels.dtype != np.uint8:
            found = f"{pixels.dtype} {list(pixels.shape)} of images, {len(labels)} labels"
            raise self._error(f"{name}: {found}; not uint8 [{SIDE**2}, N] and N")
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
