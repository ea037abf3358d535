"""Classifier architectures, each an nn.Sequential of named stages: the name of a stage is the name of a layer."""

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import chain

import torch
from jsonargparse.typing import PositiveInt
from torch import Tensor, nn

from inverters.generators import check_images

NetworkFactory = Callable[[tuple[int, int, int], int], nn.Sequential]  # from (C, H, W) and the number of classes, K
Activation = Callable[[], nn.Module]
FAULTS = (RuntimeError, TypeError, LookupError, AttributeError)  # what a module raises that does not fit its input


def stages(network: nn.Module) -> dict[str, nn.Module]:
    """The stages of a network by name, from the input to the output.

    Raises:
        ValueError: It has none, or what it gives need not be what they give one after the other.
    """
    name, remedy = type(network).__name__, "give an nn.Sequential of named stages; any network comes in a later version"
    if not isinstance(network, nn.Sequential):
        raise ValueError(f"the network is a {name} and no nn.Sequential, so that its layers are not known; {remedy}")
    if type(network).forward is not nn.Sequential.forward:
        raise ValueError(f"{name} has a forward of its own, so that its stages need not be its layers; {remedy}")
    # Not named_children, which leaves out a stage that is the module of an earlier one.
    found = {name: stage for name, stage in network.named_modules(remove_duplicate=False) if name and "." not in name}
    if not found:
        raise ValueError(f"the network, a {name}, has no stages; {remedy}")
    return found


@torch.no_grad()
def made_network(
    factory: NetworkFactory, image_shape: tuple[int, int, int], num_classes: int, classifier: bool = False
) -> nn.Sequential:
    """The network that a factory makes, tried on an image.

    Raises:
        ValueError: It is not made of stages, does not take such images, does not give what its stages give, or has not
            one score a class though it is to be a classifier.
    """
    size = "x".join(map(str, image_shape))
    try:
        network = factory(image_shape, num_classes)
    except FAULTS as error:
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"no network for images of {size} and {num_classes} classes can be made ({reason})") from error
    parts, name = stages(network), type(network).__name__
    training = {module: module.training for module in network.modules()}
    image = torch.randint(256, (1, *image_shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    try:
        network.eval()
        whole, h = network(unit_interval(image, network)), unit_interval(image, network)
        for stage in parts.values():
            h = stage(h)
            if not isinstance(h, Tensor) or not h.is_floating_point():
                raise TypeError(f"a stage gives {h.dtype if isinstance(h, Tensor) else type(h).__name__}, not floats")
    except (ValueError, *FAULTS) as error:
        raise ValueError(f"the network, a {name}, cannot be used on images of {size}: {error}") from error
    finally:
        for module, mode in training.items():
            module.training = mode
    if whole.shape != h.shape or not torch.allclose(whole, h, rtol=1e-5, atol=1e-6, equal_nan=True):
        raise ValueError(
            f"the network, a {name}, does not give what its stages give one after the other, or gives something else "
            f"each time, so that its layers are not known; give an nn.Sequential without hooks or randomness"
        )
    if classifier and whole.shape != (1, num_classes):
        raise ValueError(
            f"the network, a {name}, gives {list(whole.shape)} for one image; a classifier gives one score a class, "
            f"[1, {num_classes}]"
        )
    return network


def network_name(network: nn.Module) -> str:
    """The network's class, and whether it pools globally."""
    pooled = any(isinstance(module, nn.AdaptiveMaxPool2d) for module in network.modules())
    return type(network).__name__ + (" with global pooling" if pooled else "")


def unit_interval(image: Tensor, network: nn.Module) -> Tensor:
    """uint8 images as a classifier takes them, in [0, 1] and in the precision of its weights."""
    check_images(image)
    own = (t.dtype for t in chain(network.parameters(), network.buffers()) if t.is_floating_point())
    return image.to(next(own, torch.float32)) / 255


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
