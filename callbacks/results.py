"""The numbers of a test: results.json and the per-image values beside it."""

import math
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn

from callbacks.atomic import json_bytes, npy_bytes, write_all
from callbacks.datamodule import datamodule_of, first_images
from callbacks.processes import gathered, shared_draws
from callbacks.wandb_run import WandbRun
from evaluations.information import mean_and_standard_error
from evaluations.known_worlds import score
from inverters.densities import bits_per_dim
from inverters.representation import Representation, digest


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
    if "passes" in row:
        verdict = "as it must be" if row["passes"] else "outside of what is allowed"
        lines += [
            f"known exactly   {row['exact_nce_nats']:.2f} nats; off by {row['excess_nats']:.3f} (standard error "
            f"{row['excess_nats_se']:.3f}), {verdict}: at most {0.02 * row['entropy_nats']:.3f}, 2 % of H(x)"
        ]
    lines += [f"checkpoint      {row['checkpoint']}"]
    return "\n  ".join(lines)


def network_name(network: nn.Module) -> str:
    """The network's class, and whether it pools globally."""
    pooled = any(isinstance(module, nn.AdaptiveMaxPool2d) for module in network.modules())
    return type(network).__name__ + (" with global pooling" if pooled else "")


def about_inverter(inverter: Any) -> dict[str, Any]:
    """What a row says of the inverter itself. Depth counts the network's layers from 1."""
    representation: Representation = inverter.representation
    stages = [name for name, _ in representation.network.named_children()]
    layer = representation.layer
    return {
        "kind": "inverter",
        "network": network_name(representation.network) if layer else None,
        "layer": layer,
        "depth": stages.index(layer) + 1 if layer else None,
        "density": type(inverter.density).__name__,
        "classifier": inverter.classifier_name,
        "classifier_updates": inverter.classifier_updates,
        "network_digest": digest(representation.network) if layer else None,
        "density_digest": digest(inverter.density),
    }


def known(data: Any, values: dict[str, Tensor]) -> dict[str, Any]:
    """Of a world that knows its information: the truth, and how far the model is from it."""
    if not hasattr(data, "exact_log_prob"):
        return {}
    images = data.datasets["test"].images[values["position"]]
    exact = data.exact_log_prob(images).cpu()
    found = score(exact, values["log_prob"], data.entropy)
    return {
        "entropy_nats": data.entropy,
        "exact_nce_nats": exact.mean().item(),
        "excess_nats": found.excess,
        "excess_nats_se": found.standard_error,
        "passes": found.passes,
    }


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

    def _write(self, trainer: Trainer, numbers: dict[str, Any], arrays: dict[str, Tensor]) -> None:
        if not trainer.is_global_zero:
            return
        folder = Path(trainer.default_root_dir).parent
        head = {"name": folder.name, "commit": self.commit, "split": "test", "dataset": datamodule_of(trainer).name}
        self.row = {**head, **numbers, "checkpoint": self.checkpoint}
        text = {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in self.row.items()}
        files = {folder / f"{name}.npy": npy_bytes(array.numpy()) for name, array in arrays.items()}
        write_all({folder / "results.json": json_bytes(text), **files})
        for logger in trainer.loggers:
            if isinstance(logger, WandbRun):
                logger.summarise({k: v for k, v in numbers.items() if v is not None})


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
        network = pl_module.network
        about = {"kind": "classifier", "network": network_name(network), "network_digest": digest(network)}
        numbers = {"num_images": len(values["correct"]), "accuracy": accuracy, "accuracy_se": error}
        self._write(trainer, {**about, **numbers}, {})


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
        shuffled = {"image": batch["image"], "context_image": batch["other_image"]}
        self._collect(
            log_prob=outputs["log_prob"],
            log_prob_per_pixel=outputs["log_prob_per_pixel"].cpu(),
            shuffled=pl_module.log_prob_in_parts(shuffled),
            index=batch["index"],
            position=batch["position"],
        )

    def on_test_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        values = self._gather(trainer)
        conditional = pl_module.representation.layer is not None
        nce, error = mean_and_standard_error(values["log_prob"])
        num_dims = math.prod(pl_module.density.image_shape)
        agreement, agreement_error, num_samples = self._agreement(trainer, pl_module)
        numbers = {
            **about_inverter(pl_module),
            "num_images": len(values["log_prob"]),
            "num_dims": num_dims,
            "nce_nats": nce,
            "nce_nats_se": error,
            "bits_per_dim": bits_per_dim(torch.tensor(nce, dtype=torch.float64), num_dims).item(),
            "shuffled_nce_nats": values["shuffled"].double().mean().item() if conditional else None,
            "class_agreement": agreement,
            "class_agreement_se": agreement_error,
            "num_samples": num_samples,
            **known(datamodule_of(trainer), values),
        }
        self._write(trainer, numbers, {name: values[name] for name in ("index", "log_prob", "log_prob_per_pixel")})

    def _agreement(self, trainer: Trainer, pl_module: Any) -> tuple[float | None, float | None, int]:
        """The share of samples given the class that the classifier gives their input."""
        representation = pl_module.representation
        if representation.layer is None or "logits" not in dict(representation.network.named_children()):
            return None, None, 0
        batch = first_images(datamodule_of(trainer).datasets["test"], self.num_agreement)
        images = batch["image"].to(pl_module.device)
        samples = shared_draws(trainer, pl_module, images, batch["index"].tolist(), num_draws=1)[:, 0].to(images.device)
        predicted = [representation.class_probabilities(x).argmax(dim=1) for x in (images, samples)]
        mean, error = mean_and_standard_error(predicted[0] == predicted[1])
        return mean, error, len(images)
