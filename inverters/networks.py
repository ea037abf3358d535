"""Classifier architectures, each an nn.Sequential of named stages: the name of a stage is the name of a layer."""

from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

NetworkFactory = Callable[[tuple[int, int, int], int], nn.Sequential]


def _conv_stage(in_channels: int, out_channels: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size=5), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(dropout)
    )


class ConvNet(nn.Sequential):
    """The paper's classifier (Nash et al. 2019, appendix A), stages conv1, conv2, fc3, logits.

    On MNIST h is 32x12x12, 32x4x4, 256 and 10. Input in [0, 1].

    Args:
        image_shape: (C, H, W).
        num_classes: K.
        filters: Of conv1 and conv2 (the paper: 32, 32 for MNIST; 64, 128 for SVHN and CIFAR).
        num_hidden: Units of fc3.
        conv_dropout: After each pooling.
        fc_dropout: After fc3.

    Raises:
        ValueError: The image is too small for two 5x5 convolutions with pooling.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_classes: int,
        filters: Sequence[int] = (32, 32),
        num_hidden: int = 256,
        conv_dropout: float = 0.25,
        fc_dropout: float = 0.5,
    ) -> None:
        channels, height, width = image_shape
        side = [((size - 4) // 2 - 4) // 2 for size in (height, width)]
        if min(side) < 1:
            raise ValueError(f"images of {height}x{width} are too small for ConvNet; it needs at least 16x16")
        super().__init__(
            OrderedDict(
                conv1=_conv_stage(channels, filters[0], conv_dropout),
                conv2=_conv_stage(filters[0], filters[1], conv_dropout),
                fc3=nn.Sequential(
                    nn.Flatten(),
                    nn.Linear(filters[1] * side[0] * side[1], num_hidden),
                    nn.ReLU(),
                    nn.Dropout(fc_dropout),
                ),
                logits=nn.Linear(num_hidden, num_classes),
            )
        )


class _TopBits(nn.Module):
    def __init__(self, bits: int) -> None:
        super().__init__()
        self.step = 2 ** (8 - bits)

    def forward(self, x: Tensor) -> Tensor:
        return torch.floor((x * 255).round() / self.step) * self.step / 255


class TopBits(nn.Sequential):
    """An exact network for worlds of known information: its stage `bits` keeps the top b bits of every pixel.

    b = 8 is the identity, b = 0 a constant. It has no parameters, so it needs no training.

    Args:
        image_shape: (C, H, W).
        num_classes: Unused; every network is made from these two.
        bits: b.
    """

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int, bits: int = 1) -> None:
        super().__init__(OrderedDict(bits=_TopBits(bits)))
