"""The data of a config, made ready before it is needed: on a node without the internet, nothing can be downloaded."""

import pytorch_lightning as pl

from datamodules import ImageDataModule


def download(trainer: pl.Trainer, model: pl.LightningModule, datamodule: ImageDataModule) -> None:
    """Download the data of a config, or make it, verify it, and say where it lies and how many images there are."""
    datamodule.prepare_data()
    datamodule.setup("fit")
    sizes = ", ".join(f"{name} {len(images)}" for name, images in datamodule.datasets.items())
    print(f"{datamodule.name}: {sizes} images of {list(datamodule.image_shape)}; {datamodule.place}")
