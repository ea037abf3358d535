"""Small files of every data set, in its real format."""

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
from mnist_files import write_mnist
from PIL import Image
from scipy.io import savemat


def write_data_sets(folder: Path) -> None:
    """MNIST, CIFAR-10 and SVHN in folder/data, and folder/pictures.zip with two classes."""
    data = folder / "data"
    write_mnist(data, num_train=100, num_test=10)
    random = np.random.default_rng(0)
    (data / "cifar-10-batches-py").mkdir()
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        entry = {"data": random.integers(256, size=(10, 3072), dtype=np.uint8), "labels": list(range(10))}
        (data / "cifar-10-batches-py" / name).write_bytes(pickle.dumps(entry, protocol=2))
    for split in ("train", "test"):
        pixels = random.integers(256, size=(32, 32, 3, 20), dtype=np.uint8)
        savemat(data / f"{split}_32x32.mat", {"X": pixels, "y": np.arange(20, dtype=np.uint8)[:, None] % 10 + 1})
    with zipfile.ZipFile(folder / "pictures.zip", "w") as archive:
        for i in range(60):
            picture = io.BytesIO()
            Image.fromarray(random.integers(256, size=(32, 32, 3), dtype=np.uint8)).save(picture, "png")
            archive.writestr(f"{'cats' if i % 2 else 'dogs'}/{i}.png", picture.getvalue())
