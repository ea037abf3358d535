"""Worlds where the information is known exactly: an estimator is tried where the truth is known."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.images import Batch, ImageDataModule, ImageDataset


class FreshBits(Dataset[Batch]):
    """Images of independent uniform B-bit pixels, each a function of (seed, position) and drawn when asked for.

    Args:
        num_images: So many before the first one comes again.
        image_shape: (C, H, W).
        num_bits: B. The values are spread over 0..255 in steps of 2^(8 - B).
        seed: Of all of them.
    """

    def __init__(self, num_images: int, image_shape: tuple[int, int, int], num_bits: int, seed: int) -> None:
        self.num_images, self.image_shape, self.num_bits, self.seed = num_images, image_shape, num_bits, seed

    def __len__(self) -> int:
        return self.num_images

    def __getitems__(self, positions: Sequence[int]) -> Batch:
        levels = [
            np.random.Generator(np.random.Philox(key=self.seed, counter=[0, 0, 0, p])).integers(
                2**self.num_bits, size=self.image_shape, dtype=np.uint8
            )
            for p in positions
        ]
        images = torch.from_numpy(np.stack(levels)) * 2 ** (8 - self.num_bits)
        index = torch.as_tensor(positions)
        return {"image": images, "label": torch.zeros_like(index), "index": index}


class BitDropDataModule(ImageDataModule):
    """Independent uniform B-bit pixels, of which a representation keeps the top b bits.

    H(x) = B D ln 2 and H(x | h) = (B - b) D ln 2 nats. b = B is the identity, b = 0 a constant. Training images are
    never repeated.

    Args:
        side: Height and width.
        num_bits: B, 1 to 8.
        kept_bits: b, of the representation; it decides the exact log p(x | h) and nothing else.
        num_test: Images for validation, and as many for the test.
        kwargs: As for ImageDataModule.
    """

    name = "bit_drop"
    num_classes = 1

    def __init__(
        self,
        side: int = 8,
        num_bits: int = 3,
        kept_bits: int = 1,
        num_test: int = 1000,
        batch_size: int = 64,
        **kwargs: Any,
    ) -> None:
        super().__init__(batch_size, **kwargs)
        if not 0 <= kept_bits <= num_bits <= 8:
            raise ValueError(f"kept_bits {kept_bits} and num_bits {num_bits} must obey 0 <= kept_bits <= num_bits <= 8")
        self.image_shape = (1, side, side)
        self.num_bits, self.kept_bits, self.num_test = num_bits, kept_bits, num_test

    @property
    def entropy(self) -> float:
        """H(x), nats."""
        return self.num_bits * math.prod(self.image_shape) * math.log(2)

    def exact_log_prob(self, image: Tensor) -> Tensor:
        """log p(x | h) of each of this world's images [N, C, H, W] under its own h: [N] nats."""
        dropped = (self.num_bits - self.kept_bits) * math.prod(self.image_shape) * math.log(2)
        return torch.full((len(image),), -dropped, dtype=torch.float64)

    def load(self) -> dict[str, Dataset[Batch]]:
        datasets: dict[str, Dataset[Batch]] = {
            "train": FreshBits(2**20, self.image_shape, self.num_bits, 3 * self.seed)
        }
        for k, split in enumerate(("val", "test"), start=1):
            held_out = FreshBits(self.num_test, self.image_shape, self.num_bits, 3 * self.seed + k)
            batch = held_out.__getitems__(range(self.num_test))
            datasets[split] = ImageDataset(batch["image"], batch["label"], batch["index"], with_other=split == "test")
        return datasets
