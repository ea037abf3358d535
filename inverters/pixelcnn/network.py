"""The network of PixelCNN++ (Salimans et al. 2017), conditional as in Nash et al. (2019), appendix A."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from inverters.generators import ImageShape
from inverters.likelihoods import Likelihood
from inverters.pixelcnn.layers import (
    GatedResidualLayer,
    both_streams,
    down_right_shifted_conv,
    down_right_shifted_deconv,
    down_shift,
    down_shifted_conv,
    down_shifted_deconv,
    network_in_network,
    padded_concat_elu,
    right_shift,
)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Dropout off for a while."""
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)


def activations(vertical: Tensor, horizontal: Tensor) -> tuple[Tensor, Tensor]:
    """concat_elu of both streams, each with the border that its convolutions need."""
    return padded_concat_elu(vertical, right=1), padded_concat_elu(horizontal, right=0)


class Block(nn.ModuleList):
    """Pairs of gated residual layers at one resolution, vertical and horizontal.

    The horizontal stream takes the vertical one as its skip connection; in the decoder both take the encoder's too.
    """

    def __init__(
        self,
        num_layers: int,
        num_filters: int,
        context_shape: tuple[int, ...],
        dropout: float,
        context_dropout: float,
        *,
        decoder: bool,
    ) -> None:
        skips = (num_filters, 2 * num_filters) if decoder else (0, num_filters)
        shared = (context_shape, dropout, context_dropout)
        super().__init__(
            nn.ModuleList(
                (
                    GatedResidualLayer(down_shifted_conv, num_filters, skips[0], *shared),
                    GatedResidualLayer(down_right_shifted_conv, num_filters, skips[1], *shared),
                )
            )
            for _ in range(num_layers)
        )


class PixelCNNNetwork(nn.Module):
    """From an image and h to the parameters of a likelihood.

    Six blocks at three resolutions, in two streams: the vertical one sees all rows above, the horizontal one also the
    pixels to the left on the same row. Its arguments are explained by PixelCNN.
    """

    def __init__(
        self,
        image_shape: ImageShape,
        context_shape: tuple[int, ...],
        likelihood: Likelihood,
        num_filters: int,
        num_layers: int,
        dropout: float,
        context_dropout: float,
    ) -> None:
        super().__init__()
        channels, height, width = image_shape
        if height % 4 or width % 4:
            raise ValueError(
                f"PixelCNN halves the image twice, so its sides must be multiples of 4, not {height}x{width}; "
                f"resize or crop the images"
            )
        for rate in (dropout, context_dropout):
            if not 0 <= rate < 1:
                raise ValueError(f"dropout {rate} is not in [0, 1)")
        self.image_shape = image_shape
        self.likelihood = likelihood

        # A channel of ones beside the image tells it from its padding.
        self.first_vertical = down_shifted_conv(channels + 1, num_filters, (2, 3))
        self.first_above = down_shifted_conv(channels + 1, num_filters, (1, 3))
        self.first_left = down_right_shifted_conv(channels + 1, num_filters, (2, 1))

        shared = (num_filters, context_shape, dropout, context_dropout)
        self.encoder = nn.ModuleList(Block(num_layers, *shared, decoder=False) for _ in range(3))
        self.decoder = nn.ModuleList(Block(num_layers + (i > 0), *shared, decoder=True) for i in range(3))
        self.down = nn.ModuleList(
            nn.ModuleList((down_shifted_conv(num_filters, num_filters, stride=2),
                           down_right_shifted_conv(num_filters, num_filters, stride=2)))
            for _ in range(2)
        )  # fmt: skip
        self.up = nn.ModuleList(
            nn.ModuleList((down_shifted_deconv(num_filters, num_filters),
                           down_right_shifted_deconv(num_filters, num_filters)))
            for _ in range(2)
        )  # fmt: skip
        self.head = network_in_network(num_filters, likelihood.num_parameters(channels))

    def forward(self, image: Tensor, context: Tensor) -> Tensor:
        """The likelihood's parameters for every pixel, [B, P, H, W], from uint8 images [B, C, H, W] and h [B, ...].

        Those of a pixel are a function of the pixels before it in raster order, and of h.
        """
        return self.parameters_of(image.to(self.head.weight.dtype) / 127.5 - 1, context)

    def parameters_of(self, x: Tensor, context: Tensor) -> Tensor:
        """The same from images x in [-1, 1]."""
        x = F.pad(x, (0, 0, 0, 0, 0, 1), value=1.0)  # [B, C + 1, H, W]
        # The shifts come after the bias: the vertical stream's first row and the horizontal one's first cell are zero.
        vertical = down_shift(self.first_vertical(x))  # [B, F, H, W], as all below at their resolution
        horizontal = down_shift(self.first_above(x)) + right_shift(self.first_left(x))
        vertical_act, horizontal_act = activations(vertical, horizontal)

        skips = [(vertical_act, horizontal_act)]
        for i, block in enumerate(self.encoder):
            for vertical_layer, horizontal_layer in map(both_streams, block.children()):
                vertical = vertical_layer(vertical, vertical_act, (), context)
                vertical_act = padded_concat_elu(vertical, right=1)
                horizontal = horizontal_layer(horizontal, horizontal_act, (vertical_act,), context)
                horizontal_act = padded_concat_elu(horizontal, right=0)
                skips.append((vertical_act, horizontal_act))
            if i < 2:
                for_vertical, for_horizontal = both_streams(self.down[i])
                vertical, horizontal = for_vertical(vertical), for_horizontal(horizontal)
                vertical_act, horizontal_act = activations(vertical, horizontal)
                skips.append((vertical_act, horizontal_act))

        skips.pop()  # the decoder starts from it
        for i, block in enumerate(self.decoder):
            for vertical_layer, horizontal_layer in map(both_streams, block.children()):
                vertical_skip, horizontal_skip = skips.pop()
                vertical = vertical_layer(vertical, vertical_act, (vertical_skip,), context)
                vertical_act = padded_concat_elu(vertical, right=1)
                horizontal = horizontal_layer(horizontal, horizontal_act, (vertical_act, horizontal_skip), context)
                horizontal_act = padded_concat_elu(horizontal, right=0)
            if i < 2:
                for_vertical, for_horizontal = both_streams(self.up[i])
                vertical, horizontal = for_vertical(vertical), for_horizontal(horizontal)
                vertical_act, horizontal_act = activations(vertical, horizontal)
        return self.head(F.elu(horizontal))

    @torch.no_grad()
    def initialise(self, image: Tensor, context: Tensor) -> None:
        """Data-dependent initialisation (Salimans and Kingma 2016, eq. 4-6), in one pass.

        Afterwards every channel of every weight-normalised convolution has, on this batch, mean 0 and the standard
        deviation `init_scale` of its layer.
        """

        def normalise(layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            mean = output.mean(dim=(0, 2, 3))
            # A channel that is constant on this batch keeps its scale.
            std = output.std(dim=(0, 2, 3), correction=0)
            factor = torch.where(std > 1e-6, layer.init_scale / std, 1.0)
            layer.bias.copy_((layer.bias - mean) * factor)
            gain = layer.parametrizations.weight.original0  # of weight_norm
            gain.mul_(factor.view(gain.shape))
            return (output - mean[:, None, None]) * factor[:, None, None]

        hooks = [layer.register_forward_hook(normalise) for layer in self.modules() if is_parametrized(layer)]
        try:
            with evaluating(self):  # the statistics are those of the batch
                self.forward(image, context)  # not by calling the module: compiled, it would not run the hooks
        finally:
            for hook in hooks:
                hook.remove()
