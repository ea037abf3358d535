"""Exact sampling from PixelCNN++ without full passes: every layer keeps the one row of its past that it needs.

At each image row the vertical stream runs once, over the whole row. The horizontal stream then runs pixel by pixel;
what it takes from the row above, the vertical stream and the context is computed for the whole row beforehand.
A lower resolution has a new row only at every second row, and a new cell only at every second column, of the one above.
Rows are [B, C, 1, W] in the vertical stream and [B, W, C] in the horizontal one; cells are [B, C].

What a cell takes and gives lies where it lay in the row before, so that a CUDA graph can repeat it.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from inverters.pixelcnn.concat_elu import concat_elu
from inverters.pixelcnn.context import folded
from inverters.pixelcnn.layers import GatedResidualLayer, ShiftedConv2d, ShiftedConvTranspose2d, both_streams
from inverters.pixelcnn.network import PixelCNNNetwork, evaluating
from inverters.pixelcnn.row_graphs import RowGraphs


class _VerticalConv:
    """A convolution of two rows, of which it remembers the upper one; stride 2 skips columns."""

    def __init__(self, conv: ShiftedConv2d, batch: int, width: int) -> None:
        self.weight, self.bias, self.stride = conv.weight, conv.bias, conv.stride[1]
        self.above = self.weight.new_zeros(batch, conv.in_channels, 1, width)

    def __call__(self, row: Tensor) -> Tensor:
        rows = torch.cat((self.above, row), dim=2)
        self.above = row
        return F.conv2d(rows, self.weight, self.bias, stride=(1, self.stride), padding=(0, 1))


class _VerticalLayer:
    """A gated residual layer of the vertical stream."""

    def __init__(self, layer: GatedResidualLayer, context: Tensor, size: tuple[int, int]) -> None:
        self.conv_in = _VerticalConv(layer.conv_in, len(context), size[1])
        self.conv_out = _VerticalConv(layer.conv_out, len(context), size[1])
        self.context = layer.context(context, size).expand(-1, -1, size[0], -1)  # [B, C, H, W or 1]
        self.skip = () if layer.skip is None else (layer.skip.weight, layer.skip.bias)

    def __call__(self, r: int, x: Tensor, activated: Tensor, skip: Tensor | None) -> Tensor:
        hidden = self.conv_in(activated)
        if skip is not None:
            hidden = hidden + F.conv2d(skip, *self.skip)
        return x + F.glu(self.conv_out(concat_elu(hidden)) + self.context[:, :, r : r + 1], dim=1)


class _HorizontalConv:
    """A 2x2 convolution of concat_elu's output, cell by cell.

    One accumulating product gives this cell's output and a share of the next's.
    """

    def __init__(self, conv: ShiftedConv2d, batch: int, width: int) -> None:
        weight, self.bias = conv.weight, conv.bias  # [O, I, 2, 2]
        self.above = torch.cat((weight[:, :, 0, 0], weight[:, :, 0, 1]), dim=1).T.contiguous()  # [2I, O]
        self.here = torch.cat((weight[:, :, 1, 1], weight[:, :, 1, 0]), dim=0).T.contiguous()  # [I, 2O]
        # A column of zeros on the left of the inputs; one on the right of the outputs, for the last cell's share.
        self.inputs = weight.new_zeros(batch, width + 1, conv.in_channels)
        self.outputs = weight.new_zeros(batch, width + 1, conv.out_channels)
        flat, size = self.outputs.flatten(1), conv.out_channels
        self.pairs = [flat[:, c * size : (c + 2) * size] for c in range(width)]
        self.cells = self.inputs.unbind(dim=1)[1:]
        self.halves = [cell.unflatten(1, (2, -1)) for cell in self.cells]
        self.signs = weight.new_tensor([[1.0], [-1.0]])

    def start_row(self, extra: Tensor) -> None:
        """The outputs so far: bias, the row above, whose inputs are still here, and `extra` [B, W or 1, O]."""
        rows = torch.cat((self.inputs[:, :-1], self.inputs[:, 1:]), dim=2)  # [B, W, 2I]
        self.outputs[:, :-1] = rows @ self.above + (extra + self.bias)

    def __call__(self, c: int, x: Tensor) -> Tensor:
        torch.mul(x[:, None], self.signs, out=self.halves[c])  # x and -x, as concat_elu has them
        self.pairs[c].addmm_(F.elu(self.cells[c], inplace=True), self.here)
        return self.outputs[:, c]


class _HorizontalLayer:
    """A gated residual layer of the horizontal stream."""

    def __init__(self, layer: GatedResidualLayer, context: Tensor, size: tuple[int, int]) -> None:
        self.conv_in = _HorizontalConv(layer.conv_in, len(context), size[1])
        self.conv_out = _HorizontalConv(layer.conv_out, len(context), size[1])
        self.context = layer.context(context, size).expand(-1, -1, size[0], -1)  # [B, C, H, W or 1]
        assert layer.skip is not None
        weight, self.skip_bias = layer.skip.weight[:, :, 0, 0].T, layer.skip.bias
        vertical = 2 * layer.conv_in.out_channels  # of the skip's inputs; the decoder's others are the encoder's cells
        self.from_vertical, self.from_encoder = weight[:vertical].contiguous(), weight[vertical:].contiguous()

    def start_row(self, r: int, vertical: Tensor) -> None:
        """Prepare row r from the vertical stream's activated row [B, 2F, 1, W]."""
        self.conv_in.start_row(vertical[:, :, 0].mT @ self.from_vertical + self.skip_bias)
        self.conv_out.start_row(self.context[:, :, r].mT)

    def __call__(self, c: int, x: Tensor, skip: Tensor | None) -> Tensor:
        hidden = self.conv_in(c, x)
        if skip is not None:
            hidden = torch.addmm(hidden, skip, self.from_encoder)
        return x + F.glu(self.conv_out(c, hidden), dim=1)


class _HorizontalDown:
    """The 2x2 convolution of stride 2, fed cell by cell."""

    def __init__(self, conv: ShiftedConv2d, batch: int, width: int) -> None:
        weight, self.bias = conv.weight, conv.bias
        self.taps = [[weight[:, :, a, b].T.contiguous() for b in range(2)] for a in range(2)]  # [I, O]
        self.inputs = weight.new_zeros(batch, width + 1, conv.in_channels)  # a column of zeros on the left
        self.outputs = weight.new_zeros(batch, width // 2, conv.out_channels)

    def start_row(self) -> None:
        left, right = self.inputs[:, :-1:2], self.inputs[:, 1::2]  # columns 2j - 1 and 2j of the row above
        self.outputs.copy_(left @ self.taps[0][0] + right @ self.taps[0][1] + self.bias)

    def __call__(self, j: int) -> Tensor:
        """Output cell j, once the inputs have columns 2j - 1 and 2j of this row."""
        partial = torch.addmm(self.outputs[:, j], self.inputs[:, 2 * j], self.taps[1][0])
        return torch.addmm(partial, self.inputs[:, 2 * j + 1], self.taps[1][1])


class _HorizontalUp:
    """The 2x2 transposed convolution of stride 2, fed cell by cell: two output cells at once, the next row later."""

    def __init__(self, conv: ShiftedConvTranspose2d, batch: int, width: int) -> None:
        weight, bias = conv.weight, conv.bias  # [I, O, 2, 2]
        self.rows = [torch.cat((weight[:, :, a, 0], weight[:, :, a, 1]), dim=1) for a in range(2)]  # [I, 2O]
        self.bias = torch.cat((bias, bias))
        self.inputs = weight.new_zeros(batch, width // 2, conv.in_channels)
        self.outputs = weight.new_zeros(batch, width, conv.out_channels)

    def start_odd_row(self) -> None:
        self.outputs.copy_((self.inputs @ self.rows[1] + self.bias).view(self.outputs.shape))

    def put(self, j: int, cell: Tensor) -> None:
        self.inputs[:, j] = cell
        self.outputs[:, 2 * j : 2 * j + 2] = torch.addmm(self.bias, cell, self.rows[0]).view(len(cell), 2, -1)


class _Level:
    """What one resolution keeps: both streams' layers, and the ways to the resolution below."""

    def __init__(self, network: PixelCNNNetwork, level: int, context: Tensor) -> None:
        size = (network.image_shape[1] >> level, network.image_shape[2] >> level)
        batch = len(context)

        def pairs(block: nn.Module) -> list[tuple[_VerticalLayer, _HorizontalLayer]]:
            streams = map(both_streams, block.children())
            return [(_VerticalLayer(v, context, size), _HorizontalLayer(h, context, size)) for v, h in streams]

        self.encoder, self.decoder = pairs(network.encoder[level]), pairs(network.decoder[2 - level])
        if level < 2:
            vertical_down, horizontal_down = both_streams(network.down[level])
            self.vertical_down = _VerticalConv(vertical_down, batch, size[1])
            self.horizontal_down = _HorizontalDown(horizontal_down, batch, size[1])
            self.vertical_up, horizontal_up = both_streams(network.up[1 - level])
            self.horizontal_up = _HorizontalUp(horizontal_up, batch, size[1])
            self.up_rows = torch.empty(0)


class IncrementalPixelCNN:
    """A PixelCNN++ with its weight normalisation folded, for one batch of contexts; dropout off, in inference mode.

    Call `row(r, image)` and then `cell(r, c)` for every cell of the row, filling `pixels` in between.

    Args:
        network: With its weights as they are now.
        context: h, [B, ...].

    Attributes:
        pixels: The row at work, uint8 [B, C, 1, W].
    """

    def __init__(self, network: PixelCNNNetwork, context: Tensor) -> None:
        self.first = [(c.weight, c.bias) for c in (network.first_vertical, network.first_above)]
        weight = network.first_left.weight  # [F, I + 1, 2, 1], of which the last channel is that of ones
        self.left_above = (weight[:, :, :1], network.first_left.bias + weight[:, -1, 1, 0])
        self.left = weight[:, :-1, 1, 0].T.contiguous()
        self.head = (network.head.weight[:, :, 0, 0], network.head.bias)
        batch, (channels, _, width) = len(context), network.image_shape
        self.seen, self.palette = network.seen, network.palette
        if self.palette is not None:
            self.before = context.new_zeros(batch, self.palette.num_levels, dtype=torch.long)  # pixels of each level
        self.pixels = context.new_zeros(batch, channels, 1, width, dtype=torch.uint8)
        self.first_cells = self.first[0][1].new_zeros(batch, width, network.first_left.out_channels)
        context, self.of_h = network.decoded(folded(context, network.fold))
        self.levels = [_Level(network, level, context) for level in range(3)]

    def row(self, r: int, image: Tensor) -> None:
        """Prepare row r from the rows above it in image, uint8 [B, C, H, W], and take what it has of row r itself."""
        self.pixels.copy_(image[:, :, r : r + 1])
        if self.palette is not None and r:
            self.before += self.palette.is_level(image[:, 0, r - 1, -1])  # whose other pixels `cell` has counted
        rows = F.pad(self.seen(image[:, :, max(r - 2, 0) : r]), (0, 0, 0, 0, 0, 1), value=1.0)
        two = F.pad(rows, (0, 0, 2 - min(r, 2), 0))  # [B, I + 1, 2, W], rows r - 2 and r - 1
        pair = two[:, :, 1:]
        vertical, above = (F.conv2d(x, *c, padding=(0, 1)) for x, c in zip((two, pair), self.first, strict=True))
        # The shifts come after the bias: row 0 of either stream, and the left tap at column 0, are zero.
        if r == 0:
            vertical, above = torch.zeros_like(vertical), torch.zeros_like(above)
        if self.of_h is not None:
            vertical, above = (x + of_h[:, :, r : r + 1] for x, of_h in zip((vertical, above), self.of_h, strict=True))
        left = F.conv2d(pair, *self.left_above)  # of column c, for column c + 1
        self.first_cells.copy_((above + F.pad(left[:, :, :, :-1], (1, 0)))[:, :, 0].mT)  # [B, W, F]
        self._vertical(0, r, vertical)

    def _vertical(self, number: int, r: int, x: Tensor) -> Tensor:
        """One row of the vertical stream at a resolution and those below, and the horizontal stream's preparations."""
        level = self.levels[number]
        activated = concat_elu(x)
        skips = [activated]
        for vertical, horizontal in level.encoder:
            x = vertical(r, x, activated, None)
            activated = concat_elu(x)
            horizontal.start_row(r, activated)
            skips.append(activated)
        if number == 2:
            skips.pop()
        else:
            if r % 2 == 0:
                level.horizontal_down.start_row()
                below = self._vertical(number + 1, r // 2, level.vertical_down(x))
                level.up_rows = level.vertical_up(below)
            else:
                level.vertical_down.above = x
                level.horizontal_up.start_odd_row()
            x = level.up_rows[:, :, r % 2 : r % 2 + 1]
            activated = concat_elu(x)
        for vertical, horizontal in level.decoder:
            x = vertical(r, x, activated, skips.pop())
            activated = concat_elu(x)
            horizontal.start_row(r, activated)
        return x

    def cell(self, r: int, c: int) -> Tensor:
        """The likelihood's parameters at (r, c), [B, P], from the pixels before it."""
        x = self.first_cells[:, c]
        if c > 0:
            last = self.pixels[..., c - 1 : c]
            x = torch.addmm(x, self.seen(last)[:, :, 0, 0], self.left)
            if self.palette is not None:
                self.before += self.palette.is_level(last[:, 0, 0, 0])
        features = F.elu(self._horizontal(0, r, c, x))
        params = F.linear(features, *self.head)
        return params if self.palette is None else params + self.palette.addition(features, self.before)

    def _horizontal(self, number: int, r: int, c: int, x: Tensor) -> Tensor:
        """One cell of the horizontal stream at a resolution and those below."""
        level = self.levels[number]
        skips = [layer.conv_in.cells[c] for _, layer in level.encoder]  # which they fill
        for _, layer in level.encoder:
            x = layer(c, x, None)
        if number < 2:
            skips.append(concat_elu(x))
            level.horizontal_down.inputs[:, c + 1] = x
            if r % 2 == 0 and c % 2 == 0:
                below = self._horizontal(number + 1, r // 2, c // 2, level.horizontal_down(c // 2))
                level.horizontal_up.put(c // 2, below)
            x = level.horizontal_up.outputs[:, c]
        for _, layer in level.decoder:
            x = layer(c, x, skips.pop())
        return x


def incremental_sample(network: PixelCNNNetwork, context: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """Draw one image for each row of context, as a full pass for each pixel would: uint8 [B, C, H, W]."""
    channels = network.image_shape[0]
    with torch.inference_mode():
        noise = network.noise(context, generators)
        row_noise = torch.empty_like(noise[:, :, :1])

    def draw(params: Tensor, r: int, c: int) -> Tensor:
        return network.likelihood.sample(params[:, :, None, None], row_noise[..., c : c + 1], channels)

    def start_row(r: int) -> None:
        row_noise.copy_(noise[:, :, r : r + 1])

    return in_raster_order(network, context, draw, start_row, f"sampling {len(context)} images, rows")


@torch.inference_mode()
def in_raster_order(
    network: PixelCNNNetwork,
    context: Tensor,
    choose: Callable[[Tensor, int, int], Tensor],
    start_row: Callable[[int], None],
    description: str,
) -> Tensor:
    """One image for each row of context, pixel by pixel: uint8 [B, C, H, W].

    Args:
        choose: The pixels at (r, c), uint8 [B, C, 1, 1], from the likelihood's parameters there, [B, P]. On a GPU it is
            captured, for one row of several.
        start_row: Is called before each row.
        description: Of the bar.
    """
    _, height, width = network.image_shape
    image = context.new_zeros((len(context), *network.image_shape), dtype=torch.uint8)
    with evaluating(network):
        rows = IncrementalPixelCNN(network, context)

    def fill(r: int) -> None:
        for c in range(width):
            rows.pixels[..., c : c + 1] = choose(rows.cell(r, c), r, c)

    cells = RowGraphs(fill, context.device)
    for r in tqdm(range(height), desc=description, delay=5, leave=False):
        rows.row(r, image)
        start_row(r)
        cells(r)
        image[:, :, r : r + 1] = rows.pixels
    return image
