"""The activation of PixelCNN++, ELU of x and of -x, with the dropout and the border of zeros that follow it."""

import math
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def concat_elu(x: Tensor) -> Tensor:
    """ELU of x and of -x, [B, C, ...] -> [B, 2C, ...]."""
    return F.elu(torch.cat((x, -x), dim=1), inplace=True)


def padded_concat_elu(x: Tensor, right: int, dropout: float = 0.0) -> Tensor:
    """concat_elu, then dropout, with zeros above, on the left and, where right is 1, on the right of the result.

    The border is the one that the stream's convolution needs, which then neither copies its input nor computes cells
    that are cropped: [B, C, H, W] -> [B, 2C, H + 1, W + 1 + right]. On a CPU dropout is rounded to a multiple of 2^-16.
    """
    if torch.compiler.is_compiling():  # which fuses this better by itself
        return F.pad(F.dropout(concat_elu(x), dropout), (1, right, 1, 0))
    out: Tensor = _ConcatELU.apply(x, right, dropout)
    return out


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
