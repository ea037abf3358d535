"""The paper's classifiers, each an nn.Sequential of named stages, and how any network is made."""

import inspect
import math
from collections import OrderedDict
from collections.abc import Callable, Sequence

from jsonargparse.typing import PositiveInt
from torch import Tensor, nn

from inverters.generators import ImageShape
from inverters.network_by_name import named

NetworkFactory = Callable[[ImageShape, int], nn.Module]  # from (C, H, W) and the number of classes, K
Activation = Callable[[], nn.Module]
FAULTS = (
    RuntimeError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    AssertionError,
)  # what a module raises that does not fit its input


def made_network(factory: NetworkFactory, image_shape: ImageShape, num_classes: int) -> nn.Module:
    """The network that a factory makes of the shape of what it sees and the number of classes.

    A function that can only be called without arguments, as those of torchvision, is.

    Raises:
        ValueError: It makes none.
    """
    size = "x".join(map(str, image_shape))
    try:
        network = factory(image_shape, num_classes) if _takes_two(factory) else factory()  # type: ignore[call-arg] # one that takes none
    except FAULTS as error:
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(
            f"no network for images of {size} and {num_classes} classes can be made ({reason}); what is not made of "
            f"their shape and number is given as --model.network package:function --model.network.arguments '{{...}}'"
        ) from error
    if not isinstance(network, nn.Module):
        raise ValueError(f"the network is a {type(network).__name__}; give what makes an nn.Module")
    return network


def _takes_two(factory: NetworkFactory) -> bool:
    try:
        inspect.signature(factory).bind((1, 1, 1), 1)
    except TypeError:
        return False
    except ValueError:  # of what is not written in Python
        return True
    return True


def network_name(network: nn.Module) -> str:
    """What a network is called: as it was asked for, or by its class, and whether it pools globally."""
    if by_name := named(network):
        return by_name.name
    pooled = any(isinstance(module, nn.AdaptiveMaxPool2d) for module in network.modules())
    return type(network).__name__ + (" with global pooling" if pooled else "")


class Residual(nn.Sequential):
    """x + f(x), f the modules in sequence."""

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class GlobalMaxPool(nn.AdaptiveMaxPool2d):
    """nn.AdaptiveMaxPool2d(1), whose gradient a GPU cannot repeat bit for bit, as one that it can."""

    def __init__(self) -> None:
        super().__init__(1)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2).max(dim=2).values[:, :, None, None]

    def _get_name(self) -> str:
        """As it was in the checkpoints of before, whose architecture is compared as text."""
        return "AdaptiveMaxPool2d"


def _conv_stage(
    in_channels: int, out_channels: int, dropout: float, batch_norm: bool, residual: bool, activation: Activation
) -> nn.Sequential:
    modules: list[nn.Module] = [nn.Conv2d(in_channels, out_channels, kernel_size=5)]
    if batch_norm:
        modules.append(nn.BatchNorm2d(out_channels))
    modules.append(activation())
    if residual:
        modules.append(Residual(nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1), activation()))
    return nn.Sequential(*modules, nn.MaxPool2d(2), nn.Dropout(dropout))


def _fc_stage(num_inputs: int, num_hidden: int, dropout: float, activation: Activation) -> list[nn.Module]:
    return [nn.Linear(num_inputs, num_hidden), activation(), nn.Dropout(dropout)]


class ConvNet(nn.Sequential):
    """The paper's classifier (Nash et al. 2019, appendix A), stages conv1, conv2, fc3, logits.

    On MNIST h is 32x12x12, 32x4x4, 256 and 10. Input in [0, 1].

    Args:
        filters: Of conv1 and conv2 (the paper: 32, 32 for MNIST and affNIST; 64, 128 for SVHN and CIFAR).
        num_hidden: Units of fc3.
        conv_dropout: After each pooling.
        fc_dropout: After fc3.
        global_pooling: Take the maximum of each filter of conv2 over all positions before fc3 (section 5.2).
        batch_norm: After both convolutions (this and the next two: the paper's section 6).
        residual: Add to each stage, before its pooling, a 3x3 convolution of itself.
        activation: Of every layer but the logits.

    Raises:
        ValueError: The image is too small for two 5x5 convolutions with pooling, or there are not two filters.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_classes: int,
        filters: Sequence[PositiveInt] = (32, 32),
        num_hidden: PositiveInt = 256,
        conv_dropout: float = 0.25,
        fc_dropout: float = 0.5,
        global_pooling: bool = False,
        batch_norm: bool = False,
        residual: bool = False,
        activation: Activation = nn.ReLU,
    ) -> None:
        channels, height, width = image_shape
        if len(filters) != 2:
            raise ValueError(f"filters is {list(filters)}; give two numbers, of conv1 and of conv2")
        side = [((size - 4) // 2 - 4) // 2 for size in (height, width)]
        if min(side) < 1:
            raise ValueError(f"images of {height}x{width} are too small for ConvNet; it needs at least 16x16")
        options = (conv_dropout, batch_norm, residual, activation)
        pooling = [GlobalMaxPool()] if global_pooling else []
        num_inputs = filters[1] * (1 if global_pooling else side[0] * side[1])
        super().__init__(
            OrderedDict(
                conv1=_conv_stage(channels, filters[0], *options),
                conv2=_conv_stage(filters[0], filters[1], *options),
                fc3=nn.Sequential(*pooling, nn.Flatten(), *_fc_stage(num_inputs, num_hidden, fc_dropout, activation)),
                logits=nn.Linear(num_hidden, num_classes),
            )
        )


class FullyConnectedNet(nn.Sequential):
    """ConvNet with fully connected layers in place of the convolutions (section 5.2): fc1, fc2, fc3, logits.

    Args:
        num_wide: Units of fc1 and fc2.
        num_hidden: Units of fc3.
        wide_dropout: After fc1 and fc2.
        fc_dropout: After fc3.
        activation: Of every layer but the logits.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_classes: int,
        num_wide: PositiveInt = 2048,
        num_hidden: PositiveInt = 256,
        wide_dropout: float = 0.25,
        fc_dropout: float = 0.5,
        activation: Activation = nn.ReLU,
    ) -> None:
        super().__init__(
            OrderedDict(
                fc1=nn.Sequential(nn.Flatten(), *_fc_stage(math.prod(image_shape), num_wide, wide_dropout, activation)),
                fc2=nn.Sequential(*_fc_stage(num_wide, num_wide, wide_dropout, activation)),
                fc3=nn.Sequential(*_fc_stage(num_wide, num_hidden, fc_dropout, activation)),
                logits=nn.Linear(num_hidden, num_classes),
            )
        )
