"""The numbers of a test: results.json and the per-image values beside it."""

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from callbacks.sample_grid import SampleGrid
from datamodules.images import ImageDataModule
from datamodules.split import seen
from datamodules.worlds import WorldDataModule
from evaluations.diversity import spreads
from evaluations.information import mean_and_standard_error, wilson_interval
from evaluations.known_worlds import compared, information_alone
from evaluations.results import ClassifierResult, InverterResult, Published, TestResult, WorldResult
from inverters.bottleneck import is_bottleneck
from inverters.generators import ConditionalDensity, bits_per_dim
from inverters.preprocessing import Preprocessing
from inverters.representation import digest
from runtime.cost import training_flop
from runtime.datamodule import datamodule_of
from runtime.files import json_bytes, npy_bytes
from runtime.processes import gathered, shared_draws
from runtime.run import Run
from runtime.wandb_run import WandbRun

NUM_DIVERSE, NUM_DIVERSE_DRAWS = 32, 8
MOST_BYTES = 2_000_000  # of the images that are kept beside the numbers of a test


class _Results(Callback):
    """Collects per-image values over a test and writes them once, from the first process.

    Args:
        commit: Of the code, None outside a repository.
        published: The paper's numbers of the same experiment.

    Attributes:
        result: Of the latest test, in the first process.
        files: Of the same test, by their names.
    """

    result: TestResult
    files: Mapping[str, bytes | memoryview]

    def __init__(self, commit: str | None, published: Published) -> None:
        self.commit, self.published = commit, published
        self.collected: dict[str, list[Tensor]] = {}
        self.files = {}

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.collected = {}

    def _collect(self, **values: Tensor) -> None:
        for name, value in values.items():
            self.collected.setdefault(name, []).append(value)

    def _gather(self, trainer: Trainer) -> dict[str, Tensor]:
        """Every value of the whole test set, in the order of the test set.

        Raises:
            RuntimeError: An image is missing or was counted twice.
        """
        mine = {name: torch.cat(value).cpu() for name, value in self.collected.items()}
        everyone = gathered(trainer, mine)
        values = {name: torch.cat([part[name] for part in everyone]) for name in mine}
        order = torch.argsort(values["position"])
        seen, num_images = len(order), len(datamodule_of(trainer).datasets["test"])
        everything = isinstance(trainer.limit_test_batches, float) and trainer.limit_test_batches == 1.0
        if len(values["position"].unique()) < seen or (everything and seen < num_images):
            raise RuntimeError(f"the test saw {seen} images of {num_images}, some twice or some not at all")
        return {name: value[order] for name, value in values.items()}

    def _about(self, trainer: Trainer) -> dict[str, Any]:
        """What a result says of the run and its data."""
        data = datamodule_of(trainer)
        return {
            "name": Run.of_trainer(trainer).name, "commit": self.commit, "dataset": data.name,
            "dataset_note": data.note, "checkpoint": trainer.ckpt_path and str(trainer.ckpt_path),
            "published": self.published,
        }  # fmt: skip

    def _keep(self, trainer: Trainer, result: TestResult, files: Mapping[str, bytes | memoryview]) -> None:
        """Take a result and the files of the same test, which are written when all callbacks have had its end."""
        if trainer.is_global_zero:
            self.result, self.files = result, files

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        self.result = self.result.with_files(self.files)
        row = self.result.to_json()
        Run.of_trainer(trainer).write({"results.json": json_bytes(row), **self.files})
        for logger in trainer.loggers:
            if isinstance(logger, WandbRun):
                logger.summarise(numbers(row))
                run = Run.of_trainer(trainer)
                logger.log_file(run.folder / "results.json", f"{run.name}-results", "results")


class ClassifierResults(_Results):
    """Accuracy with its standard error."""

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        self._collect(correct=outputs["correct"].double(), position=batch["position"])

    def on_test_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        values = self._gather(trainer)
        accuracy, error = mean_and_standard_error(values["correct"])
        low, high = wilson_interval(accuracy, len(values["correct"]))
        result = ClassifierResult(
            **self._about(trainer), network=pl_module.network_name, network_digest=digest(pl_module.network),
            num_images=len(values["correct"]), accuracy=accuracy, accuracy_se=error,
            accuracy_low=low, accuracy_high=high,
        )  # fmt: skip
        self._keep(trainer, result, {})


class InverterResults(_Results):
    """NCE with its standard error, under shuffled contexts too, and what the classifier says of the samples.

    Args:
        num_agreement: Test images for which one sample each is drawn and classified.
        sample_grid: Which makes the pictures of the same test.
        commit: As for _Results.
        published: As for _Results.
    """

    def __init__(self, commit: str | None, published: Published, num_agreement: int, sample_grid: SampleGrid) -> None:
        super().__init__(commit, published)
        self.num_agreement, self.sample_grid = num_agreement, sample_grid

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Raises ValueError, ahead of the training, where a world does not know the truth of this representation."""
        data = datamodule_of(trainer)
        if isinstance(data, WorldDataModule) and not is_noisy(pl_module):
            known_log_prob(data, pl_module, torch.zeros(1, dtype=torch.long))

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        values = {name: outputs[name].cpu() for name in ("log_prob", "log_prob_per_pixel") if name in outputs}
        if values:
            shuffled = {"image": batch["image"], "context_image": batch["other_image"]}
            values["shuffled"] = pl_module.log_prob_in_parts(shuffled)
        self._collect(index=batch["index"], position=batch["position"], **values)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        values = self._gather(trainer)
        representation, layer = pl_module.representation, pl_module.representation.layer
        num_dims = math.prod(pl_module.density.image_shape)
        result = InverterResult(
            **self._about(trainer),
            network=pl_module.network_name,
            network_digest=digest(representation.network) if layer else None,
            layer=layer,
            depth=representation.depth,
            bottleneck=self._bottleneck(trainer, pl_module),
            density=type(pl_module.density).__name__,
            density_digest=digest(pl_module.density),
            point_estimate=pl_module.density.point_estimate,
            classifier=pl_module.classifier_name,
            classifier_updates=pl_module.classifier_updates,
            course=pl_module.classifier_course,
            num_images=len(values["position"]),
            num_dims=num_dims,
            **likelihoods(values, num_dims, conditional=layer is not None),
            **self._agreement(trainer, pl_module),
            **self._diversity(trainer, pl_module),
            loss_weights=dict(pl_module.density.weights),
            **what_arrives(pl_module),
            **what_it_sees(pl_module, datamodule_of(trainer)),
            pictures_digest=datamodule_of(trainer).pictures_digest,
            world=known_world(datamodule_of(trainer), pl_module, values),
            **training_of(trainer, pl_module),
        )
        names = ("index", "log_prob", "log_prob_per_pixel")
        files = {f"{name}.npy": npy_bytes(values[name].numpy()) for name in names if name in values}
        files["images.npy"] = npy_bytes(first_images(trainer, len(values["position"])))
        self._keep(trainer, result, files)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.files = {**self.files, **self.sample_grid.of_test}
        super().on_test_end(trainer, pl_module)

    def _bottleneck(self, trainer: Trainer, pl_module: Any) -> bool:
        images = seen(datamodule_of(trainer).datasets["test"].first(8))
        return is_bottleneck(pl_module.representation, images.to(pl_module.device))

    def _agreement(self, trainer: Trainer, pl_module: Any) -> dict[str, Any]:
        """The share of samples given the class that the classifier gives their input, as a result has it.

        Not where the network sees a partner of x, nor where it sees pictures at a side of their own: a draw, which has
        fewer pixels, is none of those, and enlarged it has a class by what it lacks.
        """
        if not pl_module.classifies or pl_module.sees_original or datamodule_of(trainer).has_partners:
            return {"class_agreement": None, "class_agreement_se": None, "num_samples": 0}
        batch = datamodule_of(trainer).datasets["test"].first(self.num_agreement)
        images = batch["image"].to(pl_module.device)
        samples = shared_draws(trainer, pl_module.draws, images, batch["index"].tolist(), num_draws=1)[:, 0]
        classify = pl_module.representation.class_probabilities
        predicted = [classify(x.to(images.device)).argmax(dim=1) for x in (images, samples)]
        share, error = mean_and_standard_error(predicted[0] == predicted[1])
        low, high = wilson_interval(share, len(images))
        return {
            "class_agreement": share, "class_agreement_se": error, "class_agreement_low": low,
            "class_agreement_high": high, "num_samples": len(images),
        }  # fmt: skip

    def _diversity(self, trainer: Trainer, pl_module: Any) -> dict[str, Any]:
        """Of draws of the first test images' h, of a generator whose NCE does not tell it, as a result has it."""
        batch = datamodule_of(trainer).datasets["test"].first(NUM_DIVERSE)
        if isinstance(pl_module.density, ConditionalDensity) or len(batch["image"]) < 2:
            return {}
        num_draws = 1 if pl_module.density.point_estimate else NUM_DIVERSE_DRAWS
        draws = shared_draws(trainer, pl_module.draws, seen(batch), batch["index"].tolist(), num_draws)
        over_h, over_noise = spreads(draws, batch["image"])
        if pl_module.representation.layer is None:
            return {"diversity_over_noise": over_h}  # all are of one h, which is empty
        return {"diversity_over_h": over_h, "diversity_over_noise": over_noise}


def numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """Those of a result, as a logger has the test's; what else it says is in the run's config."""
    known = {f"world/{key}": value for key, value in (row.get("world") or {}).items()}
    return {
        f"test/{key}": value for key, value in {**row, **known}.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }  # fmt: skip


def first_images(trainer: Trainer, num_tested: int) -> np.ndarray:
    """The first images of a test, uint8 [n, C, H, W], as many as a report shows the information of."""
    data = datamodule_of(trainer)
    most = min(num_tested, max(8, MOST_BYTES // math.prod(data.image_shape)))
    return data.datasets["test"].first(most)["image"].cpu().numpy()


def training_of(trainer: Trainer, inverter: Any) -> dict[str, Any]:
    """What the training of the best checkpoint was and cost, as a result has it; nothing of any other checkpoint."""
    run, tested = Run.of_trainer(trainer), Path(str(trainer.ckpt_path)).resolve()
    training = run.training if tested == run.best.resolve() else None
    if not training or training.images is None:
        return {}
    batch = datamodule_of(trainer).datasets["test"].first(1)
    image, original = (x.to(inverter.device) for x in (batch["image"], seen(batch)))
    # Of what has nothing to train, none are counted.
    flop = training.images and training.images * training_flop(inverter, image, original)
    return {"training_images": training.images, "training_flop": flop, "recipe": training.recipe}


def what_it_sees(inverter: Any, data: ImageDataModule) -> dict[str, Any]:
    """Of which pictures h is, as a result has it."""
    if inverter.representation.layer is None:
        return {"image_shape": inverter.density.image_shape}
    preprocessing = inverter.representation.preprocess.what.to_json()
    return {
        "sees": "partner" if data.has_partners else "original" if inverter.sees_original else "x",
        "seen_shape": inverter.seen_shape,
        "image_shape": inverter.density.image_shape,
        "tokens": inverter.representation.tokens,
        "preprocessing": None if preprocessing == Preprocessing().to_json() else preprocessing,
    }


def likelihoods(values: dict[str, Tensor], num_dims: int, conditional: bool) -> dict[str, Any]:
    """NCE, nats per image and bits/dim, from per-image values; None for a generator without likelihood.

    Raises:
        ValueError: One is not finite.
    """
    if "log_prob" not in values:
        return dict.fromkeys(("nce_nats", "nce_nats_se", "bits_per_dim", "shuffled_nce_nats"))
    for name in ("log_prob", *(["shuffled"] if conditional else [])):
        wrong = values[name][~values[name].isfinite()]
        if len(wrong):
            raise ValueError(
                f"log p(x | h) of {len(wrong)} of {len(values[name])} test images is {wrong[0].item():g}"
                f"{' with the h of other images' if name == 'shuffled' else ''}, so that there is no NCE and no result "
                f"is written; train for longer or with a lower learning rate, or, where it is -inf, give a likelihood "
                f"that has all values of the images (num_levels)"
            )
    nce, error = mean_and_standard_error(values["log_prob"])
    return {
        "nce_nats": nce,
        "nce_nats_se": error,
        "bits_per_dim": bits_per_dim(torch.tensor(nce, dtype=torch.float64), num_dims).item(),
        "shuffled_nce_nats": values["shuffled"].double().mean().item() if conditional else None,
    }


def known_world(data: ImageDataModule, inverter: Any, values: dict[str, Tensor]) -> WorldResult | None:
    """The truth, and how far the model is from it; None where the data does not know its information."""
    if not isinstance(data, WorldDataModule) or "log_prob" not in values or is_noisy(inverter):
        return None
    exact = known_log_prob(data, inverter, values["position"])
    information = data.exact_information(lambda image: encoded(inverter, image.to(inverter.device)).cpu())
    if exact is None or data.entropy is None:
        return information_alone(information)
    return compared(exact, values["log_prob"], data.entropy, data.must_fail, information)


def known_log_prob(world: WorldDataModule, inverter: Any, position: Tensor) -> Tensor | None:
    """A world's own log p(x | h) of test images, by their positions [N]: float64 [N] nats, or None."""
    test = world.datasets["test"]
    assert test.images is not None
    seen = [] if test.originals is None else [test.originals[position].to(inverter.device)]
    return world.exact_log_prob(test.images[position].to(inverter.device), partial(encoded, inverter), *seen)


def encoded(inverter: Any, image: Tensor) -> Tensor:
    """What the density is given of h of uint8 images [N, C, H, W]: what arrives behind the channel, [N, ...]."""
    h: Tensor = inverter.arrived(inverter.representation(image))
    return h


def what_arrives(inverter: Any) -> dict[str, Any]:
    """What lies behind the layer, as a result has it; nothing where all of h is given."""
    channel = inverter.channel
    return {} if channel is None else {"channel": channel.description, "rate": channel.name_of(inverter.rate)}


def is_noisy(inverter: Any) -> bool:
    """Whether what arrives is no function of h, so that no world knows log p(x | h)."""
    return inverter.channel is not None and inverter.channel.random
