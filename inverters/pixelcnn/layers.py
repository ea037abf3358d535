"""The layers of PixelCNN++ (Salimans et al. 2017)."""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm


class _ConcatELU(torch.autograd.Function):
    """One node of the graph, so that its output, which the convolution after it keeps anyway, is all that is saved."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, right: int, dropout: float) -> Tensor:
        make = _written_for_caches if x.device.type == "cpu" and x.itemsize >= 4 else _written_for_launches
        out, kept, ctx.scale = make(x, right, dropout)
        ctx.save_for_backward(out, kept)
        ctx.width = x.shape[3]
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        out, kept = ctx.saved_tensors
        if kept is not None:
            grad = grad * kept
        grad = torch.ops.aten.elu_backward(grad, 1.0, ctx.scale, 1.0, True, out)
        inside = grad[:, :, 1:, 1 : 1 + ctx.width]
        channels = out.shape[1] // 2
        return inside[:, :channels] - inside[:, channels:], None, None


def _written_for_caches(x: Tensor, right: int, dropout: float) -> tuple[Tensor, Tensor | None, float]:
    """The padded concat_elu, what dropout has kept, and the factor on that: one exponential, and few bytes written."""
    batch, channels, height, width = x.shape
    out = x.new_empty(batch, 2 * channels, height + 1, width + 1 + right)
    out[:, :, 0].zero_()
    out[:, :, :, 0].zero_()
    if right:
        out[:, :, :, -1].zero_()
    dropped = round(dropout * 2**16)  # of 2^16
    scale = 2**16 / (2**16 - dropped)
    # elu(x) = max(x, e) and elu(-x) = max(-x, e) with e = exp(-|x|) - 1: one exponential for both.
    e = x.abs().neg_().exp_().sub_(1)
    if dropped:
        x, e = x * scale, e.mul_(scale)
    inside = out[:, :, 1:, 1 : 1 + width]
    torch.maximum(x, e, out=inside[:, :channels])
    torch.maximum(-x, e, out=inside[:, channels:])
    kept = _random_words(out.shape) >= dropped - 2**15 if dropped else None
    if kept is not None:
        out.mul_(kept)
    return out, kept, scale


def _written_for_launches(x: Tensor, right: int, dropout: float) -> tuple[Tensor, Tensor | None, float]:
    """The same in three or four launches of a GPU, and in half precision without rounding in between."""
    batch, channels, height, width = x.shape
    out = x.new_zeros(batch, 2, channels, height + 1, width + 1 + right)
    torch.mul(x[:, None], _signs(x.dtype, x.device), out=out[:, :, :, 1:, 1 : 1 + width])
    out = F.elu(out.flatten(1, 2), inplace=True)
    if not dropout:
        return out, None, 1.0
    return *torch.native_dropout(out, dropout, True), 1 / (1 - dropout)


@cache
def _signs(dtype: torch.dtype, device: torch.device) -> Tensor:
    """1 and -1, which are copied to a GPU once."""
    return torch.tensor([1, -1], dtype=dtype, device=device).view(2, 1, 1, 1)


def _random_words(shape: torch.Size) -> Tensor:
    """Uniform int16, four from each random number of 64 bits.

    torch's own dropout draws one random number an element, which is a tenth of a training step on a CPU.
    """
    size = math.prod(shape)
    wide = torch.randint(-(2**63), 2**63 - 1, ((size + 3) // 4,))
    return wide.view(torch.int16)[:size].view(shape)


def concat_elu(x: Tensor) -> Tensor:
    """ELU of x and of -x, [B, C, ...] -> [B, 2C, ...]."""
    return F.elu(torch.cat((x, -x), dim=1), inplace=True)


def padded_concat_elu(x: Tensor, right: int, dropout: float = 0.0) -> Tensor:
    """concat_elu, then dropout, with zeros above, on the left and, where right is 1, on the right of the result.

    The border is the one that the stream's convolution needs, which then neither copies its input nor computes cells
    that are cropped: [B, C, H, W] -> [B, 2C, H + 1, W + 1 + right]. Dropout is rounded to a multiple of 2^-16.
    """
    if torch.compiler.is_compiling():  # which fuses this better by itself
        return F.pad(F.dropout(concat_elu(x), dropout), (1, right, 1, 0))
    out: Tensor = _ConcatELU.apply(x, right, dropout)
    return out


# The kernels of the vertical stream, which sees the columns on both sides, and of the horizontal one.
KERNELS = ((2, 3), (2, 2))


class ShiftedConv2d(nn.Conv2d):
    """A weight-normalised convolution that looks up and to both sides (an odd width) or up and left (an even one).

    Where its input has no border of zeros, it pads on all sides by itself and the surplus at the bottom and right is
    cropped: a padded copy of the input would cost more. `init_scale` is the standard deviation that data-dependent
    initialisation gives the output.
    """

    bias: Tensor
    ready: tuple[Tensor, Tensor] | None = None  # weight and bias, in a block of `weights_at_once`

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
        _normalise_weight(self, axis=0)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2] // self.stride[0], x.shape[3] // self.stride[1]
        weight, bias = self.ready or (self.weight, self.bias)
        return F.conv2d(x, weight, bias, self.stride, self.padding)[:, :, :height, :width]


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
        weight, bias = self.ready or (self.weight, self.bias)
        weights = weight.split([x.shape[1] for x in padded], dim=1) if len(padded) > 1 else (weight,)
        biases = (bias, *[None] * (len(padded) - 1))
        outputs = [_Inside.apply(F.conv2d(x, w, b), width) for x, w, b in zip(padded, weights, biases, strict=True)]
        return outputs[0] if len(outputs) == 1 else outputs[0] + outputs[1]


class ShiftedConvTranspose2d(nn.ConvTranspose2d):
    """Up-sampling by two, weight-normalised: [B, C, H, W] -> [B, C', 2H, 2W], cell (2r + a, 2c + b) from row r."""

    bias: Tensor
    init_scale = 1.0
    ready: tuple[Tensor, Tensor] | None = None  # as that of ShiftedConv2d

    def __init__(self, in_channels: int, out_channels: int, kernel_size: tuple[int, int]) -> None:
        beyond = (0, kernel_size[1] - 2)
        super().__init__(in_channels, out_channels, kernel_size, stride=2, padding=beyond, output_padding=beyond)
        _normalise_weight(self, axis=1)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override] # of an output of any size
        weight, bias = self.ready or (self.weight, self.bias)
        return F.conv_transpose2d(x, weight, bias, self.stride, self.output_padding, self.output_padding)


Normalised = ShiftedConv2d | ShiftedConvTranspose2d


def _normalise_weight(layer: Normalised, axis: int) -> None:
    """w = g v / ||v|| per output channel (Salimans and Kingma 2016), v drawn from N(0, 0.05^2) as there."""
    nn.init.normal_(layer.weight, std=0.05)
    nn.init.zeros_(layer.bias)
    weight_norm(layer, dim=axis)


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


def folding(context_shape: tuple[int, ...], image_shape: tuple[int, int, int]) -> tuple[int, int]:
    """How many rows and columns of a map become one, so that it is no larger than the image; (1, 1) of a vector."""
    if len(context_shape) == 1:
        return 1, 1
    rows, columns = (-(-side // of_image) for side, of_image in zip(context_shape[1:], image_shape[1:], strict=True))
    return rows, columns


def folded(context: Tensor, fold: tuple[int, int]) -> Tensor:
    """h with every r x s values of a map as channels: [B, K, H', W'] -> [B, K r s, H' / r, W' / s], rounded up.

    Resized to a smaller image, values of a map would reach no pixel. Nothing is lost here: zeros are added below and on
    the right, and the 1x1 convolution that follows becomes one with a kernel and a stride of (r, s).
    """
    if fold == (1, 1):
        return context
    (height, width), (r, s) = context.shape[2:], fold
    padded = F.pad(context, (0, -width % s, 0, -height % r))
    cells = padded.unflatten(3, (-1, s)).unflatten(2, (-1, r))  # [B, K, H' / r, r, W' / s, s]
    return cells.permute(0, 1, 3, 5, 2, 4).flatten(1, 3)


def both_streams(pair: nn.Module) -> tuple[Any, Any]:
    """The module of the vertical and that of the horizontal stream, from a list of the two."""
    vertical, horizontal = pair.children()
    return vertical, horizontal


class ContextBias(nn.Module):
    """A linear map from the representation h to biases, without weight normalisation as in the original.

    A vector h [B, K] gives one bias a channel, [B, C, 1, 1]. A map h [B, K, H', W'] gives a 1x1 convolution, then a
    bilinear resize to the feature map's size: the same numbers as the paper's other order, and cheaper. An empty h
    [B, 0] gives zeros: the unconditional model.

    Args:
        dropout: Rate on the biases (the paper's appendix A: 0.2 for CIFAR FC3).
    """

    def __init__(self, context_shape: tuple[int, ...], out_channels: int, dropout: float) -> None:
        super().__init__()
        num_inputs = context_shape[0]
        # differs: std 0.05 in the original, for one-hot classes; scaled here by the number of standardised inputs, so
        # that all contexts together start at the 0.1 of the convolution that they are added to.
        self.weight = nn.Parameter(torch.randn(out_channels, num_inputs) * 0.1 / max(num_inputs, 1) ** 0.5)
        self.dropout = dropout

    def forward(self, context: Tensor, size: tuple[int, int]) -> Tensor:
        """The biases [B, C, H or 1, W or 1] of a feature map's size."""
        (products,) = context_products([self], context)
        return self.resized(products, size)

    def resized(self, products: Tensor, size: tuple[int, int]) -> Tensor:
        """The same from this layer's `context_products`."""
        if products.shape[2:] not in ((1, 1), size):
            products = F.interpolate(products, size=size, mode="bilinear", align_corners=False)
        return F.dropout(products, self.dropout, self.training)


def context_products(layers: Sequence[ContextBias], context: Tensor) -> tuple[Tensor, ...]:
    """h times each layer's weights, [B, C, 1, 1] or [B, C, H', W'] at h's own size: one product for all layers."""
    weight = torch.cat([layer.weight for layer in layers])
    products = (
        F.linear(context, weight)[:, :, None, None]
        if context.ndim == 2
        else F.conv2d(context, weight[:, :, None, None])
    )
    return products.split([len(layer.weight) for layer in layers], dim=1)


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
