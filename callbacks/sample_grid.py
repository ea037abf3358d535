"""What does the layer keep? Inputs beside draws from p(x | h), or beside the mean of an MSE decoder."""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import WandbLogger
from torch import Tensor

from callbacks.atomic import npz_bytes, write_all, write_figure
from callbacks.datamodule import datamodule_of, first_images
from callbacks.processes import shared_draws
from evaluations.figures import mean_grid, sample_grid
from inverters.mse_decoder import MSEDecoder


class SampleGrid(Callback):
    """Draws for the first images of the split, as PNG in the run's folder and in W&B; the test's as arrays too.

    A grid is made at the first validation after every `every_n_steps` steps, with the averaged weights, and at the
    end of the test. The noise is a function of (image, draw), so grids of one run or of several layers differ only in
    what the models know. The global random state is not touched.

    Args:
        every_n_steps: Steps between grids.
        num_images: Rows.
        num_draws: Draws a row.
    """

    def __init__(self, every_n_steps: int = 5000, num_images: int = 8, num_draws: int = 4) -> None:
        self.every_n_steps, self.num_images, self.num_draws = every_n_steps, num_images, num_draws
        self.next_step = every_n_steps

    def state_dict(self) -> dict[str, Any]:
        return {"next_step": self.next_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.next_step = state_dict["next_step"]

    # The hook of the batch, because averaged weights are swapped out again before the callbacks' end of the epoch.
    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step >= self.next_step:
            self.next_step = (trainer.global_step // self.every_n_steps + 1) * self.every_n_steps
            self._draw(trainer, pl_module, "val", f"samples_step{trainer.global_step:06d}")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._draw(trainer, pl_module, "test", "samples")

    def _draw(self, trainer: Trainer, pl_module: Any, split: str, name: str) -> None:
        if not self.num_images:
            return
        batch = first_images(datamodule_of(trainer).datasets[split], self.num_images)
        images = batch["image"].to(pl_module.device)
        if isinstance(pl_module.density, MSEDecoder):
            with torch.no_grad():
                means = pl_module.density.reconstruction(pl_module.context(images))
            figure, arrays = mean_grid(batch["image"], means), {"means": means}
        else:
            draws = shared_draws(trainer, pl_module, images, batch["index"].tolist(), self.num_draws)
            figure, arrays = sample_grid(batch["image"], draws, pl_module.representation.layer), {"draws": draws}
        if trainer.is_global_zero:
            self._write(trainer, split, name, figure, arrays, batch)
        plt.close(figure)

    def _write(
        self, trainer: Trainer, split: str, name: str, figure: Figure, arrays: dict[str, Tensor], batch: Any
    ) -> None:
        if split == "test":
            arrays |= {"inputs": batch["image"], "index": batch["index"]}
            path = Path(trainer.default_root_dir).parent / "samples.npz"
            write_all({path: npz_bytes({key: value.cpu().numpy() for key, value in arrays.items()})})
        write_figure(Path(trainer.default_root_dir) / f"{name}.png", figure)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_image(f"{split}/samples", [figure])
