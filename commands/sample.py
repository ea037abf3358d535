"""Draws from p(x | h) for test images."""

import signal

import pytorch_lightning as pl
import torch
from jsonargparse.typing import PositiveInt
from torch import Tensor

from commands.trained_inverter import trained_inverter
from datamodules import ImageDataModule
from datamodules.split import seen
from evaluations.figures import sample_grid
from runtime.files import npy_bytes, png_bytes, write_all
from runtime.processes import in_order, part_of_process
from runtime.run import Run
from runtime.signals import answer


def sample(
    trainer: pl.Trainer,
    model: pl.LightningModule,
    datamodule: ImageDataModule,
    ckpt_path: str | None = None,
    num_images: PositiveInt = 8,
    num_draws: PositiveInt = 4,
    seed: int = 0,
) -> None:
    """Draw from p(x | h) for the first test images.

    Args:
        ckpt_path: A file, or best or last of the newest run; best by default.
        num_images: Rows of the grid.
        num_draws: Draws a row.
        seed: Of the noise, which is a function of (seed, image, draw).
    """
    inverter = trained_inverter(trainer, model, datamodule, ckpt_path)
    datamodule.prepare_data()
    datamodule.setup("test")
    batch = datamodule.datasets["test"].first(num_images)
    run = Run.of_trainer(trainer)
    pictures = part_of_process(trainer, seen(batch)).to(inverter.device)
    index = part_of_process(trainer, batch["index"].tolist())
    finished: list[Tensor] = [batch["image"][:0].cpu()]
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number in before:
        answer(number, signal.default_int_handler)  # which raises KeyboardInterrupt
    try:
        for drawn in inverter.draw_batches(pictures, index, num_draws, seed):
            finished.append(drawn.cpu())
    except KeyboardInterrupt:
        kept = ""
        if len(finished) > 1:
            # Image i of a process is image (rank + world_size i) of the test set.
            process = f"_of_process_{trainer.global_rank}" if trainer.world_size > 1 else ""
            path = run.folder / f"draws_finished{process}.npy"
            write_all({path: npy_bytes(torch.cat(finished).numpy())})
            kept = f"; they are kept in {path}, draw j of image i at {num_draws} i + j"
        print(f"\ninterrupted with {sum(map(len, finished))} draws finished{kept}")
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    draws = in_order(trainer, torch.cat(finished).unflatten(0, (-1, num_draws)))
    if not trainer.is_global_zero:
        return
    inputs = batch["image"].cpu().numpy()
    layer, called = inverter.representation.layer, inverter.density.called
    grid = png_bytes(sample_grid(batch["image"], draws, layer, called))
    run.write({"draws.png": grid, "draws.npy": npy_bytes(draws.numpy()), "inputs.npy": npy_bytes(inputs)})
    print(f"{len(draws)} images, {num_draws} draws each: {run.folder / 'draws.png'}; as arrays draws.npy, inputs.npy")
