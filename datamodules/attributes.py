"""What a data set knows of its images beside their pixels."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Attribute:
    """One number of each of N images.

    Attributes:
        kind: "discrete" counts from 0; "continuous" is any number; "circular" is an angle in radians.
        values: [N].
        num_values: K of a discrete one, else 0.
        uniform: Whether all K are known to be equally likely in the population, so that its entropy is ln K.
    """

    kind: Literal["discrete", "continuous", "circular"]
    values: Tensor
    num_values: int = 0
    uniform: bool = False
