"""What stands for the training of a generator that has nothing to train."""

from pytorch_lightning import Callback, LightningModule, Trainer


class WithoutTraining(Callback):
    """Begins a validation as a training begins: statistics of h are taken, and what cannot be is refused."""

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for callback in trainer.callbacks:  # type: ignore[attr-defined] # it has
            callback.on_fit_start(trainer, pl_module)
