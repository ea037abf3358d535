"""The user's own pictures, in one folder a class, or in a zip of such folders."""

import zipfile
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
from jsonargparse.typing import PositiveInt
from PIL import Image, ImageOps
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor
from tqdm import tqdm

from datamodules.images import ImageDataModule
from datamodules.picture_files import classes_and_files, found_in_folder, found_in_zip, is_image
from datamodules.pictures import decoded, file_bytes, member_bytes, printable
from datamodules.split import ImagesAndLabels, Split, splits
from runtime.files import free_memory, size_for_people


class ImageFolderDataModule(ImageDataModule):
    """Pictures of any size, decoded into memory; a picture's class is the folder that it lies in.

    Where the class folders lie in folders `train`, `val` (or `valid`, `validation`) and `test`, these are the splits;
    one of the last two that is not there is a seeded 10 % of `train`. Without such folders all images are divided
    80 / 10 / 10, seeded. Whatever is held out, of every class at least one image is trained on. One more folder may
    wrap everything. Files without an image's extension and hidden ones are skipped, and so is a link to what is there
    already. A zip is read where it lies, nothing is unpacked to disk. `index` counts in the sorted list of the files of
    a split's own folder; what is held out of `train` counts there, and without such folders all count in one list.

    What a person sees is what is read: upright as the camera says, and on white where it is transparent.

    Args:
        path: The folder or the .zip.
        side: Of the square that images are brought to, or their [height, width].
        fit: "crop" scales the image to cover that area, and cuts off what stands out, equally at both ends; "resize"
            stretches it. Neither touches an image of the right size.
        channels: 3 for colour, 1 for grey.

    Raises:
        OSError: Where there is nothing to read at `path`.
        ValueError: Where the folders are not such as described, or the images do not fit into memory.
    """

    class_names: Sequence[str] = ()  # of the folders, sorted; a label counts in them

    def __init__(
        self,
        path: str,
        side: PositiveInt | tuple[PositiveInt, PositiveInt],
        fit: Literal["resize", "crop"] = "crop",
        channels: Literal[1, 3] = 3,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        height, width = (side, side) if isinstance(side, int) else side
        self.path, self.side, self.fit, self.channels = path, side, fit, channels
        self.is_zip = not Path(path).is_dir()
        self.image_shape = (channels, height, width)
        self.name = f"images:{printable(Path(path).resolve().name.removesuffix('.zip'))}"
        found = found_in_zip(path) if self.is_zip else found_in_folder(path)
        others = ["/".join(parts) for parts in found.sizes if parts[-1] and not is_image(parts)]
        self.skipped = sorted(found.skipped + others)
        self.class_names, self.files, self.digest = classes_and_files(path, found.sizes)
        self.num_classes = len(self.class_names)
        num_images = sum(map(len, self.files.values()))
        num_bytes, free = 2 * num_images * channels * height * width, free_memory()  # once more while they are divided
        if num_bytes > free:
            raise ValueError(
                f"{num_images} images of {height}x{width} take {size_for_people(num_bytes)} of memory, and "
                f"{size_for_people(free)} are free; give a smaller --data.side"
            )

    @property
    def identity(self) -> dict[str, Any]:
        """With what the files are, as another folder may have the same name."""
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
    def place(self) -> str:
        return f"in {Path(self.path).resolve()}"

    def load(self) -> dict[str, Split]:
        train = self._read(self.files["train"])
        tenth = len(train[0]) // 10
        held_out = [name for name in ("val", "test") if not self.files[name]]
        order = torch.randperm(len(train[0]), generator=self.generator())
        order = self._with_every_class(order, len(held_out) * tenth, train[1])
        index = {name: order[k * tenth : (k + 1) * tenth] for k, name in enumerate(held_out)}
        datasets = splits(*train, {"train": order[len(held_out) * tenth :], **index})
        for name in {"val", "test"} - set(held_out):
            images = self._read(self.files[name])
            datasets |= splits(*images, {name: torch.randperm(len(images[0]), generator=self.generator())})
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

    def _read(self, files: list[tuple[str, int]]) -> ImagesAndLabels:
        """Raises OSError naming an image that cannot be read."""
        images = torch.empty(len(files), *self.image_shape, dtype=torch.uint8)
        with zipfile.ZipFile(self.path) if self.is_zip else nullcontext() as archive:
            for i, (file, _) in enumerate(tqdm(files, f"reading images from {self.path}", delay=5, leave=False)):
                try:
                    images[i] = self._image(
                        member_bytes(archive, file) if archive else file_bytes(Path(self.path, file))
                    )
                except Exception as error:  # Pillow promises no list of what a broken file raises
                    reason = f"{type(error).__name__}: {error}"
                    raise OSError(
                        f"cannot read the image {file} in {self.path} ({reason}); replace it or take it out"
                    ) from error
        return images, torch.tensor([label for _, label in files])

    def _image(self, content: bytes) -> Tensor:
        """One decoded file: uint8 [C, H, W]."""
        channels, height, width = self.image_shape
        picture = decoded(content, channels, max(height, width))
        if self.fit == "crop":
            picture = ImageOps.fit(picture, (width, height), Image.Resampling.BICUBIC)
        else:
            picture = picture.resize((width, height), Image.Resampling.BICUBIC)
        return pil_to_tensor(picture)
