"""The numbers of a test: results.json and the per-image values beside it."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import WandbLogger
from torch import Tensor

from callbacks.atomic import replacing
from callbacks.datamodule import datamodule_of
from inverters.densities import bits_per_dim


def mean_and_standard_error(values: Tensor) -> tuple[float, float]:
    """Of [N] values, the mean and the standard error of the mean; nan for the latter where N is 1."""
    values = values.double()
    return values.mean().item(), (values.std() / math.sqrt(len(values))).item() if len(values) > 1 else math.nan


def summary(row: dict[str, Any]) -> str:
    """A row of results in a few lines for people."""
    lines = [f"{row['name']}, {row['num_images']} test images"]
    if "accuracy" in row:
        lines += [f"accuracy        {row['accuracy']:.2%} (standard error {row['accuracy_se']:.2%})"]
    else:
        lines += [
            f"NCE             {row['nce_nats']:.2f} nats an image (standard error {row['nce_nats_se']:.2f})",
            f"bits/dim        {row['bits_per_dim']:.3f}",
        ]
    if row.get("shuffled_nce_nats") is not None:
        worse = row["nce_nats"] - row["shuffled_nce_nats"]
        lines += [f"shuffled        {row['shuffled_nce_nats']:.2f} nats with the h of other images, {worse:.2f} worse"]
    if row.get("class_agreement") is not None:
        lines += [
            f"class agreement {row['class_agreement']:.1%} of {row['num_samples']} samples get the class predicted for "
            f"their input (standard error {row['class_agreement_se']:.1%})"
        ]
    lines += [f"checkpoint      {row['checkpoint']}"]
    return "\n  ".join(lines)


def _gathered(trainer: Trainer, values: list[Tensor]) -> Tensor:
    """The values of all processes, which may hold different numbers of them."""
    mine = torch.cat(values)
    if trainer.world_size == 1:
        return mine.cpu()
    everyone: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(everyone, mine.cpu())
    return torch.cat(everyone)


class _Results(Callback):
    """Collects per-image values over a test and writes them once, from the first process.

    Args:
        commit: Of the code, None outside a repository.
        checkpoint: That is tested, relative to the working folder; set before each test.
    """

    def __init__(self, commit: str | None, checkpoint: str | None = None) -> None:
        self.commit, self.checkpoint = commit, checkpoint
        self.row: dict[str, Any] = {}
        self.collected: dict[str, list[Tensor]] = {}

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.collected = {}

    def _collect(self, **values: Tensor) -> None:
        for name, value in values.items():
            self.collected.setdefault(name, []).append(value)

    def _gather(self, trainer: Trainer) -> dict[str, Tensor]:
        """Every value of the whole test set, in the order of the test set. Raises RuntimeError for a wrong count."""
        values = {name: _gathered(trainer, value) for name, value in self.collected.items()}
        order = torch.argsort(values["position"])
        return {name: value[order] for name, value in values.items()}

    def _write(self, trainer: Trainer, numbers: dict[str, Any], arrays: dict[str, Tensor]) -> None:
        if not trainer.is_global_zero:
            return
        folder = Path(trainer.default_root_dir).parent
        head = {"name": folder.name, "commit": self.commit, "split": "test"}
        self.row = {**head, **numbers, "checkpoint": self.checkpoint}
        for name, array in arrays.items():
            with replacing(folder / f"{name}.npy") as file:
                np.save(file, array.numpy())
        with replacing(folder / "results.json") as file:
            text = {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in self.row.items()}
            file.write((json.dumps(text, indent=2) + "\n").encode())
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.experiment.summary.update({k: v for k, v in numbers.items() if v is not None})


class ClassifierResults(_Results):
    """Accuracy with its standard error."""

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        self._collect(correct=outputs["correct"].double(), position=batch["position"])

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        values = self._gather(trainer)
        accuracy, error = mean_and_standard_error(values["correct"])
        self._write(trainer, {"num_images": len(values["correct"]), "accuracy": accuracy, "accuracy_se": error}, {})


class InverterResults(_Results):
    """NCE with its standard error, under shuffled contexts too, and what the classifier says of the samples.

    Args:
        num_agreement: Test images for which one sample each is drawn and classified.
        kwargs: As for _Results.
    """

    def __init__(self, commit: str | None, num_agreement: int, checkpoint: str | None = None) -> None:
        super().__init__(commit, checkpoint)
        self.num_agreement = num_agreement

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        shuffled = pl_module.log_prob_in_parts({"image": batch["image"], "context_image": batch["other_image"]})
        self._collect(log_prob=outputs["log_prob"], shuffled=shuffled, index=batch["index"], position=batch["position"])

    def on_test_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        values = self._gather(trainer)
        conditional = pl_module.representation.layer is not None
        nce, error = mean_and_standard_error(values["log_prob"])
        num_dims = math.prod(pl_module.density.image_shape)
        agreement, agreement_error, num_samples = self._agreement(trainer, pl_module)
        self._write(
            trainer,
            {
                "num_images": len(values["log_prob"]),
                "nce_nats": nce,
                "nce_nats_se": error,
                "bits_per_dim": bits_per_dim(torch.tensor(nce, dtype=torch.float64), num_dims).item(),
                "shuffled_nce_nats": values["shuffled"].double().mean().item() if conditional else None,
                "class_agreement": agreement,
                "class_agreement_se": agreement_error,
                "num_samples": num_samples,
            },
            {"log_prob": values["log_prob"], "index": values["index"]},
        )

    def _agreement(self, trainer: Trainer, pl_module: Any) -> tuple[float | None, float | None, int]:
        """The share of samples given the class that the classifier gives their input."""
        representation = pl_module.representation
        if representation.layer is None or "logits" not in dict(representation.network.named_children()):
            return None, None, 0
        dataset = datamodule_of(trainer).datasets["test"]
        batch = dataset.__getitems__(range(min(self.num_agreement, len(dataset))))
        images = batch["image"].to(pl_module.device)
        with torch.random.fork_rng(devices=[]):
            samples = pl_module.draws(images, batch["index"].tolist(), num_draws=1)[:, 0]
        predicted = [representation.class_probabilities(x).argmax(dim=1) for x in (images, samples)]
        share, error = mean_and_standard_error(predicted[0] == predicted[1])
        return share, error, len(images)
