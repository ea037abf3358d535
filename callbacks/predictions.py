"""What predict gave, on disk: class probabilities, or one draw from p(x | h) for each test image."""

from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from callbacks.atomic import write_array


class Predictions(Callback):
    """Writes `predictions.npy`, in the order of the test set; of an interrupted run, what was finished."""

    def __init__(self) -> None:
        self.batches: list[Tensor] = []

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.batches = []

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        self.batches.append(outputs.cpu())

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer, "")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if trainer.predicting and self.batches:
            self._write(trainer, "interrupted after ")

    def _write(self, trainer: Trainer, prefix: str) -> None:
        path = Path(trainer.default_root_dir) / "predictions.npy"
        predictions = torch.cat(self.batches).numpy()
        write_array(path, predictions)
        kind = "class probabilities" if predictions.ndim == 2 else "samples"
        print(f"{prefix}{kind} {list(predictions.shape)} of the first test images: {path}")
