"""Networks whose layers keep exactly known information, nn.Sequentials of named stages without training.

Each is made from the image's shape (C, H, W) and the number of classes, as all networks are,
and has no use for the latter.
"""

import math
from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jsonargparse.typing import NonNegativeInt, PositiveInt
from scipy.linalg import hadamard
from torch import Tensor, nn

# The data has the same ones; it shares no code with the networks.
GLYPHS = ("1111100110011111", "1000100010001111", "1111010001000100", "1001011001101001")  # a box, an L, a T, an X


class _TopBits(nn.Module):
    def __init__(self, bits: int) -> None:
        super().__init__()
        self.step = 2 ** (8 - bits)

    def forward(self, x: Tensor) -> Tensor:
        return torch.floor((x * 255).round() / self.step) * self.step / 255


class TopBits(nn.Sequential):
    """Its stage `bits` keeps the top b bits of every pixel, [C, H, W]: b = 8 is the identity, b = 0 a constant."""

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int, bits: NonNegativeInt = 1) -> None:
        super().__init__(OrderedDict(bits=_TopBits(bits)))


class _OneHotLevels(nn.Module):
    def __init__(self, num_levels: int) -> None:
        super().__init__()
        self.num_levels = num_levels

    def forward(self, x: Tensor) -> Tensor:
        level = ((x * 255).round() * self.num_levels / 256).long()  # [B, 1, H, W]
        return F.one_hot(level[:, 0], self.num_levels).movedim(-1, 1).to(x.dtype)


class _Permuted(nn.Module):
    order: Tensor

    def __init__(self, num_values: int, seed: int) -> None:
        super().__init__()
        order = torch.randperm(num_values, generator=torch.Generator().manual_seed(seed))
        self.register_buffer("order", order)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, self.order]


class PermutedLevels(nn.Sequential):
    """Tells the pixels of L levels of an image of one channel.

    Stages: `map`, their levels one-hot, [L, H, W], and `vector`, the same numbers in a random order, [L H W].

    Args:
        num_levels: L.
        seed: Of the order.
    """

    def __init__(
        self, image_shape: tuple[int, int, int], num_classes: int, num_levels: PositiveInt = 4, seed: int = 0
    ) -> None:
        order = _Permuted(num_levels * math.prod(image_shape[1:]), seed)
        super().__init__(OrderedDict(map=_OneHotLevels(num_levels), vector=order))


class _EverySecondPixel(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        sign = torch.where(x > 0, 1.0, -1.0).flatten(1)  # [B, H W]
        even = torch.arange(sign.shape[1], device=x.device) % 2 == 0
        kept = torch.where(even, sign, 0.0)  # a product would leave the lost pixel in the sign of a zero
        before, after = F.pad(kept[:, :-1], (1, 0)), F.pad(kept[:, 1:], (0, 1))
        return torch.stack((kept, before, after), dim=1).unflatten(2, x.shape[2:])


class EverySecondPixel(nn.Sequential):
    """Its stage `pixels` keeps every second pixel of a binary image in raster order, the first included: [3, H, W].

    Where a pixel is kept, the first channel is 1 or -1. Where one is lost, the second and the third are what was kept
    just before and just after it in raster order. Everything else is 0.
    """

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__(OrderedDict(pixels=_EverySecondPixel()))


class _MatchedFilter(nn.Module):
    """The best match of K binary glyphs, where |x - glyph|^2 is smallest: one-hot [B, K, H, W]."""

    glyphs: Tensor

    def __init__(self, glyphs: Sequence[str]) -> None:
        super().__init__()
        side = math.isqrt(len(glyphs[0]))
        pixels = [[float(pixel) for pixel in glyph] for glyph in glyphs]
        self.register_buffer("glyphs", torch.tensor(pixels).view(-1, 1, side, side))

    def forward(self, x: Tensor) -> Tensor:
        ink = (x > 0).to(x.dtype)
        # x . g - |g|^2 / 2 are multiples of 1/2, so sums are exact; |x|^2 inside of the window would favour empty ones
        match = F.conv2d(ink, self.glyphs, bias=-self.glyphs.sum(dim=(1, 2, 3)) / 2)  # [B, K, H - S + 1, W - S + 1]
        best = match.flatten(1).argmax(dim=1)
        one_hot = F.one_hot(best, match[0].numel()).view_as(match).to(x.dtype)
        border = self.glyphs.shape[-1] - 1
        return F.pad(one_hot, (0, border, 0, border))


class _Glyph(nn.Module):
    def forward(self, both: Tensor) -> Tensor:
        return both.amax(dim=(2, 3))


class _Position(nn.Module):
    def forward(self, both: Tensor) -> Tensor:
        return both.amax(dim=1, keepdim=True)


class _Coordinates(nn.Module):
    def forward(self, both: Tensor) -> Tensor:
        rows, columns = both.amax(dim=(1, 3)), both.amax(dim=(1, 2))  # [B, H], [B, W], one-hot
        return torch.stack([at @ (torch.arange(at.shape[1]).to(at) / at.shape[1]) for at in (rows, columns)], dim=1)


class CoordinatesNet(nn.Sequential):
    """As PositionNet, but the second stage is `coordinates`: the row and the column, in heights and widths, [2]."""

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int, glyphs: Sequence[str] = GLYPHS) -> None:
        super().__init__(OrderedDict(both=_MatchedFilter(glyphs), coordinates=_Coordinates()))


class GlyphNet(nn.Sequential):
    """Finds one of K glyphs in an image of one channel.

    Stages: `both`, one-hot over glyphs and upper left corners, [K, H, W], and `glyph`, one-hot, [K].

    Args:
        glyphs: K square pictures, each its rows one after the other, of 0 and 1.
    """

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int, glyphs: Sequence[str] = GLYPHS) -> None:
        super().__init__(OrderedDict(both=_MatchedFilter(glyphs), glyph=_Glyph()))


class PositionNet(nn.Sequential):
    """Finds the place of a glyph, as GlyphNet its name; the second stage is `position`, one-hot, [1, H, W]."""

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int, glyphs: Sequence[str] = GLYPHS) -> None:
        super().__init__(OrderedDict(both=_MatchedFilter(glyphs), position=_Position()))


class _Bits(nn.Module):
    def __init__(self, num_bits: int) -> None:
        super().__init__()
        self.num_bits = num_bits

    def forward(self, x: Tensor) -> Tensor:
        return 2 * (x[:, 0, 0, : self.num_bits] > 0).to(x.dtype) - 1


class _Mixed(nn.Module):
    signs: Tensor

    def __init__(self, num_bits: int) -> None:
        super().__init__()
        self.register_buffer("signs", torch.from_numpy(hadamard(num_bits)).float())

    def forward(self, bits: Tensor) -> Tensor:
        return bits @ self.signs / len(self.signs)


class MixedBits(nn.Sequential):
    """Reads the bits that an image shows at the beginning of its first row.

    Stages: `bits`, each -1 or 1, [K], and `mixed`, sums of all with the signs of Hadamard's matrix, over K, [K]: exact
    in floats, and the bits can be had from them.

    Args:
        num_bits: K, a power of 2.
    """

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int, num_bits: PositiveInt = 16) -> None:
        super().__init__(OrderedDict(bits=_Bits(num_bits), mixed=_Mixed(num_bits)))


class _ReluConv(nn.Module):
    """max(0, w * ink + c) with buffers for weights: there is nothing to train, and no classifier to load."""

    weight: Tensor
    bias: Tensor

    def __init__(self, in_channels: int, num_units: int, generator: torch.Generator) -> None:
        super().__init__()
        std = math.sqrt(2 / (4 * in_channels))
        for name, shape in (("weight", (num_units, in_channels, 2, 2)), ("bias", (num_units,))):
            self.register_buffer(name, (64 * std * torch.randn(shape, generator=generator)).round() / 64)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d((x > 0).to(x.dtype), self.weight, self.bias, stride=2).relu()


class _Quantised(nn.Module):
    def __init__(self, bits: int, top: float) -> None:
        super().__init__()
        self.num_levels, self.top = 2**bits, top

    def forward(self, h: Tensor) -> Tensor:
        level = torch.floor(h * (self.num_levels / self.top)).clamp(max=self.num_levels - 1)
        return level * (self.top / self.num_levels)


class ReluNet(nn.Sequential):
    """A random ReLU convolution of a binary image's 2x2 patches.

    Stages: `relu`, [K, H/2, W/2], and `quantised`, the same in 2^b levels. The weights are normal, of variance
    2 / inputs (He et al. 2015), rounded to multiples of 1/64. All sums are then exact in float32, in any order: images
    have the same h or not whatever the batch and the machine.

    Args:
        num_units: K.
        bits: b.
        top: Where the highest level ends, and the values above are cut off; a power of 2.
        seed: Of the weights.
    """

    # A config that changes only the class keeps the values of ConvNet's arguments: none here has the name of one.
    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_classes: int,
        num_units: PositiveInt = 8,
        bits: PositiveInt = 2,
        top: float = 2.0,
        seed: int = 1,
    ) -> None:
        relu = _ReluConv(image_shape[0], num_units, torch.Generator().manual_seed(seed))
        super().__init__(OrderedDict(relu=relu, quantised=_Quantised(bits, top)))
