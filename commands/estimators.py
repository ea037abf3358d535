"""What do other estimators say of the same layer?"""

import pytorch_lightning as pl
from jsonargparse.typing import PositiveInt

from commands.trained_inverter import in_parts, trained_inverter
from datamodules import ImageDataModule
from datamodules.split import seen
from evaluations.estimators import all_estimates
from inverters.representation import digest
from runtime.files import json_bytes
from runtime.run import Run


def estimators(
    trainer: pl.Trainer,
    model: pl.LightningModule,
    datamodule: ImageDataModule,
    ckpt_path: str | None = None,
    num_images: PositiveInt = 10_000,
) -> None:
    """What other estimators say of the same layer: binning, kernel density, k nearest neighbours.

    Args:
        ckpt_path: A file, or best or last of the newest run; best by default.
        num_images: Test images, the first in their seeded order.
    """
    inverter = trained_inverter(trainer, model, datamodule, ckpt_path)
    datamodule.prepare_data()
    datamodule.setup("test")
    images = seen(datamodule.datasets["test"].first(num_images))
    h = in_parts(inverter.representation, inverter, images)
    results = all_estimates(h, digest(inverter.representation.network))
    run = Run.of_trainer(trainer)
    run.write({"estimators.json": json_bytes([result.to_json() for result in results])})
    print(f"{inverter.representation.layer} of {len(images)} test images, nats; in {run.folder / 'estimators.json'}")
    for result in results:
        print(f"  {result.estimator:40} {result.estimate_nats:.2f}")
