"""The images of one split, by position, and their batches as dictionaries."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypedDict

import torch
from torch import Tensor
from torch.utils.data import Dataset

ImagesAndLabels = tuple[Tensor, Tensor]  # uint8 [N, C, H, W], int64 [N]


class Batch(TypedDict, total=False):
    """Some images and what is known of them."""

    image: Tensor  # uint8 [B, C, H, W]
    label: Tensor  # int64 [B]
    index: Tensor  # int64 [B], where the image is in the data set's files
    position: Tensor  # int64 [B], where it is in its split; from a test split, as the next one
    other_image: Tensor  # uint8 [B, C, H', W'], `seen` of the next of the split, cyclically: to score its h
    # Of which h is taken instead of `image`, where that is not what the network sees; not where the batch has h.
    context_image: Tensor  # uint8 [B, C, H', W']
    h: Tensor  # [B, ...], what a network makes of what it sees; where a callback has given the split its h


def seen(batch: Mapping[str, Any]) -> Tensor:
    """What the network sees of a batch's images, and h is taken of: uint8 [B, C, H', W']."""
    found: Tensor = batch.get("context_image", batch["image"])
    return found


class Split(Dataset[Batch], ABC):
    """The images of one split, by position."""

    images: Tensor | None  # all of them, uint8 [N, C, H, W]; None where they are drawn when asked for
    originals: Tensor | None = None  # what the network sees of them, uint8 [N, C, H', W']; None where it sees `images`
    h: Any = None  # what a network makes of what it sees, read by positions, [B, ...]; batches have it where it is set

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitems__(self, positions: Sequence[int]) -> Batch:
        """A whole batch at once; the data loader prefers this where it exists."""

    @property
    def seen(self) -> Tensor | None:
        """What the network sees of all of them; None where they are drawn when asked for."""
        return self.images if self.originals is None else self.originals

    @property
    def nbytes(self) -> int:
        """Of all images that are kept."""
        return sum(kept.nbytes for kept in (self.images, self.originals) if kept is not None)

    def first(self, num_images: int) -> Batch:
        """The first images; all, where there are fewer."""
        return self.__getitems__(range(min(num_images, len(self))))

    def to(self, device: torch.device) -> None:
        """Keep on a device what is kept, and index it there."""
        vars(self).update({name: x.to(device) for name, x in vars(self).items() if isinstance(x, Tensor)})


@dataclass(eq=False, repr=False)
class ImageDataset(Split):
    """Images in memory."""

    images: Tensor  # uint8 [N, C, H, W]
    labels: Tensor  # int64 [N]
    index: Tensor  # int64 [N], where they are in the data set's files
    with_other: bool = False  # give `position` and `other_image` too
    originals: Tensor | None = None

    def __post_init__(self) -> None:
        assert self.images.dtype == torch.uint8
        assert self.originals is None or (self.originals.dtype, len(self.originals)) == (torch.uint8, len(self.images))
        assert len(self.images) == len(self.labels) == len(self.index)

    def __len__(self) -> int:
        return len(self.images)

    def without(self, classes: Collection[int]) -> "ImageDataset":
        """Those of other classes, in the same order."""
        kept = ~torch.isin(self.labels, torch.tensor(sorted(classes)))
        originals = None if self.originals is None else self.originals[kept]
        images, labels, index = self.images[kept], self.labels[kept], self.index[kept]
        return replace(self, images=images, labels=labels, index=index, originals=originals)

    def __getitems__(self, positions: Sequence[int]) -> Batch:
        chosen = torch.as_tensor(positions)
        if self.images.is_cuda:  # which would wait for a copy of what is not pinned
            chosen = chosen.pin_memory()
        chosen = chosen.to(self.images.device, non_blocking=True)
        batch: Batch = {"image": self.images[chosen], "label": self.labels[chosen], "index": self.index[chosen]}
        if self.h is not None:
            batch["h"] = self.h[positions]
        elif self.originals is not None:
            batch["context_image"] = self.originals[chosen]
        if self.with_other:
            batch["position"] = chosen
            batch["other_image"] = (self.images if self.originals is None else self.originals)[(chosen + 1) % len(self)]
        return batch


def splits(
    images: Tensor, labels: Tensor, index: Mapping[str, Tensor], originals: Tensor | None = None
) -> dict[str, Split]:
    """A file's images, in the order that `index` gives for each split, [n], and "test" with `other_image`."""
    return {
        name: ImageDataset(
            images[i], labels[i], i, with_other=name == "test", originals=None if originals is None else originals[i]
        )
        for name, i in index.items()
    }


def class_balanced(labels: Tensor, index: Tensor, num_images: int | None) -> Tensor:
    """The first images of each class, equally many, of those in an order, `index` [n]; all of them for None.

    Raises:
        ValueError: There are not so many.
    """
    if num_images is None:
        return index
    ordered = labels[index]
    classes, counts = ordered.unique(return_counts=True)
    each, rest = divmod(num_images, len(classes))
    if rest or not 0 < each <= counts.min():
        raise ValueError(
            f"num_train {num_images} is not so many times {len(classes)} classes; choose a multiple of {len(classes)} "
            f"with at most {counts.min()} images a class"
        )
    return torch.cat([index[ordered == label][:each] for label in classes])
