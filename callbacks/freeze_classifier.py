"""A trained classifier's weights go into an inverter's representation."""

from itertools import zip_longest
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, Trainer

from callbacks.datamodule import datamodule_of
from callbacks.run_folders import run_folder_of
from inverters.checkpoints import check_fit, load_checkpoint
from inverters.representation import Representation, architecture


class FreezeClassifier(Callback):
    """Loads a classifier checkpoint into the inverter before a new run starts, never on resume.

    Representation keeps the weights frozen; afterwards the inverter's own checkpoint holds them.

    Args:
        checkpoint: Of the classifier; None where the representation has no weights (an unconditional model, an exact
            world).
    """

    def __init__(self, checkpoint: Path | None) -> None:
        self.checkpoint = checkpoint

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        if trainer.ckpt_path is not None:
            return
        representation = pl_module.representation
        assert isinstance(representation, Representation)
        if self.checkpoint is not None:
            pl_module.classifier_updates = load_classifier(representation, self.checkpoint, datamodule_of(trainer))
            folder = run_folder_of(self.checkpoint)
            pl_module.classifier_name = folder.parent.name if folder else self.checkpoint.stem
        elif next(representation.parameters(), None) is not None:
            raise ValueError(
                "the representation has weights but no classifier is named; set --classifier to the name of a "
                "classifier's config or to the path of its checkpoint"
            )


def load_classifier(representation: Representation, path: Path, data: Any) -> int:
    """Load a classifier's weights; returns after how many updates they were saved.

    Raises:
        FileNotFoundError: There is no such checkpoint.
        ValueError: The checkpoint is none, or of another architecture, data set or split.
    """
    checkpoint = load_checkpoint(path)
    if "architecture" not in checkpoint:
        raise ValueError(f"{path} is not the checkpoint of a classifier")
    data.check(checkpoint, f"the classifier {path}")
    prefix = "network."
    weights = {k[len(prefix) :]: v for k, v in checkpoint["state_dict"].items() if k.startswith(prefix)}
    check_fit(representation.network, weights, path)
    ours = architecture(representation.network)
    if checkpoint["architecture"] != ours:
        lines = zip_longest(checkpoint["architecture"].splitlines(), ours.splitlines(), fillvalue="nothing")
        theirs, wanted = next(pair for pair in lines if pair[0] != pair[1])
        raise ValueError(f"the classifier {path} has {theirs.strip()} where this config has {wanted.strip()}")
    representation.network.load_state_dict(weights)
    updates: int = checkpoint["global_step"]
    return updates
