"""The classifier whose layers are inverted."""

from collections.abc import Callable
from typing import Any, Literal, NoReturn

import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from inverters.exact_float32 import exact_float32
from inverters.networks import ConvNet, NetworkFactory, made_network, unit_interval
from inverters.representation import NOT_LOADED, architecture

ONE_CLASS = (
    "the images are of one class, and a classifier tells two or more apart; put those of each class into a folder of "
    "its own, and none outside of these (p(x), and the inverter of a network that has its weights, need no classes)"
)


class Classifier(LightningModule):
    """A network of named stages, trained by cross-entropy (Nash et al. 2019, appendix A: Adam, lr 3e-4).

    Args:
        image_shape: (C, H, W), from the data module.
        num_classes: K, from the data module.
        network: Makes the network from these two.
        lr: Learning rate.
        optimizer: Takes the parameters and the learning rate.
        course: The course of training that checkpoints on the way show (fig 5b); None where it is no matter.
    """

    monitor = ("val/accuracy", "max")

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_classes: int,
        network: NetworkFactory = ConvNet,
        lr: float = 3e-4,
        optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.Adam,
        course: Literal["regular", "overfitted"] | None = None,
    ) -> None:
        super().__init__()
        if num_classes < 2:
            raise ValueError(ONE_CLASS)
        self.network = made_network(network, image_shape, num_classes, classifier=True)
        self.lr, self.optimizer, self.course = lr, optimizer, course
        self.accuracy = MulticlassAccuracy(num_classes, average="micro")
        self.cross_entropy = MeanMetric(nan_strategy="disable")  # by default it leaves NaN out

    def forward(self, image: Tensor) -> Tensor:
        """Logits [B, K] of uint8 images [B, C, H, W]."""
        return self.network(unit_interval(image, self.network))

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        return {"loss": F.cross_entropy(self(batch["image"]), batch["label"])}

    def _evaluate(self, batch: dict[str, Tensor], stage: str) -> dict[str, Tensor]:
        logits = self(batch["image"])
        self.accuracy.update(logits, batch["label"])
        self.cross_entropy.update(F.cross_entropy(logits, batch["label"], reduction="none"))
        self.log(f"{stage}/accuracy", self.accuracy)
        self.log(f"{stage}/cross_entropy_nats", self.cross_entropy)
        return {"correct": logits.argmax(dim=1) == batch["label"]}

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        return self._evaluate(batch, "val")

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        with exact_float32(batch["image"].device):
            return self._evaluate(batch, "test")

    def predict_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Class probabilities, [B, K]."""
        with exact_float32(batch["image"].device):
            return self(batch["image"]).softmax(dim=1)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        optimizer = self.optimizer(self.parameters(), lr=self.lr)
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise ValueError(f"optimizer gives an {type(optimizer).__name__}; give what makes a torch.optim.Optimizer")
        return optimizer

    @classmethod
    def load_from_checkpoint(cls, *args: Any, **kwargs: Any) -> NoReturn:
        """Raises ValueError: checkpoints have no arguments of the constructor, which are in a run's config."""
        raise ValueError(NOT_LOADED.format(cls.__name__))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint |= {"architecture": architecture(self.network), "course": self.course}
