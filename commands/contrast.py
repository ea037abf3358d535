"""How much does h tell at least, whatever the model?"""

import math
from typing import TYPE_CHECKING

import pytorch_lightning as pl
from jsonargparse.typing import restricted_number_type

from commands.trained_inverter import scores, trained_inverter
from datamodules import ImageDataModule
from datamodules.split import seen
from evaluations.contrast import contrastive_bound
from evaluations.results import ContrastResult
from inverters.representation import digest
from runtime.files import json_bytes, npy_bytes
from runtime.run import Run

if TYPE_CHECKING:
    Several = int
else:
    Several = restricted_number_type("Several", int, (">=", 2))
SATURATED = "; more images would give a higher bound"


def contrast(
    trainer: pl.Trainer,
    model: pl.LightningModule,
    datamodule: ImageDataModule,
    ckpt_path: str | None = None,
    num_images: Several = 128,
) -> None:
    """Measure a lower bound of I(x; h) that holds for any model and needs no p(x), at most ln of the number of images.

    It takes log p of every image with the h of every image: twice as many images take four times as long.

    Args:
        ckpt_path: A file, or best or last of the newest run; best by default.
        num_images: Test images, the first in their seeded order.

    Raises:
        ValueError: The model has no layer or no likelihood.
    """
    inverter = trained_inverter(trainer, model, datamodule, ckpt_path)
    inverter.with_likelihood()
    if inverter.representation.layer is None:
        raise ValueError("an unconditional model has no h that could tell images apart; give the config of an inverter")
    datamodule.prepare_data()
    datamodule.setup("test")
    batch = datamodule.datasets["test"].first(num_images)
    matrix = scores(inverter, batch["image"], seen(batch)).numpy()
    found, run = contrastive_bound(matrix), Run.of_trainer(trainer)
    result = ContrastResult(
        name=run.name, layer=inverter.representation.layer, num_images=len(matrix), bound_nats=found.mean,
        bound_nats_se=found.standard_error, bound_nats_low=found.low, bound_nats_high=found.high,
        ceiling_nats=math.log(len(matrix)), network_digest=digest(inverter.representation.network),
        density_digest=digest(inverter.density),
    )  # fmt: skip
    files = {"scores.npy": npy_bytes(matrix)}
    run.write({"contrast.json": json_bytes(result.with_files(files).to_json()), **files})
    interval = f"95 % interval {found.low:.2f} to {found.high:.2f}"
    print(f"{result.name}, {result.layer}, {result.num_images} test images")
    print(f"  I(x; h) is at least  {found.mean:.2f} nats (standard error {found.standard_error:.2f}, {interval})")
    near = SATURATED if result.saturated else ""
    print(f"  and this at most     {result.ceiling_nats:.2f}, ln {result.num_images}{near}")
    print(f"  numbers              {run.folder}/contrast.json, scores.npy")
