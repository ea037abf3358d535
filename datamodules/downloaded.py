"""Data sets of two files that torchvision downloads, verifies and reads."""

from abc import abstractmethod
from pathlib import Path
from typing import Any

import torch
from torchvision.datasets.utils import check_integrity

from datamodules.images import ImageDataModule
from datamodules.split import ImagesAndLabels, Split, class_balanced, splits


class DownloadedDataModule(ImageDataModule):
    """A training file and a test file, in one or more parts, whose checksums are verified before they are read.

    What lies in `data_dir` is used; what is missing there or damaged is downloaded. `index` counts in the training
    file for the first two splits and in the test file for the last.

    Args:
        data_dir: The folder for data sets.
    """

    packed = ""  # what may be put in the place of the files, as the end of a sentence

    def __init__(self, data_dir: str = "data", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.data_dir = data_dir

    @property
    def place(self) -> str:
        return f"verified by checksum in {Path(self.data_dir).expanduser().resolve()}"

    @property
    @abstractmethod
    def checksums(self) -> dict[str, str]:
        """The md5 of every file, all in one folder, by its path below `data_dir`."""

    @abstractmethod
    def _read(self, train: bool) -> ImagesAndLabels:
        """What torchvision makes of one of the two files."""

    def read(self, train: bool) -> ImagesAndLabels:
        """One of the two files, which is downloaded if need be.

        Raises:
            OSError: That fails, with the folder, and the files that are missing or damaged with their checksums; or
                what is in the files is not this data set.
        """
        md5 = {Path(self.data_dir).expanduser() / name: md5 for name, md5 in self.checksums.items()}
        folder = next(iter(md5)).parent
        try:
            images, labels = self._read(train)
        except Exception as error:  # the libraries promise no list of what a broken file raises
            wrong = ", ".join(f"{path.name} (md5 {md5[path]})" for path in md5 if not check_integrity(path, md5[path]))
            reason = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(":")
            if not wrong:
                raise OSError(
                    f"cannot read {self.name} in {folder} ({reason}), though its checksums are right"
                ) from error
            raise OSError(
                f"cannot download what is missing or damaged of {self.name} in {folder} ({reason}); "
                f"put {wrong} there{self.packed}, or give the --data.data_dir that has it"
            ) from error
        found = f"{images.dtype} {list(images.shape)} with labels {labels.dtype} {list(labels.shape)}"
        right = (torch.uint8, (len(images), *self.image_shape), torch.int64, (len(images),))
        if (images.dtype, images.shape, labels.dtype, labels.shape) != right:
            raise OSError(f"{folder} does not hold {self.name}, but {found}; take the files out and put others there")
        if not len(labels) or labels.min() < 0 or labels.max() >= self.num_classes:
            raise OSError(
                f"the {'training' if train else 'test'} file of {self.name} in {folder} has no labels from 0 to "
                f"{self.num_classes - 1}; take it out and put another there"
            )
        return images, labels

    def prepare_data(self) -> None:
        """Download what is missing. Raises OSError where that fails."""
        self.read(train=True)
        self.read(train=False)

    def split(
        self, train: ImagesAndLabels, num_val: int, argument: str, num_train: int | None = None
    ) -> dict[str, Split]:
        """The three splits: validation is a seeded choice of the training file, training the rest of it.

        Args:
            argument: What decides num_val, for the message.
            num_train: Train on so many only, the classes equally; None for all.

        Raises:
            ValueError: num_val leaves no image on either side, or there are not num_train.
        """
        labels, test = train[1], self.read(train=False)
        if not 0 < num_val < len(labels):
            raise ValueError(f"{argument} keeps {num_val} of {len(labels)} images for validation; keep some of both")
        order = torch.randperm(len(labels), generator=self.generator())
        chosen = class_balanced(labels, order[:-num_val], num_train)
        shuffled = torch.randperm(len(test[1]), generator=self.generator())
        return splits(*train, {"train": chosen, "val": order[-num_val:]}) | splits(*test, {"test": shuffled})
