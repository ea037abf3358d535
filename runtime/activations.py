"""A frozen layer's h of a whole split, computed once and kept on disk."""

import hashlib
import re
import zlib
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from inverters.representation import Representation, digest
from runtime.files import locked, size_for_people, write_npy

Precision = Literal["float32", "float16"]
CHUNK = 2**24  # bytes read at a time


def cached_activations(
    representation: Representation,
    images: Tensor,
    split: str,
    folder: Path,
    dtype: Precision = "float32",
    batch_size: int = 250,
) -> np.memmap:
    """h of a split's images, raw, in the order of the images: [N, ...], memory-mapped and read-only.

    It lies in `folder`/<layer>_<split>_<digest>.npy. Whoever comes first computes it; others wait at a lock file. It is
    trusted only where its checksum is that of what its name stands for, and where the network still gives the first
    rows; otherwise it is made again. An open map keeps what it maps when its file is replaced.

    Args:
        representation: Of one layer, on the device that is to compute.
        images: uint8 [N, C, H, W].
        split: Its name.
        folder: Made where it is missing.
        dtype: What is kept. float16 rounds h by up to 1 in 2048 of its value.
        batch_size: Rounding in float32 can depend on it, so a run gives its own. Any will do for a search.

    Raises:
        OSError: The disk has too little room.
        ValueError: h is too large for float16.
    """
    made_of = activation_digest(representation, images, dtype)
    layer = re.sub(r"[^\w.]", "_", str(representation.layer))
    path = folder / f"{layer}_{split}_{made_of[:16]}.npy"
    folder.mkdir(parents=True, exist_ok=True)
    first = _rows(representation, images[:batch_size], dtype)
    with locked(path.with_suffix(".lock")):
        fault = _fault(path, made_of, first, len(images)) if path.exists() else None
        if fault or not path.exists():
            # The room is needed. A map of the file stays valid, and whoever was killed while writing holds no lock.
            for unusable in (path, *folder.glob(f".{path.name}.*")):
                unusable.unlink(missing_ok=True)
            others = [other for other in folder.glob(f"{path.name[:-20]}*.npy") if other != path]
            size = size_for_people(sum(other.stat().st_size for other in others))
            starts = range(0, len(images), batch_size)
            write_npy(
                path, first.dtype, (len(images), *first.shape[1:]),
                ((i, _rows(representation, images[i : i + batch_size], dtype)) for i in starts),
                f"{path} {fault}; making it again" if fault else f"making {path}",
                f"; {len(others)} beside it of other weights, images or precision, {size}, stay" if others else "",
                "make room there, or run without the cache (--cache_activations none)",
                made_of.encode(),
            )  # fmt: skip
        h = np.load(path, mmap_mode="r")
    assert isinstance(h, np.memmap)
    return h


def activation_digest(representation: Representation, images: Tensor, dtype: Precision) -> str:
    """sha256 of what decides h: the network, with the weights that h needs, how it sees the images, these, and where it
    is computed.

    Processors and GPUs round differently, and so have files of their own.
    """
    channels, height, width = images.shape[1:]
    needed = representation.needed((channels, height, width))
    about = (digest(representation.network, needed), representation.layer, representation.tokens)
    device = _device(representation, images).type
    seen = representation.preprocess.what
    made_of = hashlib.sha256(f"{about} {seen} {dtype} {device} {list(images.shape)}".encode())
    for part in images.flatten().split(CHUNK):
        made_of.update(part.cpu().numpy())
    return made_of.hexdigest()


def _device(representation: Representation, images: Tensor) -> torch.device:
    """Where h is computed; a network without weights computes where the images are."""
    return next(chain(representation.parameters(), representation.buffers(), [images])).device


def _rows(representation: Representation, images: Tensor, dtype: Precision) -> np.ndarray:
    """h of one batch, [B, ...], as it is kept. Raises ValueError where it is too large for that."""
    h = representation(images.to(_device(representation, images)))
    kept = h.to(getattr(torch, dtype))
    if not kept.isfinite().all():
        raise ValueError(f"h of {representation.layer} reaches {h.abs().max():.3g}, which {dtype} does not hold")
    return kept.cpu().numpy()


def _fault(path: Path, made_of: str, first: np.ndarray, num_images: int) -> str | None:
    """What is wrong with a file of activations, said of it; None where it is good."""
    checksum = zlib.crc32(made_of.encode())
    size = path.stat().st_size - 4
    with path.open("rb") as file:
        while size > 0 and (chunk := file.read(min(CHUNK, size))):
            checksum = zlib.crc32(chunk, checksum)
            size -= len(chunk)
        if size or file.read() != checksum.to_bytes(4):
            return "holds other bytes than were written for it"
    # The digest sees weights, not code; the tolerance lets roundings differ, of float16 or of another version of torch.
    try:
        h = np.load(path, mmap_mode="r")
    except (ValueError, EOFError, OSError) as error:  # bytes with the right checksum can be made
        return f"is no array ({error})"
    if (h.shape, h.dtype) != ((num_images, *first.shape[1:]), first.dtype):
        return f"is {list(h.shape)} of {h.dtype}"
    if not np.allclose(h[: len(first)], first, rtol=0, atol=1e-3 * float(abs(first).max())):
        return "is not what the network gives now"
    return None


class Rows:
    """Rows of a memory-mapped array by position. A loader's worker opens the file again instead of getting a copy."""

    def __init__(self, h: np.memmap) -> None:
        self.h = h

    def __getitem__(self, positions: Sequence[int]) -> Tensor:
        return torch.from_numpy(np.asarray(self.h[np.asarray(positions)]))

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (str(self.h.filename),)


def _reopened(path: str) -> Rows:
    return Rows(np.load(path, mmap_mode="r"))
