"""A trained classifier's weights go into an inverter's representation."""

from itertools import zip_longest
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, Trainer

from datamodules.images import ImageDataModule
from inverters.representation import Representation, architecture
from runtime.checkpoints import check_fit, load_checkpoint
from runtime.datamodule import datamodule_of
from runtime.run import Run


class FreezeClassifier(Callback):
    """Loads a classifier checkpoint into the inverter before a new run starts, never on resume.

    Representation keeps the weights frozen; afterwards the inverter's own checkpoint holds them.

    Args:
        path: The classifier's checkpoint; None where the representation has no weights (an unconditional model, an
            exact world).
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        if trainer.ckpt_path is not None:
            return
        representation = pl_module.representation
        if self.path is not None:
            checkpoint = load_classifier(representation, self.path, datamodule_of(trainer))
            run = Run.of(self.path)
            pl_module.classifier_name = run.name if run else self.path.stem
            pl_module.classifier_updates = checkpoint["global_step"]
            pl_module.classifier_course = checkpoint.get("course")
        elif next(representation.parameters(), None) is not None:
            raise ValueError(
                "the representation has weights but no classifier is named; set --classifier to the name of a "
                "classifier's config or to the path of its checkpoint"
            )


def load_classifier(representation: Representation, path: Path, data: ImageDataModule) -> dict[str, Any]:
    """Load a classifier's weights; returns its checkpoint.

    Raises:
        FileNotFoundError: There is no such checkpoint.
        ValueError: The checkpoint is none, or of another architecture, data set or split.
    """
    checkpoint = load_checkpoint(path)
    if "architecture" not in checkpoint:
        raise ValueError(f"{path} is not the checkpoint of a classifier")
    data.check(checkpoint, f"the classifier {path}", classifier=True)
    prefix = "network."
    weights = {k[len(prefix) :]: v for k, v in checkpoint["state_dict"].items() if k.startswith(prefix)}
    check_fit(representation.network, weights, path)
    ours = architecture(representation.network)
    if checkpoint["architecture"] != ours:
        lines = zip_longest(checkpoint["architecture"].splitlines(), ours.splitlines(), fillvalue="nothing")
        theirs, wanted = next(pair for pair in lines if pair[0] != pair[1])
        raise ValueError(f"the classifier {path} has {theirs.strip()} where this config has {wanted.strip()}")
    representation.network.load_state_dict(weights)
    return checkpoint
