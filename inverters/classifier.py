"""The classifier whose layers are inverted."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NoReturn

import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from inverters.exact_float32 import exact_float32
from inverters.generators import ImageShape
from inverters.networks import FAULTS, ConvNet, NetworkFactory, made_network, network_name
from inverters.preprocessing import Preprocess, Preprocessing, check_same
from inverters.representation import NOT_LOADED, architecture, check_fingerprint, fingerprint, not_taken, random_images

ONE_CLASS = (
    "the images are of one class, and a classifier tells two or more apart; put those of each class into a folder "
    "of its own, none outside of these (p(x), and an inverter of --model.weights FILE and --classifier null, need none)"
)


class Classifier(LightningModule):
    """A network, trained by cross-entropy (Nash et al. 2019, appendix A: Adam, lr 3e-4).

    Args:
        image_shape: (C, H, W), from the data module.
        num_classes: K, from the data module.
        network: Makes the network from the shape of what it sees and the number of classes.
        lr: Learning rate.
        optimizer: Takes the parameters and the learning rate.
        course: The course of training that checkpoints on the way show (fig 5b); None where it is no matter.
        preprocessing: Of the images, before the network sees them.
        seen_shape: (C, H, W) of the pictures that it sees, from the data module.
    """

    monitor = ("val/accuracy", "max")

    def __init__(
        self,
        image_shape: ImageShape,
        num_classes: int,
        network: NetworkFactory = ConvNet,
        lr: float = 3e-4,
        optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.Adam,
        course: Literal["regular", "overfitted"] | None = None,
        preprocessing: Preprocessing = Preprocessing(),  # noqa: B008 - frozen
        seen_shape: ImageShape | None = None,
    ) -> None:
        super().__init__()
        if num_classes < 2:
            raise ValueError(ONE_CLASS)
        seen = self.seen_shape = seen_shape or image_shape
        self.network = made_network(network, preprocessing.shape(seen), num_classes)
        self.network_name = network_name(self.network)
        self.preprocess = Preprocess(preprocessing, self.network)
        self._check_scores(seen, num_classes)
        self.lr, self.optimizer, self.course = lr, optimizer, course
        self.accuracy = MulticlassAccuracy(num_classes, average="micro")
        self.cross_entropy = MeanMetric(nan_strategy="disable")  # by default it leaves NaN out

    def forward(self, image: Tensor) -> Tensor:
        """Logits [B, K] of uint8 images [B, C, H, W]."""
        return self.network(self.preprocess(image, self.network))

    @torch.no_grad()
    def _scores(self, images: Tensor) -> Any:
        """What the network gives of images in eval mode; nothing of it changes."""
        training = {module: module.training for module in self.network.modules()}
        try:
            with torch.random.fork_rng(devices=[]), exact_float32(images.device):
                self.network.eval()
                return self(images)
        finally:
            for module, mode in training.items():
                module.training = mode

    def check_network(self, checkpoint: Mapping[str, Any], source: object) -> None:
        """Raises ValueError where the network, which has a checkpoint's weights, is not the one that was trained."""
        check_fingerprint(checkpoint, self._fingerprint(), source)

    def _fingerprint(self) -> Tensor:
        return fingerprint(self._scores(random_images(self.seen_shape).to(self.device)))

    def _check_scores(self, seen: ImageShape, num_classes: int) -> None:
        """Raises ValueError where the network does not take images of a shape, or gives them no score a class."""
        images = random_images(seen)
        try:
            scores = self._scores(images)
        except FAULTS as error:
            raise not_taken(self.network, self.preprocess, images, error) from error
        shape = list(scores.shape) if isinstance(scores, Tensor) else f"a {type(scores).__name__}"
        if shape != [len(images), num_classes]:
            raise ValueError(
                f"the network, a {type(self.network).__name__}, gives {shape} for {len(images)} images; a classifier "
                f"gives one score a class, [{len(images)}, {num_classes}]"
            )

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        return {"loss": F.cross_entropy(self(_seen(batch)), batch["label"])}

    def _evaluate(self, batch: dict[str, Tensor], stage: str) -> dict[str, Tensor]:
        logits = self(_seen(batch))
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
            return self(_seen(batch)).softmax(dim=1)

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
        checkpoint["fingerprint"] = self._fingerprint()
        checkpoint["preprocessing"] = self.preprocess.what.to_json()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Raises ValueError where the checkpoint's network has seen images in another way."""
        check_same(checkpoint, self.preprocess.what, "the checkpoint")


def _seen(batch: dict[str, Tensor]) -> Tensor:
    """What the network is to see of a batch, uint8 [B, C, H', W']."""
    return batch.get("context_image", batch["image"])
