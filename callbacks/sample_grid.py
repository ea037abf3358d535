"""Inputs beside draws from p(x | h), or beside the one image of a point estimate: what does the layer keep?"""

from typing import Any

import matplotlib.pyplot as plt
from jsonargparse.typing import NonNegativeInt, PositiveInt
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import WandbLogger

from datamodules.split import seen
from evaluations.figures import sample_grid
from runtime.datamodule import datamodule_of
from runtime.files import npz_bytes, png_bytes, write_figure
from runtime.processes import shared_draws
from runtime.run import Run


class SampleGrid(Callback):
    """Draws for the first images of the split, as PNG and in W&B; the test's as arrays too.

    A grid is made at the first validation after every `every_n_steps` steps, with the averaged weights, and at the
    end of the test. The noise is a function of (image, draw), so grids of one run or of several layers differ only in
    what the models know. The global random state is not touched.

    Args:
        every_n_steps: Steps between grids.
        num_images: Rows.
        num_draws: Draws a row.

    Attributes:
        of_test: The files of the latest test, in the first process, for whoever writes its numbers.
    """

    def __init__(
        self, every_n_steps: PositiveInt = 5000, num_images: NonNegativeInt = 8, num_draws: PositiveInt = 4
    ) -> None:
        self.every_n_steps, self.num_images, self.num_draws = int(every_n_steps), num_images, num_draws
        self.next_step = self.every_n_steps
        self.of_test: dict[str, memoryview] = {}

    def state_dict(self) -> dict[str, Any]:
        return {"next_step": self.next_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.next_step = state_dict["next_step"]

    # Stands before the callback that averages weights, which swaps the average out again in this hook.
    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step >= self.next_step:
            self.next_step = (trainer.global_step // self.every_n_steps + 1) * self.every_n_steps
            self._draw(trainer, pl_module, "val", f"samples_step{trainer.global_step:06d}")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._draw(trainer, pl_module, "test", "samples")

    def _draw(self, trainer: Trainer, pl_module: Any, split: str, name: str) -> None:
        if not self.num_images:
            return
        batch = datamodule_of(trainer).datasets[split].first(self.num_images)
        num_draws = 1 if pl_module.density.point_estimate else self.num_draws
        draws = shared_draws(trainer, pl_module.shown, seen(batch), batch["index"].tolist(), num_draws)
        if not trainer.is_global_zero:
            return
        figure = sample_grid(batch["image"], draws, pl_module.representation.layer, pl_module.density.called)
        if split == "test":
            arrays = {"draws": draws, "inputs": batch["image"], "index": batch["index"]}
            numpy = {key: value.cpu().numpy() for key, value in arrays.items()}
            self.of_test = {"samples.npz": npz_bytes(numpy), f"{name}.png": png_bytes(figure)}
        else:
            write_figure(Run.of_trainer(trainer).folder / f"{name}.png", figure)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_image(f"{split}/samples", [figure])
        plt.close(figure)
