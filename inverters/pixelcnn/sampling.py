"""What every sampler of PixelCNN++ begins with."""

from collections.abc import Sequence

import torch
from torch import Tensor

from inverters.pixelcnn.network import PixelCNNNetwork


def pixel_noise(network: PixelCNNNetwork, generators: Sequence[torch.Generator], context: Tensor) -> Tensor:
    """All the noise of one draw a generator, as the likelihood takes it: [B, U, H, W].

    The random numbers are the same whatever the dtype and the device, which are the context's.
    """
    channels, height, width = network.image_shape
    shape = (network.likelihood.num_uniforms(channels), height, width)
    uniforms = torch.stack([torch.rand(shape, generator=g) for g in generators])
    # rand can return 0, and float32 has no number between 1 - 2^-24 and 1.
    return network.likelihood.noise(uniforms.clamp(2.0**-25, 1 - 2.0**-24).to(context.dtype)).to(context.device)


def blank_image(network: PixelCNNNetwork, context: Tensor) -> Tensor:
    """Zeros to be filled for each row of context, uint8 [B, C, H, W]."""
    return torch.zeros(len(context), *network.image_shape, dtype=torch.uint8, device=context.device)
