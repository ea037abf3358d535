"""What predict gave, on disk: class probabilities, or one draw from p(x | h) for each test image."""

from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from runtime.files import npy_bytes, write_all
from runtime.processes import gathered


class Predictions(Callback):
    """Writes `predictions.npy`, in the order of the test set; of an interrupted run, what was finished."""

    def __init__(self) -> None:
        self.batches: list[Tensor] = []
        self.positions: list[Tensor] = []

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.batches, self.positions = [], []

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        self.batches.append(outputs.cpu())
        self.positions.append(batch["position"].cpu())

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        parts = gathered(trainer, (torch.cat(self.batches), torch.cat(self.positions)))
        predictions, positions = (torch.cat(values) for values in zip(*parts, strict=True))
        if trainer.is_global_zero:
            self._write(trainer, predictions[positions.argsort()], "", "")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if trainer.predicting and self.batches:
            # The others may have ended: each process keeps its own.
            process = "" if trainer.world_size == 1 else f"_of_process_{trainer.global_rank}"
            self._write(trainer, torch.cat(self.batches), process, "interrupted after ")

    def _write(self, trainer: Trainer, predictions: Tensor, process: str, prefix: str) -> None:
        path = Path(trainer.default_root_dir) / f"predictions{process}.npy"
        write_all({path: npy_bytes(predictions.numpy())})
        kind = "class probabilities" if predictions.ndim == 2 else "samples"
        whose = "its share of the test images" if process else "the first test images"
        print(f"{prefix}{kind} {list(predictions.shape)} of {whose}: {path}")
