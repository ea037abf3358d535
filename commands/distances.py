"""How near do samples come to their input in the layer's own space?"""

from typing import TYPE_CHECKING, Literal

import numpy as np
import pytorch_lightning as pl
from jsonargparse.typing import PositiveInt, restricted_number_type

from commands.trained_inverter import check_draws_have_h, in_parts, trained_inverter, training_images
from datamodules import ImageDataModule
from evaluations.distances import NUM_SHOWN, nearest, neighbours, table_1
from evaluations.measurements import DistancesResult
from inverters.representation import digest
from runtime.activations import cached_activations
from runtime.files import json_bytes, npz_bytes
from runtime.processes import in_order, part_of_process, shared_draws
from runtime.run import Run

if TYPE_CHECKING:
    Candidates = int
else:
    Candidates = restricted_number_type("Candidates", int, (">=", NUM_SHOWN))


def distances(
    trainer: pl.Trainer,
    model: pl.LightningModule,
    datamodule: ImageDataModule,
    ckpt_path: str | None = None,
    num_images: PositiveInt = 500,
    num_samples: PositiveInt = 10,
    num_queries: PositiveInt = 4,
    num_candidates: Candidates = 1024,
    space: Literal["layer", "pixels"] = "layer",
    seed: int = 0,
) -> None:
    """Measure how near samples come to their input in the layer's space (Nash et al. 2019, table 1 and fig 2).

    h of the training images is kept on disk, beside that of other runs.

    Args:
        ckpt_path: A file, or best or last of the newest run; best by default.
        num_images: Test images, the first in their seeded order.
        num_samples: Of each.
        num_queries: Test images whose nearest samples and training images are shown.
        num_candidates: Samples of each of those.
        space: In which they are nearest: by h, or by pixels.
        seed: Of the noise, which is a function of (seed, image, draw).

    Raises:
        ValueError: The model has no layer or one that sees the pictures at a side of their own, or the data has no
            finite set of training images.
    """
    inverter = trained_inverter(trainer, model, datamodule, ckpt_path)
    representation, run = inverter.representation, Run.of_trainer(trainer)
    layer = check_draws_have_h(inverter)
    datamodule.prepare_data()
    datamodule.setup("fit")
    training = training_images(datamodule)
    h_training = cached_activations(representation, training, "train", run.activations)
    batch = datamodule.datasets["test"].first(num_images)
    images, index = batch["image"].cpu(), batch["index"].tolist()
    h = in_parts(representation, inverter, images)

    draws = shared_draws(trainer, inverter.draws, images, index, num_samples, seed)  # [M, S, C, H, W]
    shown = slice(num_queries)
    candidates = shared_draws(trainer, inverter.draws, images[shown], index[shown], num_candidates, seed)
    one_nn = in_order(trainer, nearest(part_of_process(trainer, h).to(inverter.device), h_training, k=1)[0])[:, 0]
    if not trainer.is_global_zero:
        return
    agrees = None
    if inverter.classifies:
        classes = in_parts(representation.class_probabilities, inverter, images).argmax(1)
        of_draws = in_parts(representation.class_probabilities, inverter, draws.flatten(0, 1)).argmax(1)
        agrees = of_draws.unflatten(0, (len(images), num_samples)) == classes[:, None]
    h_draws = [in_parts(representation, inverter, its) for its in draws]
    numbers, arrays = table_1(one_nn, h, h_draws, agrees)
    h_candidates = [in_parts(representation, inverter, its) for its in candidates]
    near = neighbours(images[shown], candidates, h[shown], h_candidates, training, h_training, space)
    result = DistancesResult(
        name=run.name, layer=layer, seed=seed, network_digest=digest(representation.network),
        density_digest=digest(inverter.density), **numbers,
    )  # fmt: skip
    files = {"distances.npz": npz_bytes({"index": np.array(index), **arrays}), "nearest.npz": npz_bytes(near)}
    run.write({"distances.json": json_bytes(result.with_files(files).to_json()), **files})
    print(f"{result.name}, {result.num_images} test images, {result.num_samples} samples each, {result.unit}")
    print(f"  1NN   nearest training image   {result.one_nn:.4g} (standard error {result.one_nn_se:.2g})")
    for name, value, error, ratio in (
        ("IM-S  a sample", result.im_s, result.im_s_se, result.im_s_ratio),
        ("IM-NN nearest sample", result.im_nn, result.im_nn_se, result.im_nn_ratio),
    ):
        print(f"  {name:30} {value:.4g} (standard error {error:.2g}); {ratio:.3f} of 1NN")
    print(f"  numbers and images             {run.folder}/distances.json, distances.npz, nearest.npz")
