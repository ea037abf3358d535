"""A generator that has nothing to train: it works back through the frozen network itself."""

from collections.abc import Callable

from torch import Tensor

from inverters.generators import ConditionalGenerator, ImageShape
from inverters.representation import Representation

SMALLEST_NORM = 1e-12  # of h, squared, that a distance is relative to


def relative_distance(context: Tensor, wanted: Tensor) -> Tensor:
    """||h - h0||^2 / ||h0||^2 of each row, [B], of two [B, ...] (Mahendran and Vedaldi 2015, eq. 2, and relative)."""
    squares = wanted.flatten(1).square().sum(dim=1).clamp(min=SMALLEST_NORM)
    return (context - wanted).flatten(1).square().sum(dim=1) / squares


class Untrained(ConditionalGenerator):
    """Knows the network whose layer is inverted, and has no parameters.

    Its loss is no loss: how far h of what it gives is from the h that is wanted, relative to that, both standardised.

    Args:
        image_shape: (C, H, W).
    """

    trained = False

    def __init__(self, image_shape: ImageShape) -> None:
        super().__init__()
        self.image_shape = image_shape
        self.met: tuple[Representation, Callable[[Tensor], Tensor]] | None = None  # no module, but what holds one

    def meet(self, representation: Representation, standardised: Callable[[Tensor], Tensor]) -> None:
        """Raises ValueError where there is no layer."""
        if representation.layer is None:
            raise ValueError(
                f"a {type(self).__name__} works back from a layer; give --model.layer, as p(x) has nothing to invert"
            )
        self.met = representation, standardised

    @property
    def representation(self) -> Representation:
        """Of raw h."""
        assert self.met is not None
        return self.met[0]

    def context_of(self, x: Tensor) -> Tensor:
        """What `sample` would be given for floats x in [0, 1], [B, C, H, W]: [B, ...], with its gradient."""
        assert self.met is not None
        representation, standardised = self.met
        return standardised(representation.of_unit(x))
