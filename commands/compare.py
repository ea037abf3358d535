"""What is one way to invert a layer worth, by the measures that all ways have?"""

import time
from typing import TYPE_CHECKING

import numpy as np
import pytorch_lightning as pl
import torch
from jsonargparse.typing import PositiveInt, restricted_number_type
from torch import Tensor

from commands.second_opinions import Opinion, judge_of, prior_of, train_judge
from commands.trained_inverter import check_draws_have_h, in_parts, trained_inverter, training_images
from datamodules import ImageDataModule
from evaluations.comparison import Images, TrueImages, compared, diversities
from evaluations.distances import nearest
from evaluations.measurements import ComparisonResult, Scores
from evaluations.trained_beside import train_p_x
from inverters import Inverter
from inverters.representation import digest
from runtime.activations import cached_activations
from runtime.files import json_bytes, npz_bytes
from runtime.processes import part_of_process, shared_draws
from runtime.run import Run

if TYPE_CHECKING:
    Several = int
else:
    Several = restricted_number_type("Several", int, (">=", 2))
NUM_TRUE = 1000  # test images at most, among which those of a class are compared with one another
NUM_INPUTS, NUM_SHOWN = 8, 4  # of the images, and of the draws of each, that are kept for a figure


def compare(
    trainer: pl.Trainer,
    model: pl.LightningModule,
    datamodule: ImageDataModule,
    ckpt_path: str | None = None,
    num_images: PositiveInt = 100,
    num_samples: Several = 10,
    judge: str | None = None,
    prior: str | None = None,
    seed: int = 0,
) -> None:
    """Measure one way to invert a layer as every other can be; the report sets those of one layer side by side.

    Of a point estimate what is shown is compared, of all else draws.

    Args:
        ckpt_path: A file, or best or last of the newest run; best by default.
        num_images: Test images, the first in their seeded order.
        num_samples: Draws of each.
        judge: A classifier that was trained from another seed, by its checkpoint or the folder of its run; by default
            that of the inverted one's config in judge/, in the folder of runs.
        prior: An unconditional model, likewise; by default the newest of unconditional_... of the same data.
        seed: Of the noise, which is a function of (seed, image, draw).

    Raises:
        ValueError: The model has no layer or one that sees the pictures at a side of their own, or the data has no
            finite set of training images; or judge or prior are something else.
    """
    inverter = trained_inverter(trainer, model, datamodule, ckpt_path)
    generator, run = inverter.density, Run.of_trainer(trainer)
    layer = check_draws_have_h(inverter)
    asked = Asked(inverter, judge_of(inverter, datamodule, run, judge), prior_of(inverter, datamodule, run, prior))
    datamodule.prepare_data()
    datamodule.setup("fit")
    training = training_images(datamodule)
    batch = datamodule.datasets["test"].first(num_images)
    pixels, index = batch["image"].cpu(), batch["index"].tolist()

    point_estimate = generator.point_estimate
    make, number = (inverter.shown, 1) if point_estimate else (inverter.draws, num_samples)
    begun = time.perf_counter()
    drawn = shared_draws(trainer, make, pixels, index, number, seed)  # [M, S, C, H, W]
    seconds = time.perf_counter() - begun
    if not trainer.is_global_zero:  # which may have no image
        return
    seconds /= len(part_of_process(trainer, index)) * number
    h_training = cached_activations(inverter.representation, training, "train", run.activations)
    true = datamodule.datasets["test"].first(NUM_TRUE)
    images, draws = asked.about(pixels), asked.about(drawn)
    (one_nn, rows) = (found[:, 0] for found in nearest(images.h.to(inverter.device), h_training, k=1))
    near = asked.about(training[rows.to(training.device)].cpu()[:, None])
    nothing_differs = ((0.0, 0.0), (0.0, 0.0))
    among = TrueImages(true["image"].cpu(), asked.h(true["image"].cpu()), true["label"])
    differences = nothing_differs if point_estimate else diversities(draws, among, batch["label"])
    own, arrays = compared(images, draws, one_nn, differences)
    floor, of_floor = compared(images, near, one_nn)
    ceiling, _ = compared(images, images.of_one(), one_nn)
    known = images.log_prob
    result = ComparisonResult(
        name=run.name, layer=layer, called=called(inverter), point_estimate=point_estimate,
        given_image=generator.given_image, trained=generator.trained,
        entropy_weight=generator.entropy_weight, seed=seed, num_images=len(pixels), num_samples=num_samples,
        judge=asked.judge.run if asked.judge else None,
        judge_digest=asked.judge.digest if asked.judge else None,
        prior=asked.prior.run if asked.prior else None,
        prior_digest=asked.prior.digest if asked.prior else None,
        input_log_prob=None if known is None else known.mean().item(),
        input_log_prob_sd=None if known is None or len(known) < 2 else known.std().item(),
        seconds_per_draw=seconds, device=inverter.device.type, num_threads=torch.get_num_threads(),
        own=own, nearest=floor, input=ceiling, network_digest=digest(inverter.representation.network),
        density_digest=digest(generator),
    )  # fmt: skip
    files = {"comparison.npz": npz_bytes({
        "index": np.array(index), "inputs": pixels[:NUM_INPUTS].numpy(),
        "draws": drawn[:NUM_INPUTS, :NUM_SHOWN].numpy(), "nearest": near.pixels[:NUM_INPUTS, 0].numpy(),
        "one_nn": one_nn.numpy(), **{f"of_{name}": values for name, values in arrays.items()},
        **{f"nearest_{name}": values for name, values in of_floor.items()},
    })}  # fmt: skip
    run.write({"comparison.json": json_bytes(result.with_files(files).to_json()), **files})
    say(result, inverter, run, datamodule.name)


def called(inverter: Inverter) -> str:
    """What people call a way to invert."""
    generator = inverter.density
    name = type(generator).__name__
    return generator.called or (f"{name}, p(x | h)" if generator.by_likelihood else name)


class Asked:
    """What is asked of images.

    Args:
        inverter: Whose layer gives h.
        judge: Another classifier, if there is one.
        prior: An unconditional model, if there is one.
    """

    def __init__(self, inverter: Inverter, judge: Opinion | None, prior: Opinion | None) -> None:
        self.inverter, self.judge, self.prior = inverter, judge, prior

    def h(self, image: Tensor) -> Tensor:
        """Raw h of uint8 [N, C, H, W], on the CPU, [N, ...]."""
        return in_parts(self.inverter.representation, self.inverter, image)

    def about(self, image: Tensor) -> Images:
        """All that is known of uint8 images [M, C, H, W], or of draws [M, S, C, H, W]."""
        its, representation = image.shape[:-3], self.inverter.representation
        flat, one = image.reshape(-1, *image.shape[-3:]), self.inverter

        def classes(x: Tensor) -> Tensor:
            return representation.class_probabilities(x).argmax(1)

        return Images(
            image,
            self.h(flat).unflatten(0, its),
            in_parts(classes, one, flat).unflatten(0, its) if one.classifies else None,
            in_parts(self.judge.of, one, flat).unflatten(0, its) if self.judge else None,
            in_parts(self.prior.of, one, flat).unflatten(0, its) if self.prior else None,
        )


def say(result: ComparisonResult, inverter: Inverter, run: Run, data: str) -> None:
    """What people are told at once."""
    rows: tuple[tuple[str, Scores], ...] = (
        (result.called, result.own), ("nearest training image", result.nearest), ("input", result.input),
    )  # fmt: skip
    what = "what it shows" if result.point_estimate else f"{result.num_samples} draws each"
    print(f"{result.name}, {result.layer}, {result.num_images} test images, {what}")
    for called, its in rows:
        shares = {"its class": its.class_agreement, "by the judge": its.judge_agreement}
        words = [f"{its.im_s_ratio:.3f} of 1NN in h", f"squared error {its.squared_error:.4f}"]
        words += [f"{value:.1%} {name}" for name, value in shares.items() if value is not None]
        if its.log_prob_difference is not None:
            words.append(f"log p(x) {its.log_prob_difference:+.1f} nats")
        if its.diversity is not None:
            alike = " (a point estimate)" if result.point_estimate else " (collapsed)" if result.collapsed else ""
            words.append(f"diversity {its.diversity:.3f}{alike}")
        print(f"  {called:24} {', '.join(words)}")
    if result.judge is None and inverter.classifies:
        print(f"  no second classifier judges them; {train_judge(inverter, run)}")
    if result.prior is None:
        print(f"  no p(x) judges them; {train_p_x(data, run.name)}, or give --prior")
    print(f"  {result.seconds_per_draw:.3g} s a draw ({result.device}, {result.num_threads} threads)")
    print(f"  numbers and images       {run.folder}/comparison.json, comparison.npz")
