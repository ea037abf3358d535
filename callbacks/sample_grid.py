"""Inputs beside draws from p(x | h), or beside the one image of a point estimate: what does the layer keep?"""

from functools import partial
from typing import Any

import matplotlib.pyplot as plt
from jsonargparse.typing import NonNegativeInt, PositiveInt
from matplotlib.figure import Figure
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import WandbLogger
from torch import Tensor

from datamodules.split import seen
from evaluations.figures import sample_grid
from inverters.generators import ConditionalDensity
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
        from runtime.wandb_run import WandbRun  # brings W&B along, which a process that trains nothing can do without

        for logger in trainer.loggers:
            if isinstance(logger, WandbRun):
                logger.log_made(
                    partial(self._media, trainer, pl_module, split, batch, draws, figure), trainer.global_step
                )
            elif isinstance(logger, WandbLogger):
                logger.log_image(f"{split}/samples", [figure])
        plt.close(figure)

    @staticmethod
    def _media(
        trainer: Trainer, pl_module: Any, split: str, batch: Any, draws: Tensor, figure: Figure
    ) -> dict[str, Any]:
        """The grid, and a table of its images, their draws and log p(x | h), as W&B has them."""
        import wandb

        layer, step = pl_module.representation.layer, trainer.global_step
        given = pl_module.density.called or (f"draws from p(x | {layer})" if layer else "draws from p(x)")
        caption = f"{given}, step {step}"
        table: dict[str, list[Any]] = {"index": batch["index"].tolist(), "input": _pictures(batch["image"], "input")}
        for draw in range(draws.shape[1]):
            table[f"draw {draw + 1}"] = _pictures(draws[:, draw], caption)
        if isinstance(pl_module.density, ConditionalDensity):
            on_device = {name: values.to(pl_module.device) for name, values in batch.items()}
            table["log p, nats"] = pl_module.log_prob_in_parts(on_device).tolist()
        rows = [list(row) for row in zip(*table.values(), strict=True)]
        return {
            f"{split}/samples": wandb.Image(figure, caption=f"{caption}: input, then {draws.shape[1]} of each"),
            f"{split}/draws": wandb.Table(columns=list(table), data=rows),
        }


def _pictures(images: Tensor, caption: str) -> list[Any]:
    """W&B's, of uint8 images [N, C, H, W]."""
    import wandb

    return [wandb.Image(x.permute(1, 2, 0).squeeze(2).cpu().numpy(), caption=caption) for x in images]
