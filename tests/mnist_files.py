"""Small files in MNIST's real format."""

import struct
from pathlib import Path

import numpy as np


def write_mnist(root: Path, num_train: int = 60, num_test: int = 20) -> None:
    """Random images and labels as idx files in root/MNIST/raw."""
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for prefix, n in (("train", num_train), ("t10k", num_test)):
        pixels = random.integers(256, size=(n, 28, 28), dtype=np.uint8)
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 2051, n, 28, 28) + pixels.tobytes())
        labels = np.arange(n, dtype=np.uint8) % 10
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, n) + labels.tobytes())
