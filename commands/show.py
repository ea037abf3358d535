"""A contact sheet of the data."""

import pytorch_lightning as pl
import torch
from jsonargparse.typing import PositiveInt
from torch import Tensor

from datamodules import ImageDataModule
from datamodules.split import seen
from evaluations.figures import contact_sheet
from inverters import Classifier, Inverter
from inverters.representation import Representation
from runtime.files import write_figure
from runtime.run import Run


def show(
    trainer: pl.Trainer,
    model: pl.LightningModule,
    datamodule: ImageDataModule,
    split: str = "train",
    num_images: PositiveInt = 60,
) -> None:
    """Make a contact sheet of the data, with labels, and one as the network sees it, where that is not the same.

    Args:
        split: train, val or test.
        num_images: On the sheet, from the start of the split.
    """
    datamodule.prepare_data()
    datamodule.setup("fit")
    if split not in datamodule.datasets:
        raise ValueError(f"no split {split!r}; there are {', '.join(datamodule.datasets)}")
    batch = datamodule.datasets[split].first(num_images)
    labels = [datamodule.class_names[label] for label in batch["label"].tolist()]
    path = Run.of_trainer(trainer).folder / f"contact_sheet_{split}.png"
    write_figure(path, contact_sheet(batch["image"], labels))
    sizes = ", ".join(f"{name} {len(images)}" for name, images in datamodule.datasets.items())
    print(f"{datamodule.name}: {sizes} images of {list(datamodule.image_shape)}; {path}")
    asked = model.representation if isinstance(model, Inverter) else model
    if not isinstance(asked, Representation | Classifier) or (isinstance(asked, Representation) and not asked.layer):
        return  # nothing sees it
    what, where = asked.preprocess.what, ""
    as_seen = seen_by(asked, seen(batch))
    if as_seen.shape != batch["image"].shape:
        path = path.with_name(f"contact_sheet_{split}_as_seen.png")
        write_figure(path, contact_sheet(as_seen, labels, inches=as_seen.shape[-1] / 100))
        where = f"; {path}"
    whose = " of their own resolution" if datamodule.seen_shape != datamodule.image_shape else ""
    numbers = [", ".join(f"{x:g}" for x in values) for values in (what.mean, what.std)]
    print(
        f"the network sees pictures{whose}, {list(as_seen.shape[1:])}, less mean {numbers[0]}, over standard deviation "
        f"{numbers[1]}{where}"
    )


@torch.no_grad()
def seen_by(asked: Representation | Classifier, image: Tensor) -> Tensor:
    """What reaches the network of uint8 images [B, C, H, W], but for mean and standard deviation, as uint8 too."""
    x, what = asked.preprocess(image, asked.network), asked.preprocess.what
    mean, std = (torch.tensor(values, dtype=x.dtype).view(-1, 1, 1) for values in (what.mean, what.std))
    return (255 * (x * std + mean)).round().clamp(0, 255).byte()
