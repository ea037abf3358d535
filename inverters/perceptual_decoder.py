"""A decoder trained by what a network, or an opponent, sees in its images, as of DeePSiM: one image of an h."""

from collections.abc import Callable, Sequence

import torch
from jsonargparse.typing import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor

from inverters.adversarial import Adversarial
from inverters.discriminator import Discriminator
from inverters.feature_loss import FeatureLoss
from inverters.generators import ImageShape, check_images
from inverters.mirrored import mirrored, squashed
from inverters.representation import Representation


class PerceptualDecoder(Adversarial):
    """The `mirrored` layers from h to one image, trained by three losses (Dosovitskiy and Brox 2016a, eq. 2 to 5).

    Squared error of pixels, squared error of features in a layer of the frozen network, and an adversarial loss. By the
    features alone it is Johnson et al. 2016. There is no likelihood, and no noise: all its draws of an h are one image.

    Each loss is a mean, over pixels in [0, 1], or over features, standardised (those of another layer than is inverted
    by the mean square of its first batch). Differs in the discriminator: of hinge losses with spectral normalisation;
    and in the comparator: by default features are those of the layer that is inverted, where theirs are of one fixed
    layer for all, as `feature_layer` gives it.

    Args:
        image_shape: (C, H, W).
        context_shape: (K,) or (K, H', W').
        filters: Of the feature maps as ConvNet has them, the stage next to the image first.
        num_hidden: Units between a vector h and the first map.
        image_weight: Of the squared error of pixels; 0 leaves a part out, here as below.
        feature_weight: Of the squared error of features.
        feature_layer: Whose features; None for the layer that is inverted.
        adversarial_weight: Of the discriminator's opinion.
        discriminator_filters: Of its convolutions, each of which halves the side.
        discriminator_sees_h: Whether it is asked if an image is a real one of this h, not only if it is real.
        discriminator_lr: Its learning rate.
        discriminator_betas: Its betas of Adam.

    Raises:
        ValueError: All weights are 0, a beta is none, or h or the image is none that such layers or such a loss can be
            of.
    """

    point_estimate = True
    called = "perceptual decoder"
    feature_scale: Tensor

    def __init__(
        self,
        image_shape: ImageShape,
        context_shape: tuple[int, ...],
        filters: Sequence[PositiveInt] = (32, 32),
        num_hidden: PositiveInt = 256,
        image_weight: NonNegativeFloat = 1.0,
        feature_weight: NonNegativeFloat = 0.1,
        feature_layer: str | None = None,
        adversarial_weight: NonNegativeFloat = 0.01,
        discriminator_filters: Sequence[PositiveInt] = (32, 64),
        discriminator_sees_h: bool = True,
        discriminator_lr: PositiveFloat = 1e-3,
        discriminator_betas: tuple[float, float] = (0.5, 0.99),
    ) -> None:
        super().__init__()
        self.image_shape, self.feature_layer = image_shape, feature_layer
        self.weigh({"image": image_weight, "feature": feature_weight, "adversarial": adversarial_weight})
        self.register_buffer("feature_scale", torch.tensor(1.0))
        self.layers = mirrored(image_shape, context_shape, filters, num_hidden)
        if adversarial_weight:
            opponent = Discriminator(image_shape, context_shape, discriminator_filters, discriminator_sees_h)
            self.play_against(opponent, discriminator_lr, discriminator_betas)
        self.features: FeatureLoss | None = None

    def meet(self, representation: Representation, standardised: Callable[[Tensor], Tensor]) -> None:
        if "feature" in self.weights:
            self.features = FeatureLoss(
                representation, standardised, self.feature_layer, self.image_shape, "feature_weight"
            )

    def reconstruction(self, context: Tensor) -> Tensor:
        """The image of h [B, ...]: [B, C, H, W] in [0, 1], in float32 or wider."""
        return squashed(self.layers(context))

    def losses(self, image: Tensor, context: Tensor) -> dict[str, Tensor]:
        check_images(image, self.image_shape)
        made = self.reconstruction(context)
        x = image.to(made.dtype) / 255
        found = {}
        if "image" in self.weights:
            found["image"] = (made - x).square().flatten(1).mean(dim=1)
        if self.features is not None:
            found["feature"] = self.features.of(made, self._target(x, context)) / self.feature_scale
        if self.discriminator is not None:
            found |= self.discriminator.losses(x, made, context)
        return {"loss": self.total(found), **found}

    def _target(self, x: Tensor, context: Tensor) -> Tensor:
        """The features that the image of x and its h should have."""
        assert self.features is not None
        return context if self.features.of_context else self.features(x).detach()

    def evaluation(self, image: Tensor, context: Tensor) -> dict[str, Tensor]:
        return self.losses(image, context)

    @torch.no_grad()
    def sample(self, context: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        return (255 * self.reconstruction(context)).round().to(torch.uint8)

    @torch.no_grad()
    def initialise(self, image: Tensor, context: Tensor) -> None:
        if self.features is not None and not self.features.of_context:
            square = self.features(image.to(self.feature_scale.dtype) / 255).square().mean()
            self.feature_scale.copy_(torch.where(square > 0, square, 1.0))
