"""The trained inverter that a verb asks."""

from pathlib import Path

import pytorch_lightning as pl

from datamodules import ImageDataModule
from inverters import Inverter
from runtime.checkpoints import check_fit, load_checkpoint


def trained_inverter(
    trainer: pl.Trainer, model: pl.LightningModule, data: ImageDataModule, ckpt_path: str | None
) -> Inverter:
    """The model with a checkpoint's weights, on the trainer's device, in eval mode.

    Raises:
        ValueError: The model is no inverter, or the checkpoint is of another one or of other data.
    """
    if not isinstance(model, Inverter):
        raise ValueError(f"this needs an inverter's config; {type(model).__name__} has no p(x | h)")
    path = Path(str(ckpt_path))
    checkpoint = load_checkpoint(path)
    check_fit(model, checkpoint["state_dict"], path)
    data.check(checkpoint, path)
    model.on_load_checkpoint(checkpoint)
    model.load_state_dict(checkpoint["state_dict"])
    return model.to(trainer.strategy.root_device).eval()
