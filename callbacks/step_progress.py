"""How far is it, and how long will it take?"""

import sys
import time
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ProgressBar
from tqdm import tqdm

# For charts, or the same number again.
NOT_SHOWN = ("/bits_per_dim", "/learning_rate", "/gradient_norm", "/images_per_second", "/shuffled_nce_nats")


class StepProgress(ProgressBar):
    """One bar over all steps of a run, with the time left and the latest metrics; one bar for a test or prediction.

    Lightning's own bars count the batches of one epoch, of which a run here has many.
    """

    def __init__(self) -> None:
        super().__init__()
        self.enabled = True
        self.interval = 1.0
        self.shown_at = 0.0
        self.bar: tqdm[Any] | None = None

    def disable(self) -> None:
        self.enabled = False

    def _open(self, description: str, total: float, initial: int = 0) -> None:
        # Off a terminal a line every half minute is enough.
        self.interval = 1.0 if sys.stderr.isatty() else 30.0
        self.shown_at = time.monotonic()
        self.bar = tqdm(
            desc=description, total=int(total), initial=initial, disable=not self.enabled, mininterval=self.interval,
            dynamic_ncols=True, file=sys.stderr,
        )  # fmt: skip

    def _close(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._open("fit", trainer.estimated_stepping_batches, trainer.global_step)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert self.bar is not None
        # A GPU is waited for where it is read, as Lightning does at every step for what has prog_bar=True.
        if self.enabled and time.monotonic() - self.shown_at >= self.interval:
            self.shown_at = time.monotonic()
            metrics = {k: v for k, v in trainer.callback_metrics.items() if not k.endswith(NOT_SHOWN)}
            self.bar.set_postfix({k: f"{float(v):.4g}" for k, v in metrics.items()}, refresh=False)
        self.bar.update(trainer.global_step - self.bar.n)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._open("test", sum(trainer.num_test_batches))

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._open("predict", sum(trainer.num_predict_batches))

    def on_test_batch_end(self, *args: Any, **kwargs: Any) -> None:
        assert self.bar is not None
        self.bar.update()

    on_predict_batch_end = on_test_batch_end
    on_train_end = on_test_end = on_predict_end = _close

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._close(trainer, pl_module)
