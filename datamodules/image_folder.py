"""The user's own pictures, in one folder a class or without classes, or in a zip of such folders."""

import math
from collections.abc import Collection, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from jsonargparse.typing import PositiveInt
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor

from datamodules.images import ImageDataModule
from datamodules.picture_files import found_in, is_image, layout
from datamodules.pictures import cannot_be_read, fitted, listed, opened, printable, read_pictures
from datamodules.split import Split, splits
from runtime.files import free_memory, size_for_people


class ImageFolderDataModule(ImageDataModule):
    """Pictures of any size, decoded into memory; a picture's class is the folder that it lies in.

    Where the class folders lie in folders `train`, `val` (or `valid`, `validation`) and `test`, these are the splits;
    one of the last two that is not there is a seeded 10 % of `train`. Without such folders all images are divided
    80 / 10 / 10, seeded. Whatever is held out, of every class at least one image is trained on. One more folder may
    wrap everything.

    Where an image lies in no class folder, as in a folder of nothing but images, there are no classes: all images are
    of one, whatever folders they lie in, and no classifier can be trained on them.

    Files without an image's extension and hidden ones are skipped, and so is a link to what is there already. A zip is
    read where it lies, nothing is unpacked to disk. `index` counts in the sorted list of the files of a split's own
    folder, without those left out by `skip_bad`; what is held out of `train` counts there, and without such folders all
    count in one list.

    What a person sees is what is read: upright as the camera says, and on white where it is transparent.

    Args:
        path: The folder or the .zip.
        side: Of the square that images are brought to, or their [height, width].
        fit: "crop" scales the image to cover that area, and cuts off what stands out, equally at both ends; "resize"
            stretches it. Neither touches an image of the right size.
        channels: 3 for colour, 1 for grey.
        original_side: Where the network is to see the pictures at a side of their own, which the density cannot model:
            of the square, or [height, width], that the same part of the same file is brought to. By default the network
            sees what the density models.
        skip_bad: Leave out pictures that cannot be read, and say which. A checkpoint knows those that were left out.

    Raises:
        OSError: Where there is nothing to read at `path`.
        ValueError: Where the folders are not such as described, or the images do not fit into memory.
    """

    # A skipped picture is missing in the digest, and otherwise all are alike.
    NOT_IDENTIFYING: ClassVar[tuple[str, ...]] = (*ImageDataModule.NOT_IDENTIFYING, "skip_bad")
    remedy = ", or --data.skip_bad true where pictures were left out"
    class_names: Sequence[str] = ()  # of the folders, sorted; a label counts in them

    def __init__(
        self,
        path: str,
        side: PositiveInt | tuple[PositiveInt, PositiveInt],
        fit: Literal["resize", "crop"] = "crop",
        channels: Literal[1, 3] = 3,
        original_side: PositiveInt | tuple[PositiveInt, PositiveInt] | None = None,
        skip_bad: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.path, self.side, self.fit, self.channels, self.skip_bad = path, side, fit, channels, skip_bad
        self.original_side, self.image_shape = original_side, (channels, *_area(side))
        self._check_part()
        self.name = f"images:{printable(Path(path).resolve().name.removesuffix('.zip'))}"
        found = found_in(path)
        others = ["/".join(parts) for parts in found.sizes if parts[-1] and not is_image(parts)]
        self.skipped = sorted(found.skipped + others)
        self._sizes = found.sizes
        self.class_names, self.files, self.digest, loose = layout(path, found.sizes)
        self.num_classes = len(self.class_names)
        self._is_read, self._images = False, dict[str, list[Tensor]]()  # by the split's own folder, once
        if loose:  # said now: a classifier is refused before anything else could be
            rank_zero_only(print)(
                f"{self.name}: all pictures are of one class, as {printable(loose[0])} lies in no class folder"
                + (f" and neither do {len(loose) - 1} more" if len(loose) > 1 else ""), flush=True
            )  # fmt: skip
        num_images = sum(map(len, self.files.values()))
        num_bytes = 2 * num_images * sum(map(math.prod, self.shapes))  # once more while they are divided
        free = free_memory()
        if num_bytes > free:
            sizes = " and ".join(f"{height}x{width}" for _, height, width in self.shapes)
            key = "side" if original_side is None else "original_side"
            raise ValueError(
                f"{num_images} images of {sizes} take {size_for_people(num_bytes)} of memory, and "
                f"{size_for_people(free)} are free; give a smaller --data.{key}"
            )

    @property
    def seen_shape(self) -> tuple[int, int, int]:
        return self.shapes[-1]

    @property
    def shapes(self) -> list[tuple[int, int, int]]:
        own = [] if self.original_side is None else [(self.channels, *_area(self.original_side))]
        return [self.image_shape, *own]

    def _check_part(self) -> None:
        """Raises ValueError where the network would see another part of a picture than the density."""
        (_, height, width), (_, rows, columns) = self.image_shape, self.seen_shape
        if self.fit == "crop" and height * columns != rows * width:
            raise ValueError(
                f"original_side is {rows}x{columns}, which has other proportions than side, {height}x{width}, so that "
                f"another part of each picture would be cut off; give proportions that agree, or --data.fit resize"
            )

    @property
    def identity(self) -> dict[str, Any]:
        """With what the files are, as another folder may have the same name."""
        if self.skip_bad:
            self._read()
        return super().identity | {"class_names": list(self.class_names), "files": self.digest}

    def prepare_data(self) -> None:
        """Say what is not read, once."""
        if self.skipped:
            few = ", ".join(map(printable, self.skipped[:3]))
            more = f" and {len(self.skipped) - 3} more" if len(self.skipped) > 3 else ""
            rank_zero_only(print)(
                f"{self.name}: skipped {len(self.skipped)} that are hidden, links to what is there already, or without "
                f"an image's extension: {few}{more}", flush=True
            )  # fmt: skip
            self.skipped = []

    @property
    def pictures_digest(self) -> str:
        what = (self.identity["files"], self.image_shape, self.fit)
        return sha256(repr(what).encode()).hexdigest()[:16]

    @property
    def place(self) -> str:
        return f"in {Path(self.path).resolve()}"

    def picture(self, content: bytes) -> Tensor:
        return fitted(content, self.image_shape, self.fit)

    def pictures(self, content: bytes) -> list[Tensor]:
        return [fitted(content, shape, self.fit) for shape in self.shapes]  # not one scaled further: x stays the same

    def load(self) -> dict[str, Split]:
        """Raises OSError naming the pictures that cannot be read, unless they are to be skipped."""
        if "train" not in self._images:  # never read, or taken before
            self._is_read = False
        self._read()
        (images, *own), labels = self._taken("train")
        tenth = len(images) // 10
        held_out = [name for name in ("val", "test") if not self.files[name]]
        order = torch.randperm(len(images), generator=self.generator())
        order = self._with_every_class(order, len(held_out) * tenth, labels)
        index = {name: order[k * tenth : (k + 1) * tenth] for k, name in enumerate(held_out)}
        datasets = splits(images, labels, {"train": order[len(held_out) * tenth :], **index}, *own)
        for name in {"val", "test"} - set(held_out):
            (images, *own), labels = self._taken(name)
            datasets |= splits(images, labels, {name: torch.randperm(len(images), generator=self.generator())}, *own)
        return {name: datasets[name] for name in ("train", "val", "test")}

    def _with_every_class(self, order: Tensor, num_held_out: int, labels: Tensor) -> Tensor:
        """An order [N], whose first images are held out, with the swaps that leave one image a class to train on."""
        order = order.clone()
        held_out, trained = order[:num_held_out], order[num_held_out:]  # views
        counts = labels[trained].bincount(minlength=self.num_classes)
        for label in (counts == 0).nonzero():
            spare = (counts[labels[trained]] > 1).nonzero()
            if not len(spare):
                raise ValueError(
                    f"{self.path} holds {len(labels)} images of {self.num_classes} classes, which is too few to train "
                    f"on one of each and hold out {num_held_out}; add images, or take classes out"
                )
            i, j = (labels[held_out] == label).nonzero()[0], spare[0]
            counts[label] += 1
            counts[labels[trained[j]]] -= 1
            held_out[i], trained[j] = trained[j].clone(), held_out[i].clone()
        return order

    def _taken(self, name: str) -> tuple[list[Tensor], Tensor]:
        """Those of a split's own folder, once."""
        return self._images.pop(name), torch.tensor([label for _, label in self.files[name]], dtype=torch.long)

    def _read(self) -> None:
        """Decode all pictures, once; those that cannot be are not in `files` and `digest` any more, or are an error."""
        if self._is_read:
            return
        num_images, bad = sum(map(len, self.files.values())), dict[str, str]()
        with opened(self.path) as content:
            for name, files in self.files.items():
                names = [file for file, _ in files]
                label = f"reading images from {self.path}"
                self._images[name], its = read_pictures(names, content, self.pictures, self.shapes, label)
                bad |= its
        if bad and not self.skip_bad:
            raise cannot_be_read(bad, num_images, f" in {self.path}", ", or give --data.skip_bad true")
        if bad:
            self._leave_out(bad)
            rank_zero_only(print)(f"{self.name}: left out {len(bad)} of {num_images} images, which cannot be read: "
                                  f"{listed(bad)}", flush=True)  # fmt: skip
            self.note = f"{len(bad)} of its {num_images} pictures cannot be read and are left out."
        self._is_read = True

    def _leave_out(self, bad: Collection[str]) -> None:
        """Raises ValueError where the others are divided otherwise, or are too few."""
        left = {name: [file for file in files if file[0] not in bad] for name, files in self.files.items()}
        sizes = {parts: size for parts, size in self._sizes.items() if "/".join(parts) not in bad}
        names, files, self.digest, _ = layout(self.path, sizes)
        if (names, files) != (self.class_names, left):
            raise ValueError(
                f"without the {len(bad)} of its images that cannot be read {self.path} has other classes or splits; "
                f"take them out: {', '.join(map(printable, bad))}"
            )
        self.files = files


def _area(side: int | tuple[int, int]) -> tuple[int, int]:
    """Height and width."""
    return (side, side) if isinstance(side, int) else side
