"""What will a run cost? An estimate before it starts, measured on the machine that runs it."""

from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_only

from datamodules.split import seen
from inverters.inverter import Inverter
from runtime.cost import duration, measured_cost
from runtime.datamodule import datamodule_of


class CostEstimate(Callback):
    """Prints the estimate in one line when a fit starts: of the steps that are left, if any."""

    def __init__(self) -> None:
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
        batch = data.datasets["train"].first(size)
        image, original = (x.to(pl_module.device) for x in (batch["image"], seen(batch)))
        cost = measured_cost(pl_module, image, trainer.precision_plugin.train_step_context, original)
        print(
            f"cost: at most {steps} steps of {size} images at {cost.images_per_second:.3g} images/s here, "
            f"{duration(steps * size / cost.images_per_second)}; {steps * size * cost.flops:.2g} FLOP; "
            f"{cost.memory(size) / 2**30:.2g} GiB; one sample in {cost.sample_seconds:.2g} s"
            f"{advice(pl_module, trainer.precision)}",
            flush=True,
        )


def advice(inverter: Inverter, precision: str) -> str:
    """What would be faster than a run as it comes; nothing where there is nothing, or the run is not as it comes."""
    as_it_comes = precision == "32-true" and not inverter.steps_are_compiled
    return "; --config presets/gpu.yaml is faster" if inverter.device.type == "cuda" and as_it_comes else ""
