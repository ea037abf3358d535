"""A contact sheet of the data."""

import pytorch_lightning as pl
from jsonargparse.typing import PositiveInt

from datamodules import ImageDataModule
from evaluations.figures import contact_sheet
from runtime.files import write_figure
from runtime.run import Run


def show(
    trainer: pl.Trainer,
    model: pl.LightningModule,
    datamodule: ImageDataModule,
    split: str = "train",
    num_images: PositiveInt = 60,
) -> None:
    """Make a contact sheet of the data, with labels, as the model sees it.

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
