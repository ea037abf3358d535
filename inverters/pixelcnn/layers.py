"""The layers of PixelCNN++ (Salimans et al. 2017)."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from inverters.pixelcnn.concat_elu import padded_concat_elu
from inverters.pixelcnn.context import ContextBias

# The kernels of the vertical stream, which sees the columns on both sides, and of the horizontal one.
KERNELS = ((2, 3), (2, 2))


class Normalised(nn.Module):
    """A convolution with w = g v / ||v|| per output channel (Salimans and Kingma 2016)."""

    weight: Tensor
    bias: Tensor
    transposed: bool
    turn = 1.0  # the part of Muon's share that it takes
    ready: tuple[Tensor, Tensor] | None = None  # in a block of `weights_at_once`

    def normalise_weight(self) -> None:
        """Begin with v drawn from N(0, 0.05^2) as there."""
        nn.init.normal_(self.weight, std=0.05)
        nn.init.zeros_(self.bias)
        weight_norm(self, dim=int(self.transposed))

    @property
    def weight_and_bias(self) -> tuple[Tensor, Tensor]:
        return self.ready or (self.weight, self.bias)


class ShiftedConv2d(Normalised, nn.Conv2d):
    """A weight-normalised convolution that looks up and to both sides (an odd width) or up and left (an even one).

    Where its input has no border of zeros, it pads on all sides by itself and the surplus at the bottom and right is
    cropped: a padded copy of the input would cost more. `init_scale` is the standard deviation that data-dependent
    initialisation gives the output.
    """

    bias: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, int],
        stride: int = 1,
        init_scale: float = 1.0,
        padded: bool = False,
    ) -> None:
        padding = (0, 0) if padded else (kernel_size[0] - 1, kernel_size[1] // 2)
        super().__init__(in_channels, out_channels, kernel_size, stride=stride, padding=padding)
        self.init_scale = init_scale
        self.normalise_weight()

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2] // self.stride[0], x.shape[3] // self.stride[1]
        return F.conv2d(x, *self.weight_and_bias, self.stride, self.padding)[:, :, :height, :width]


class CentredConv2d(Normalised, nn.Conv2d):
    """A weight-normalised convolution that sees all sides: of what is no pixel to come."""

    bias: Tensor

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, init_scale: float = 1.0, turn: float = 1.0
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, padding=kernel_size // 2)
        self.init_scale, self.turn = init_scale, turn
        self.normalise_weight()

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, *self.weight_and_bias, padding=self.padding)


class _Inside(torch.autograd.Function):
    """What lies in the border of a `padded_concat_elu`; its gradient is padded once, and not for each side."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, width: int) -> Tensor:
        ctx.right = x.shape[3] - width - 1
        return x[:, :, 1:, 1 : 1 + width]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return F.pad(grad, (1, ctx.right, 1, 0)), None


class SkipConv2d(ShiftedConv2d):
    """A 1x1 convolution of several inputs at once, which have a border each: `padded_concat_elu`'s."""

    def forward(self, width: int, *padded: Tensor) -> Tensor:  # type: ignore[override] # of one input
        """[B, C_i, H + 1, W + 1 or W + 2] each, with W given -> [B, C', H, W], as of their concatenation."""
        weight, bias = self.weight_and_bias
        weights = weight.split([x.shape[1] for x in padded], dim=1) if len(padded) > 1 else (weight,)
        biases = (bias, *[None] * (len(padded) - 1))
        outputs = [_Inside.apply(F.conv2d(x, w, b), width) for x, w, b in zip(padded, weights, biases, strict=True)]
        return outputs[0] if len(outputs) == 1 else outputs[0] + outputs[1]


class ShiftedConvTranspose2d(Normalised, nn.ConvTranspose2d):
    """Up-sampling by two, weight-normalised: [B, C, H, W] -> [B, C', 2H, 2W], cell (2r + a, 2c + b) from row r."""

    bias: Tensor
    init_scale = 1.0

    def __init__(self, in_channels: int, out_channels: int, kernel_size: tuple[int, int]) -> None:
        beyond = (0, kernel_size[1] - 2)
        super().__init__(in_channels, out_channels, kernel_size, stride=2, padding=beyond, output_padding=beyond)
        self.normalise_weight()

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override] # of an output of any size
        return F.conv_transpose2d(x, *self.weight_and_bias, self.stride, self.output_padding, self.output_padding)


@contextmanager
def weights_at_once(layers: Sequence[Normalised]) -> Iterator[None]:
    """A block in which the layers' normalised weights and biases are ready, in the precision of autocast.

    Those that have the shape of one output's weights in common are normalised together, and all biases are rounded
    together: on a GPU a launch for each layer takes longer than its work.
    """
    device = layers[0].bias.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else layers[0].bias.dtype
    with torch.autocast(device, enabled=False):
        biases = torch.cat([layer.bias for layer in layers]).to(dtype).split([len(layer.bias) for layer in layers])
        for layer, weight, bias in zip(layers, _normalised(layers, dtype), biases, strict=True):
            layer.ready = weight, bias
    try:
        yield
    finally:
        for layer in layers:
            layer.ready = None


def _normalised(layers: Sequence[Normalised], dtype: torch.dtype) -> list[Tensor]:
    """The layers' weights, as each has its own."""
    by_shape: dict[torch.Size, list[tuple[Normalised, Tensor, Tensor]]] = defaultdict(list)
    for layer in layers:
        parametrizations: Any = layer.parametrizations
        gain, direction = parametrizations.weight.original0, parametrizations.weight.original1  # of weight_norm
        if layer.transposed:
            gain, direction = gain.transpose(0, 1), direction.transpose(0, 1)
        by_shape[direction.shape[1:]].append((layer, gain, direction))  # [O, 1, 1, 1], [O, I, h, w]
    found: dict[Normalised, Tensor] = {}
    for those in by_shape.values():
        alike, gains, directions = zip(*those, strict=True)
        together = torch._weight_norm(torch.cat(directions), torch.cat(gains), 0).to(dtype)
        found |= zip(alike, together.split([len(direction) for direction in directions]), strict=True)
    return [found[layer].transpose(0, 1) if layer.transposed else found[layer] for layer in layers]


def both_streams(pair: nn.Module) -> tuple[Any, Any]:
    """The module of the vertical and that of the horizontal stream, from a list of the two."""
    vertical, horizontal = pair.children()
    return vertical, horizontal


class GatedResidualLayer(nn.Module):
    """x + a * sigmoid(b), where (a, b) is a function of x, of skip connections and of the context.

    Args:
        kernel_size: The stream's.
        num_filters: Channels of x.
        num_skip: Channels of all skip connections together before their activation; 0 for none.
        context_shape: (K,) or (K, H', W').
        dropout: Rate of the one dropout layer; `context_dropout` is that on the context's biases.
    """

    def __init__(
        self,
        kernel_size: tuple[int, int],
        num_filters: int,
        num_skip: int,
        context_shape: tuple[int, ...],
        dropout: float,
        context_dropout: float,
    ) -> None:
        super().__init__()
        self.conv_in = ShiftedConv2d(2 * num_filters, num_filters, kernel_size, padded=True)
        self.skip = SkipConv2d(2 * num_skip, num_filters, (1, 1)) if num_skip else None
        self.conv_out = ShiftedConv2d(2 * num_filters, 2 * num_filters, kernel_size, init_scale=0.1, padded=True)
        self.context = ContextBias(context_shape, 2 * num_filters, context_dropout)
        self.dropout = dropout

    def forward(self, x: Tensor, activated: Tensor, skips: tuple[Tensor, ...], products: Tensor) -> Tensor:
        """The layer's output for x [B, F, H, W], from its padded_concat_elu, those of the skip connections, and h's.

        The activations are arguments because each has two or three users.
        """
        hidden = self.conv_in(activated)  # [B, F, H, W]
        if self.skip is not None:
            hidden = hidden + self.skip(x.shape[3], *skips)
        right = activated.shape[3] - x.shape[3] - 1
        hidden = padded_concat_elu(hidden, right, self.dropout if self.training else 0.0)  # [B, 2F, H + 1, ...]
        gated = self.conv_out(hidden) + self.context.resized(products, (x.shape[2], x.shape[3]))  # [B, 2F, H, W]
        return x + F.glu(gated, dim=1)
