"""How far an image is from another in what a layer of the frozen network makes of it."""

from collections.abc import Callable

import torch
from torch import Tensor

from inverters.generators import ImageShape
from inverters.networks import FAULTS
from inverters.representation import Representation, random_images


class FeatureLoss:
    """The mean squared difference of features, of which images have a gradient.

    No module, so that the frozen network is not one of the generator that has it.

    Args:
        representation: Of the inverted layer.
        standardised: From its raw h to the context.
        layer: Whose features count; None for the inverted one, whose features are the context.
        image_shape: (C, H, W) of the images that are compared.
        key: Of the generator's argument that is its weight, for messages.

    Attributes:
        of_context: Whether the features are the context.

    Raises:
        ValueError: The network takes no such images, or gives them no gradient.
    """

    def __init__(
        self,
        representation: Representation,
        standardised: Callable[[Tensor], Tensor],
        layer: str | None,
        image_shape: ImageShape,
        key: str,
    ) -> None:
        self.of_context = layer in (None, representation.layer)
        self.representation = representation if layer is None or self.of_context else representation.at(layer)
        self.standardised = standardised
        size = "x".join(map(str, image_shape))
        instead = f"give --model.density.{key} 0, which leaves them out"
        if self.representation.layer is None:
            raise ValueError(f"without a layer there are no features to compare; {instead}")
        x = (random_images(image_shape) / 255).requires_grad_()
        try:
            with torch.enable_grad():
                found = self(x)
        except FAULTS as error:
            raise ValueError(f"the network does not take images of {size}, of which h is not; {instead}") from error
        if not found.requires_grad:
            raise ValueError(f"layer {self.representation.layer} gives pixels no gradient; {instead}")

    def __call__(self, x: Tensor) -> Tensor:
        """The features of x in [0, 1], [B, C, H, W]: [B, ...]."""
        raw = self.representation.of_unit(x)
        return self.standardised(raw) if self.of_context else raw.to(x.dtype)

    def of(self, x: Tensor, target: Tensor) -> Tensor:
        """[B], of images x in [0, 1] and the features that they should have."""
        return (self(x) - target).square().flatten(1).mean(dim=1)
