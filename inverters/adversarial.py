"""Training by several losses, one of which may be an opponent's."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from inverters.discriminator import Discriminator
from inverters.generators import ConditionalGenerator


class Adversarial(ConditionalGenerator):
    """A generator whose loss is a weighted sum of parts; with an opponent, one step of one Adam trains both.

    Each loss is blind to the other's weights, so that the sum of the two has both gradients.

    Attributes:
        weights: Of the parts that are not left out, by their names.
        parts: All names, the opponent's own loss last.
        discriminator: The opponent, None without one.
    """

    discriminator: Discriminator | None

    def weigh(self, weights: Mapping[str, float]) -> None:
        """Take the weights of the parts, by their names, of which 0 leaves one out.

        Raises:
            ValueError: None is left.
        """
        self.weights = {name: float(weight) for name, weight in weights.items() if weight}
        if not self.weights:
            raise ValueError(f"all of {', '.join(f'{name}_weight' for name in weights)} are 0; give one that is not")
        self.parts = (*self.weights,)
        self.discriminator = None

    def play_against(self, opponent: Discriminator, lr: float, betas: tuple[float, float]) -> None:
        """Take an opponent, trained by Adam at a rate and with betas of its own.

        Raises:
            ValueError: A beta is none, which Adam checks only of its defaults and not of a group's.
        """
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(
                f"discriminator_betas are {', '.join(map(str, betas))}; give two of at least 0 and below 1"
            )
        self.discriminator, self.rates = opponent, {"lr": float(lr), "betas": betas}
        self.parts = (*self.parts, "discriminator")
        self.last_is_best = True

    def own_groups(self) -> list[dict[str, Any]]:
        if self.discriminator is None:
            return []
        parameters = list(self.discriminator.parameters())
        return [{"params": parameters, **self.rates, "argument": "density.discriminator_lr"}]

    def total(self, parts: Mapping[str, Tensor]) -> Tensor:
        """The weighted sum, [B], of the parts of a loss, each [B]; of the opponent's own as it is."""
        return torch.stack([self.weights.get(name, 1.0) * part for name, part in parts.items()]).sum(dim=0)

    def loss(self, image: Tensor, context: Tensor) -> Tensor:
        """The weighted sum of the parts, and the discriminator's own loss, of other weights, [B]."""
        return self.losses(image, context)["loss"]
