"""How the representation h enters PixelCNN++ (Nash et al. 2019, appendix A)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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
