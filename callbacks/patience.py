"""Training stops after validations without improvement."""

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import EarlyStopping


class Patience(EarlyStopping):
    """Lightning's early stopping; a run that had stopped and is resumed does not begin again.

    Args:
        monitor: A logged metric.
        mode: "max" where higher is better, or "min".
        patience: Validations without improvement.
    """

    def __init__(self, monitor: str, mode: str, patience: int) -> None:
        super().__init__(monitor, mode=mode, patience=int(patience), check_finite=False)  # StopAtNaN says more

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.wait_count >= self.patience:
            trainer.should_stop = True
