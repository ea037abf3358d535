"""The contract of what inverts a layer: a conditional generator of 8-bit images."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from inverters.representation import Representation

ImageShape = tuple[int, int, int]  # C, H, W
# From p of every level of a channel at (row, column), float64 [B, L], to the level of each image, int64 [B] below L.
Choice = Callable[[Tensor, int, int, int], Tensor]
LN2 = 0.6931471805599453


def check_images(image: Tensor, image_shape: ImageShape | None = None) -> None:
    """Raises ValueError where they are not uint8 [B, C, H, W], or not of the shape (C, H, W) that is given."""
    if image.dtype != torch.uint8:
        raise ValueError(
            f"images are uint8, from 0 to 255, not {image.dtype}; of x in [0, 1], give (255 x).round().byte()"
        )
    if image.ndim != 4 or (image_shape is not None and tuple(image.shape[1:]) != tuple(image_shape)):
        wanted = "C, H, W" if image_shape is None else ", ".join(map(str, image_shape))
        raise ValueError(f"images are [B, {wanted}], not {list(image.shape)}")


class ConditionalGenerator(nn.Module, ABC):
    """Anything that draws images given a representation, and can be trained to.

    Attributes:
        image_shape: (C, H, W).
        by_likelihood: Whether `loss` is -log p(x | h), so that a training step tells log p(x | h) at no cost.
        point_estimate: Whether `shown` is the same whatever the noise.
        last_is_best: Whether no number on validation images chooses among its weights, and the last validated are kept:
            those of what is trained against a discriminator, whose opinion is of the moment.
        parts: The names of what `losses` and `evaluation` give of a loss beside it, to be logged.
        weights: Of those of them that are weighed, for whoever compares runs.
        trained: Whether there is anything to train; a `fit` of what has nothing ends when it is initialised.
        given_image: Whether it works from the image itself, by `reconstruct`, as what it needs is not all in h.
        called: What its pictures are called; None for draws from p(x | h).
        entropy_weight: Of a loss that keeps its draws apart; None where it has no such knob.
        companions: Images that come along with each one of a training batch, of which `guess_loss` alone is asked:
            a batch has (1 + companions) times as many as are modelled, which stand first.
    """

    image_shape: ImageShape
    by_likelihood: bool = False
    point_estimate: ClassVar[bool] = False
    last_is_best: bool = False
    parts: tuple[str, ...] = ()
    weights: Mapping[str, float] = MappingProxyType({})
    trained: ClassVar[bool] = True
    given_image: ClassVar[bool] = False
    called: ClassVar[str | None] = None
    entropy_weight: float | None = None
    companions: int = 0

    @abstractmethod
    def loss(self, image: Tensor, context: Tensor) -> Tensor:
        """What training minimises, [B], for uint8 images [B, C, H, W] and h [B, ...]."""

    def losses(self, image: Tensor, context: Tensor) -> dict[str, Tensor]:
        """What a training step gives, tensors [B] by name: `loss`, as above, and each of the `parts`."""
        return {"loss": self.loss(image, context)}

    def guess_loss(self, image: Tensor, context: Tensor) -> Tensor:
        """Where it has `companions`: what training minimises of these too, [B]; arguments as for `loss`."""
        raise NotImplementedError  # never asked of what has none

    @abstractmethod
    def sample(self, context: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """Draw one image for each row of context.

        Args:
            context: h, [B, ...].
            generators: B CPU generators, one a row, so that a draw does not depend on its batch.

        Returns:
            uint8 images, [B, C, H, W].
        """

    def shown(self, context: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """What people are shown of each row, uint8 [B, C, H, W]: a draw, where there is nothing better."""
        return self.sample(context, generators)

    def reconstruct(self, image: Tensor) -> Tensor:
        """Where it is `given_image`: uint8 [B, C, H, W] from the image of which h is, of the same shape."""
        raise NotImplementedError  # never asked of what works from h alone

    def evaluation(self, image: Tensor, context: Tensor) -> dict[str, Tensor]:
        """What validation and test keep of each image, tensors [B, ...] by name; arguments as for `loss`."""
        return {"loss": self.loss(image, context)}

    def directions(self) -> list[tuple[nn.Parameter, float]]:
        """Weights of which only the direction counts, not the norm, and the part of Muon's share that each takes."""
        return []

    def own_groups(self) -> list[dict[str, Any]]:
        """Groups of weights with a learning rate and betas of their own, as Adam takes them: a discriminator's."""
        return []

    def meet(self, representation: "Representation", standardised: Callable[[Tensor], Tensor]) -> None:
        """See the frozen network, as those do that compare or optimise what it makes of an image; else nothing.

        What is kept of these must not become a module of this one (a tuple does not), or its weights would be too.

        Args:
            representation: Gives raw h, with its gradient by `of_unit`; other layers by `at`.
            standardised: From raw h to the context that `loss` and `sample` are given.
        """

    def initialise(self, image: Tensor, context: Tensor) -> None:
        """Set parameters from one batch of images [B, C, H, W] and representations, before training."""

    def calibrate(self, batches: Iterable[tuple[Tensor, Tensor]], total: Callable[[Tensor], Tensor]) -> None:
        """Set what follows from the validation images, before they are used.

        Args:
            batches: Of this process: images, uint8 [B, C, H, W], and their h.
            total: The sum of a tensor over all processes, each of which must call it as often.
        """


class ConditionalDensity(ConditionalGenerator):
    """A normalised p(x | h) over 8-bit images x, trained by maximum likelihood (Nash et al. 2019, eq. 4)."""

    by_likelihood = True

    @abstractmethod
    def log_prob(self, image: Tensor, context: Tensor) -> Tensor:
        """log p(x | h), [B] nats, of uint8 images [B, C, H, W] and h [B, ...]."""

    def loss(self, image: Tensor, context: Tensor) -> Tensor:
        return -self.log_prob(image, context)

    def evaluation(self, image: Tensor, context: Tensor) -> dict[str, Tensor]:
        return {"log_prob": self.log_prob(image, context).double()}


class AutoregressiveDensity(ConditionalDensity):
    """A density that says what each pixel adds."""

    @abstractmethod
    def log_prob_per_pixel(self, image: Tensor, context: Tensor) -> Tensor:
        """log p(x_i | x_<i, h) of every pixel in raster order, [B, H, W] nats; arguments as for `log_prob`."""

    def log_prob(self, image: Tensor, context: Tensor) -> Tensor:
        return self.log_prob_per_pixel(image, context).sum(dim=(1, 2))

    def in_order(self, context: Tensor, choose: Choice) -> Tensor:
        """One image for each row of context, [B, ...], value by value as `choose` has it: uint8 [B, C, H, W].

        Raster order, the channels of a pixel one after the other: what an entropy coder needs, each way.

        Raises:
            ValueError: It gives no such probabilities.
        """
        raise ValueError(
            f"a {type(self).__name__} gives no probabilities value by value; only PixelCNN can be coded by"
        )

    def evaluation(self, image: Tensor, context: Tensor) -> dict[str, Tensor]:
        per_pixel = self.log_prob_per_pixel(image, context)
        return {"log_prob": per_pixel.double().sum(dim=(1, 2)), "log_prob_per_pixel": per_pixel}


GeneratorFactory = Callable[[ImageShape, tuple[int, ...]], ConditionalGenerator]


def draw_generator(index: int, draw: int, seed: int) -> torch.Generator:
    """The generator of one draw's noise, a function of (seed, dataset index, number of the draw) alone."""
    state = np.random.SeedSequence((seed, index, draw)).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


def bits_per_dim(log_prob: Tensor, num_dims: int) -> Tensor:
    """Bits per sub-pixel, of D, from log p(x | h) in nats, any shape: the only place where one becomes the other."""
    return -log_prob / (num_dims * LN2)
