"""What will a run cost? An estimate before it starts, measured on the machine that runs it."""

from contextlib import nullcontext
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_only

from datamodules.split import seen
from inverters.inverter import Inverter
from runtime.cost import duration, measured_cost
from runtime.datamodule import datamodule_of

TOO_LONG = 86_400  # seconds on a CPU, after which a smaller experiment is named


class CostEstimate(Callback):
    """Prints the estimate in one line when a fit starts: of the steps that are left, if any.

    Args:
        smaller: The config of the same experiment for a CPU, if any.
    """

    def __init__(self, smaller: str | None = None) -> None:
        self.smaller = smaller
        self.steps_done = 0

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self.steps_done = checkpoint["global_step"]  # the trainer itself learns it after on_fit_start

    @rank_zero_only
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Inverter)
        steps = int(trainer.estimated_stepping_batches) - self.steps_done
        patience = trainer.early_stopping_callback
        if steps <= 0 or (patience and patience.wait_count >= patience.patience):
            return
        data = datamodule_of(trainer)
        size = data.batch_size // trainer.world_size
        batch = data.datasets["train"].first(size * (1 + data.companions))
        image, original = (x.to(pl_module.device) for x in (batch["image"], seen(batch)))
        cost = measured_cost(pl_module, image, trainer.precision_plugin.train_step_context, original)
        seconds = steps * size / cost.images_per_second
        beside = f" and {size * data.companions} companions" if data.companions else ""
        print(
            f"cost: at most {steps} steps of {size} images{beside} at {cost.images_per_second:.3g} images/s here, "
            f"{duration(seconds)}; {steps * size * cost.flops:.2g} FLOP; "
            f"{cost.memory(size) / 2**30:.2g} GiB; one sample in {cost.sample_seconds:.2g} s"
            f"{advice(pl_module, trainer.precision, seconds, self.smaller)}",
            flush=True,
        )


def say_beforehand(inverter: Inverter, image_shape: tuple[int, int, int], steps: int, size: int, smaller: str) -> None:
    """Before hours go into its classifier: print where a CPU would need too long for so many steps, and what it can do.

    Args:
        inverter: On the CPU.
        image_shape: (C, H, W).
        steps: Of the training.
        size: Images a step.
        smaller: The config of the same experiment for a CPU.
    """
    number = size * (1 + inverter.density.companions)
    image = torch.zeros(number, *image_shape, dtype=torch.uint8)
    seen = torch.zeros(number, *inverter.seen_shape, dtype=torch.uint8)
    seconds = steps * size / measured_cost(inverter, image, nullcontext, seen).images_per_second
    if said := smaller_advice(seconds, smaller):
        print(f"cost: at most {steps} steps of {size} images would take {duration(seconds)} here{said}", flush=True)


def smaller_advice(seconds: float, smaller: str | None) -> str:
    """On a CPU: nothing where it ends in time, or there is no smaller experiment."""
    return f"; --config {smaller} is for such a machine" if smaller and seconds > TOO_LONG else ""


def advice(inverter: Inverter, precision: str, seconds: float, smaller: str | None = None) -> str:
    """What would be faster than a run as it comes; nothing where there is nothing, or the run is not as it comes."""
    if inverter.device.type == "cpu":
        return smaller_advice(seconds, smaller)
    as_it_comes = precision == "32-true" and not inverter.steps_are_compiled
    return "; --config presets/gpu.yaml is faster" if inverter.device.type == "cuda" and as_it_comes else ""
