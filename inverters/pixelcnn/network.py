"""The network of PixelCNN++ (Salimans et al. 2017), conditional as in Nash et al. (2019), appendix A."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jsonargparse.typing import NonNegativeInt, PositiveInt
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from inverters.generators import ImageShape
from inverters.likelihoods import Categorical, Likelihood
from inverters.pixelcnn.concat_elu import padded_concat_elu
from inverters.pixelcnn.context import ContextBias, context_products, folded, folding
from inverters.pixelcnn.decoder import ContextDecoder
from inverters.pixelcnn.layers import (
    KERNELS,
    GatedResidualLayer,
    Normalised,
    ShiftedConv2d,
    ShiftedConvTranspose2d,
    both_streams,
    weights_at_once,
)
from inverters.pixelcnn.levels import LevelFeatures
from inverters.pixelcnn.palette import Palette
from runtime.files import free_memory, size_for_people

Streams = tuple[Tensor, Tensor]  # vertical, horizontal
DOWN, RIGHT = (0, 0, 1, -1), (1, -1)  # the padding that shifts by a row, by a column


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Dropout off for a while."""
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)


def activations(vertical: Tensor, horizontal: Tensor) -> Streams:
    """concat_elu of both streams, each with the border that its convolutions need."""
    return padded_concat_elu(vertical, right=1), padded_concat_elu(horizontal, right=0)


def resampled(pair: nn.Module, streams: Streams) -> tuple[Streams, Streams]:
    """Both streams at the next resolution, and their activations."""
    vertical, horizontal = (conv(stream) for conv, stream in zip(pair.children(), streams, strict=True))
    return (vertical, horizontal), activations(vertical, horizontal)


def transformed(
    pair: nn.Module, streams: Streams, acts: Streams, skips: tuple[Tensor, ...], products: Iterator[Tensor]
) -> tuple[Streams, Streams]:
    """Both streams after a pair of layers, and their activations, from those before and the encoder's, if any.

    `products` are the `context_products` of this and all later layers.
    """
    for_vertical, for_horizontal = both_streams(pair)
    vertical = for_vertical(streams[0], acts[0], skips[:1], next(products))
    vertical_act = padded_concat_elu(vertical, right=1)
    horizontal = for_horizontal(streams[1], acts[1], (vertical_act, *skips[1:]), next(products))
    return (vertical, horizontal), (vertical_act, padded_concat_elu(horizontal, right=0))


class Block(nn.ModuleList):
    """Pairs of gated residual layers at one resolution, vertical and horizontal.

    The horizontal stream takes the vertical one as its skip connection; in the decoder both take the encoder's too.
    """

    def __init__(self, num_layers: int, num_filters: int, *shared: Any, decoder: bool) -> None:
        num_skips = (num_filters, 2 * num_filters) if decoder else (0, num_filters)
        super().__init__(
            nn.ModuleList(
                GatedResidualLayer(kernel_size, num_filters, num_skip, *shared)
                for kernel_size, num_skip in zip(KERNELS, num_skips, strict=True)
            )
            for _ in range(num_layers)
        )


class PixelCNNNetwork(nn.Module):
    """From an image and h to the parameters of a likelihood.

    Six blocks at three resolutions, in two streams: the vertical one sees all rows above, the horizontal one also the
    pixels to the left on the same row.

    Args:
        image_shape: (C, H, W); H and W multiples of 4.
        context_shape: The shape of h without its batch axis: (K,) a vector, (K, H', W') a map, (0,) unconditional.
            A map that is larger than the image is folded into channels first, and loses nothing.
        likelihood: Of one pixel.
        num_filters: Channels of every feature map (the paper: 64 for MNIST, 196 for SVHN and CIFAR).
        num_layers: n, residual layers a block; the blocks have n, n, n, n, n + 1, n + 1 in each stream.
        dropout: Inside every residual layer.
        context_dropout: On the context's biases.
        decoder_filters: Of a decoder that works out from h what lies where; 0 for none, as in the paper.
        level_features: Learned numbers of each of a pixel's 256 levels, which the network sees beside its value; 0 for
            none, as in the paper. Worth far more than they cost where images repeat their levels exactly.
        palette: Whether a softmax is told which levels an image has had so far; not in the paper. Worth as much there.
        companions: So many images come along with each one of a training batch, from which only the decoder of h
            learns, by a guess of each value's mean: it costs little beside learning all from an image. None without a
            decoder of a vector: given a map the bound gets looser (digits, by 7 to 14 nats). Not in the paper.
        decoder_layers: Of features that the decoder makes of a vector, one upon the other. Two are better where what
            lies where must be computed of few numbers, and a little worse given fc3 of digits.

    Raises:
        ValueError: A side is not a multiple of 4, h neither a vector nor a map, a dropout not in [0, 1), the
            likelihood cannot model C channels, `decoder_layers` have no vector to begin with, or h is too large for the
            memory.
    """

    def __init__(
        self,
        image_shape: ImageShape,
        context_shape: tuple[int, ...],
        likelihood: Likelihood = Categorical(),  # noqa: B008 - immutable
        num_filters: PositiveInt = 64,
        num_layers: PositiveInt = 3,
        dropout: float = 0.5,
        context_dropout: float = 0.0,
        decoder_filters: NonNegativeInt = 0,
        level_features: NonNegativeInt = 0,
        palette: bool = False,
        companions: NonNegativeInt = 0,
        decoder_layers: PositiveInt = 1,
    ) -> None:
        super().__init__()
        channels, height, width = image_shape
        if height % 4 or width % 4:
            raise ValueError(
                f"PixelCNN halves the image twice, so its sides must be multiples of 4, not {height}x{width}; "
                f"resize or crop the images"
            )
        if len(context_shape) not in (1, 3):
            size = "x".join(map(str, context_shape)) or "a scalar"
            raise ValueError(f"PixelCNN takes a vector or a map KxHxW as h, which is {size} here; invert another layer")
        for name, rate in (("dropout", dropout), ("context_dropout", context_dropout)):
            if not 0 <= rate < 1:
                raise ValueError(f"{name} {rate} is not in [0, 1); give 0 for none")
        self.image_shape = image_shape
        self.fold = folding(context_shape, image_shape)
        context_shape = tuple(folded(torch.empty(0, *context_shape), self.fold).shape[1:])
        self.likelihood = likelihood
        decodes = decoder_filters > 0 and context_shape[0] > 0
        of_vector = decodes and len(context_shape) == 1
        if decoder_layers > 1 and not of_vector:
            raise ValueError(
                f"decoder_layers {decoder_layers} are of a decoder of a vector h, which this density has not; "
                f"give 1, or of a vector decoder_filters"
            )
        self.companions = int(companions) if of_vector else 0
        # Weights of h in every residual layer, their gradients, Adam's moments and the average, before they are made.
        num_weights = (12 * num_layers + 4) * 2 * num_filters * (decoder_filters if decodes else context_shape[0])
        # And of the first layers of a decoder.
        if of_vector:
            of_features = context_shape[0] + 8 * decoder_filters * (decoder_layers - 1)
            num_weights += 8 * decoder_filters * (of_features + decoder_filters * height * width // 16)
        elif decodes:
            num_weights += decoder_filters * context_shape[0] * 9
        num_bytes, free = 20 * num_weights, free_memory()
        if num_bytes > free:
            smaller = "num_filters or decoder_filters" if decoder_filters else "num_filters"
            raise ValueError(
                f"h enters as {context_shape[0]} channels, which takes {size_for_people(num_bytes)} of memory to train "
                f"on, and {size_for_people(free)} are free; invert a layer that gives fewer numbers, a map in place of "
                f"a vector, or give a smaller --model.density.{smaller}"
            )

        self.level_features = LevelFeatures(channels, level_features) if level_features else None
        num_inputs = channels * (1 + level_features) + 1  # a channel of ones tells an image from its padding
        self.first_vertical = ShiftedConv2d(num_inputs, num_filters, (2, 3))
        self.first_above = ShiftedConv2d(num_inputs, num_filters, (1, 3))
        self.first_left = ShiftedConv2d(num_inputs, num_filters, (2, 1))

        self.decoder_of_h = None
        if decodes:
            self.decoder_of_h = ContextDecoder(
                context_shape,
                (height, width),
                decoder_filters,
                2 * num_filters,
                decoder_layers,
                channels if self.companions else 0,
            )
            context_shape = (decoder_filters, *self.decoder_of_h.size)
        shared = (num_filters, context_shape, dropout, context_dropout)
        self.encoder = nn.ModuleList(Block(num_layers, *shared, decoder=False) for _ in range(3))
        self.decoder = nn.ModuleList(Block(num_layers + (i > 0), *shared, decoder=True) for i in range(3))
        self.down, self.up = (
            nn.ModuleList(nn.ModuleList(layer(num_filters, num_filters, k) for k in KERNELS) for _ in range(2))
            for layer in (partial(ShiftedConv2d, stride=2), ShiftedConvTranspose2d)
        )
        # In the order in which they run.
        self.contexts = [module for module in self.modules() if isinstance(module, ContextBias)]
        self.body = [module for module in self.modules() if isinstance(module, Normalised)]
        self.head = ShiftedConv2d(num_filters, likelihood.num_parameters(channels), (1, 1))
        self.palette = Palette(num_filters, likelihood) if palette else None

    def forward(self, image: Tensor, context: Tensor) -> Tensor:
        """The likelihood's parameters for every pixel, [B, P, H, W], from uint8 images [B, C, H, W] and h [B, ...].

        Those of a pixel are a function of the pixels before it in raster order, and of h.
        """
        features = self.features_of(self.seen(image), context)
        # Rounded to bfloat16, means move by up to a quarter of a level: 11 to 50 nats an image where scales are small.
        with torch.autocast(image.device.type, enabled=False):
            params = self.head(features)
            return params if self.palette is None else params + self.palette(features, image)

    def seen(self, image: Tensor) -> Tensor:
        """What it sees of uint8 images [B, C, H, W]: values in [-1, 1] and features of levels, [B, I, H, W]."""
        x = image.to(self.head.bias.dtype) / 127.5 - 1
        return x if self.level_features is None else torch.cat((x, self.level_features(image)), dim=1)

    def features_of(self, seen: Tensor, context: Tensor) -> Tensor:
        """What the likelihood's parameters are made of, [B, F, H, W], from what is `seen` of the pixels before."""
        # A compiler fuses each layer's by itself.
        with nullcontext() if torch.compiler.is_compiling() else weights_at_once(self.body):
            horizontal = self._last_horizontal(seen, folded(context, self.fold))
        with torch.autocast(seen.device.type, enabled=False):
            return F.elu(horizontal.to(self.head.bias.dtype))

    def _last_horizontal(self, x: Tensor, context: Tensor) -> Tensor:
        """The horizontal stream after the last block, [B, F, H, W]."""
        context, of_h = self.decoded(context)
        products = iter(context_products(self.contexts, context))
        x = F.pad(x, (0, 0, 0, 0, 0, 1), value=1.0)  # [B, I + 1, H, W]
        # The shifts come after the bias: the vertical stream's first row and the horizontal one's first cell are zero.
        vertical = F.pad(self.first_vertical(x), DOWN)  # [B, F, H, W], as all below at their resolution
        horizontal = F.pad(self.first_above(x), DOWN) + F.pad(self.first_left(x), RIGHT)
        streams = (vertical, horizontal) if of_h is None else (vertical + of_h[0], horizontal + of_h[1])
        acts = activations(*streams)

        skips = [acts]
        for i, block in enumerate(self.encoder):
            for pair in block.children():
                streams, acts = transformed(pair, streams, acts, (), products)
                skips.append(acts)
            if i < 2:
                streams, acts = resampled(self.down[i], streams)
                skips.append(acts)

        skips.pop()  # the decoder starts from it
        for i, block in enumerate(self.decoder):
            for pair in block.children():
                streams, acts = transformed(pair, streams, acts, skips.pop(), products)
            if i < 2:
                streams, acts = resampled(self.up[i], streams)
        return streams[1]

    def decoded(self, context: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        """What enters every layer in place of h, folded, and what each stream begins with of it, [B, F, H, W]."""
        if self.decoder_of_h is None:
            return context, None
        context, first = self.decoder_of_h(context)
        vertical, horizontal = first.chunk(2, dim=1)
        return context, (vertical, horizontal)

    def guess(self, context: Tensor) -> Tensor:
        """Of a density with companions: the logit of each value's mean as a share of 255, [B, C, H, W], from h."""
        assert self.decoder_of_h is not None
        return self.decoder_of_h.guess(context)

    def directions(self) -> list[tuple[nn.Parameter, float]]:
        """v of the convolutions between the first and the head; those see pixels, or are read as probabilities."""
        first = (self.first_vertical, self.first_above, self.first_left)
        inner: list[Any] = [layer for layer in self.body if layer not in first]
        return [(layer.parametrizations.weight.original1, layer.turn) for layer in inner]  # of weight_norm

    def noise(self, context: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """All the noise of one draw a generator, as the likelihood takes it: [B, U, H, W].

        The random numbers are the same whatever the dtype and the device, which are the context's.
        """
        channels, height, width = self.image_shape
        shape = (self.likelihood.num_uniforms(channels), height, width)
        uniforms = torch.stack([torch.rand(shape, generator=g) for g in generators])
        # rand can return 0, and float32 has no number between 1 - 2^-24 and 1.
        return self.likelihood.noise(uniforms.clamp(2.0**-25, 1 - 2.0**-24).to(context.dtype)).to(context.device)

    @torch.no_grad()
    def initialise(self, image: Tensor, context: Tensor) -> None:
        """Data-dependent initialisation (Salimans and Kingma 2016, eq. 4-6), in one pass.

        Afterwards every channel of every weight-normalised convolution has, on this batch, mean 0 and the standard
        deviation `init_scale` of its layer.

        differs: the original's pass has dropout on, and this one has it off, because the statistics are then those of
        the batch and not of a draw of the noise; under dropout, activations begin with a larger deviation.
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
