"""Training batches get their h from disk."""

from pathlib import Path

from pytorch_lightning import Callback, LightningModule, Trainer

from inverters.representation import Representation
from runtime.activations import Precision, Rows, cached_activations
from runtime.datamodule import datamodule_of


class CacheActivations(Callback):
    """Gives training batches their h from disk, so that no step runs the frozen network.

    Comes after the classifier's weights. The statistics of h are still taken through the network, so that they are the
    same numbers with and without. Data that draws new images each time, and a model without a layer, stay as they are.

    For a network that costs something. The paper's classifier takes a hundredth of a small inverter's step on a CPU, a
    thousandth of a large one's (`python -m benchmarks.cache`), so the command line's default is not to.

    Args:
        folder: Shared by all runs.
        dtype: What is kept.
    """

    def __init__(self, folder: Path, dtype: Precision) -> None:
        self.folder, self.dtype = folder, dtype

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data = datamodule_of(trainer)
        split, representation = data.datasets["train"], pl_module.representation
        assert isinstance(representation, Representation)
        if representation.layer is None or split.seen is None:
            return
        if split.originals is not None and pl_module.warp:
            raise ValueError(
                "--model.warp takes h of warped pictures, and batches with h from disk do not have them at the side "
                "that the network sees; give --cache_activations null, or --model.warp 0"
            )
        batch_size = data.batch_size // trainer.world_size
        split.h = Rows(cached_activations(representation, split.seen, "train", self.folder, self.dtype, batch_size))

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        datamodule_of(trainer).datasets["train"].h = None  # or another layer's fit on this data would be given it
