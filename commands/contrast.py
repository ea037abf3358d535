"""How much does h tell at least, whatever the model, and whose is it?"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pytorch_lightning as pl
from jsonargparse.typing import NonNegativeInt, restricted_number_type
from numpy.typing import NDArray

from commands.trained_inverter import scores, trained_inverter
from datamodules import ImageDataModule
from datamodules.split import seen
from evaluations.contrast import contrastive_bound
from evaluations.measurements import ContrastResult, Reidentification
from evaluations.reidentification import accuracy, whose
from inverters.representation import digest
from runtime.files import json_bytes, npy_bytes
from runtime.processes import in_order, part_of_process
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
    classes: list[NonNegativeInt] | None = None,
) -> None:
    """Measure a lower bound of I(x; h) for any model, which needs no p(x), and how often h gives its image away.

    It takes log p of every image with the h of every image: twice as many images take four times as long, and two
    processes (--trainer.devices 2) nearly half as long.

    Args:
        ckpt_path: A file, or best or last of the newest run; best by default.
        num_images: Test images, the first in their seeded order; the bound is at most ln of their number.
        classes: Find whose h it is among images of these classes alone too; those that were left out by default.

    Raises:
        ValueError: The model has no layer or no likelihood, or there are fewer than 2 images of the classes.
    """
    inverter = trained_inverter(trainer, model, datamodule, ckpt_path)
    inverter.with_likelihood()
    if inverter.representation.layer is None:
        raise ValueError("an unconditional model has no h that could tell images apart; give the config of an inverter")
    datamodule.prepare_data()
    datamodule.setup("test")
    batch = datamodule.datasets["test"].first(num_images)
    left_out, label = set(datamodule.left_out_classes or ()), batch["label"].numpy()
    asked = sorted({int(k) for k in classes or left_out})
    if asked and np.isin(label, asked).sum() < 2:
        raise ValueError(
            f"{np.isin(label, asked).sum()} of {len(label)} test images are of the classes {asked}; give others, or a "
            f"larger --num_images"
        )
    mine = scores(inverter, part_of_process(trainer, batch["image"]), seen(batch))
    matrix = in_order(trainer, mine).numpy()
    if not trainer.is_global_zero:
        return
    found, run = contrastive_bound(matrix), Run.of_trainer(trainer)
    result = ContrastResult(
        name=run.name, layer=inverter.representation.layer, num_images=len(matrix), bound_nats=found.mean,
        bound_nats_se=found.standard_error, bound_nats_low=found.low, bound_nats_high=found.high,
        ceiling_nats=math.log(len(matrix)), network_digest=digest(inverter.representation.network),
        density_digest=digest(inverter.density), reidentified=reidentified(matrix, label, asked, left_out),
    )  # fmt: skip
    files = {"scores.npy": npy_bytes(matrix)}
    run.write({"contrast.json": json_bytes(result.with_files(files).to_json()), **files})
    about = f"standard error {found.standard_error:.2f}, 95 % interval {found.low:.2f} to {found.high:.2f}"
    print(f"{result.name}, {result.layer}, {result.num_images} test images")
    print(f"  lower bound of I(x; h)  {found.mean:.2f} nats ({about})")
    near = SATURATED if result.saturated else ""
    print(f"  which is at most        {result.ceiling_nats:.2f}, ln {result.num_images}{near}")
    for one in result.reidentified:
        of = f"{one.share:6.1%} (95 % interval {one.share_low:.1%} to {one.share_high:.1%}, chance {one.chance:.1%})"
        print(f"  {one.attack}, rank {one.k}  {of}, {one.images}")
    print("  another attacker may find more: this proves what is readable, and never that the rest is safe")
    print(f"  numbers              {run.folder}/contrast.json, scores.npy")


def reidentified(
    scores: NDArray[np.float64], label: NDArray[np.int64], classes: Sequence[int], left_out: set[int]
) -> tuple[Reidentification, ...]:
    """Both attacks at ranks 1 and 5, on all images, and on those of some classes if any are given.

    Args:
        scores: ln p(x_i | h_j), [N, N] nats.
        label: Of the images, [N].
        classes: Sorted.
        left_out: The classes that were not trained on.
    """
    chosen: list[tuple[tuple[int, ...] | None, NDArray[np.bool_]]] = [(None, np.ones(len(label), bool))]
    chosen += [(tuple(classes), np.isin(label, classes))] if classes else []
    found = []
    for of, rows in chosen:
        its = scores[np.ix_(rows, rows)]
        unseen = of is not None and left_out.issuperset(of)
        for attack, ranked in (("whose h is it", whose(its)), ("which h is of it", its)):
            for k in (1, 5):
                share, _, low, high = accuracy(ranked, k)
                found.append(Reidentification(
                    attack=attack, classes=of, unseen=unseen, num_images=len(its), k=k, share=share, share_low=low,
                    share_high=high,
                ))  # fmt: skip
    return tuple(found)
