"""Does the frozen network know the data? Its accuracy says so before a training: a wrong normalisation shows here."""

from typing import Any

from pytorch_lightning import Callback, Trainer
from pytorch_lightning.utilities import rank_zero_only
from tqdm import tqdm

from datamodules.split import seen
from evaluations.information import wilson_interval
from inverters.inverter import Inverter
from runtime.datamodule import datamodule_of

MOST = 1000  # images


class NetworkAccuracy(Callback):
    """Says the share of validation images that a new inverter's network puts into their class, in one line."""

    @rank_zero_only
    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        assert isinstance(pl_module, Inverter)
        representation, data = pl_module.representation, datamodule_of(trainer)
        if trainer.ckpt_path is not None or representation.layer is None:
            return
        pictures = "pictures of {1}x{2}".format(*pl_module.seen_shape) if pl_module.sees_original else "images"
        about = f"network: {pl_module.network_name}, which sees {pictures} {representation.preprocess.what}"
        if not pl_module.classifies:
            scores = representation.num_scores
            gives = f"gives {scores} numbers" if scores else "gives no scores"
            if 1 < data.num_classes == scores:
                gives = "has no weights for its scores"
            print(f"{about}, {gives} where the data has {data.num_classes} classes: no accuracy", flush=True)
            return
        batch = data.datasets["val"].first(MOST)
        parts = list(zip(seen(batch).split(50), batch["label"].split(50), strict=True))
        correct = 0
        for image, label in tqdm(parts, "accuracy of the network", delay=3, leave=False):
            image, label = image.to(pl_module.device), label.to(pl_module.device)
            correct += int((representation.output(image).argmax(dim=1) == label).sum())
        number = len(batch["label"])
        low, high = wilson_interval(correct / number, number)
        print(
            f"{about}: {correct / number:.1%} of {number} validation images in their class (95 % interval {low:.1%} to "
            f"{high:.1%})", flush=True,
        )  # fmt: skip
