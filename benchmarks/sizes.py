"""The paper's sizes of PixelCNN++, and a tiny one to try things with."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from inverters.likelihoods import Categorical, Likelihood, LogisticMixture
from inverters.pixelcnn import PixelCNN


@dataclass(frozen=True)
class Size:
    """A network with three residual layers a block, and the batches it is measured with on a CPU."""

    image_shape: tuple[int, int, int]
    likelihood: Likelihood
    num_filters: int
    training_batch: int
    sampling_batches: tuple[int, ...]

    def density(self, context_size: int, dropout: float = 0.0) -> PixelCNN:
        return PixelCNN(self.image_shape, (context_size,), self.likelihood, self.num_filters, dropout=dropout)

    def images(self, batch_size: int) -> Tensor:
        return torch.randint(256, (batch_size, *self.image_shape), dtype=torch.uint8)

    def on(self, device: torch.device) -> "Size":
        """With a GPU's batches where it is one, on which the smaller ones would measure launches alone."""
        if device.type == "cpu":
            return self
        return replace(self, training_batch=128, sampling_batches=(64, 256, 1024))


MNIST = Size((1, 28, 28), Categorical(), 64, 16, (1, 16, 64))
SIZES = {
    "mnist": MNIST,
    "affnist": replace(MNIST, image_shape=(1, 40, 40)),
    "cifar": Size((3, 32, 32), LogisticMixture(), 196, 8, (1, 8)),
    "tiny": Size((1, 8, 8), Categorical(), 8, 2, (2,)),
}
OF_SIZES = {"nargs": "+", "choices": SIZES, "default": ["mnist", "cifar"]}  # the option that chooses
