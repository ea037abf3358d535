"""Exact sampling from PixelCNN++ by fixed-point iteration: full passes until the image no longer changes."""

import logging
from collections.abc import Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from inverters.pixelcnn.network import PixelCNNNetwork, evaluating

log = logging.getLogger(__name__)


@torch.inference_mode()
def fixed_point_sample(
    network: PixelCNNNetwork, context: Tensor, generators: Sequence[torch.Generator]
) -> tuple[Tensor, Tensor]:
    """Draw one image for each row of context: the one that a full pass for each pixel draws with the same noise.

    With its noise given, a draw is a function of the pixels before each pixel, so the one image that this function
    maps to itself is the draw (Song et al. 2021, "Accelerating feedforward computation via parallel nonlinear equation
    solving", Jacobi iteration). A sweep makes at least one more pixel final; where the context decides much, many
    more. An image that is done leaves the batch.

    Returns:
        uint8 [B, C, H, W], and the number of sweeps that each took with the one that changed nothing, int64 [B]: the
        fewer, the less is left open by the context.

    Raises:
        ValueError: A pass does not give the same numbers twice, as some kernels of GPUs do not.
    """
    channels, height, width = network.image_shape
    image = context.new_zeros((len(context), *network.image_shape), dtype=torch.uint8)
    noise = network.noise(context, generators)
    sweeps = torch.zeros(len(generators), dtype=torch.long, device=context.device)
    active = torch.arange(len(generators), device=context.device)
    description = f"sampling {len(image)} images, pixels final in all"
    with evaluating(network), tqdm(total=height * width, desc=description, delay=5, leave=False) as bar:
        for _ in range(height * width + 1):  # each makes one more pixel final, at least; the last confirms
            before = image[active]
            # Not a call of the network: compiled, it would be compiled again for every size of the batch.
            params = network.forward(before, context[active])
            after = network.likelihood.sample(params, noise[active], channels)
            image[active] = after
            sweeps[active] += 1
            changed = (after != before).any(dim=1).flatten(1)  # [b, H * W]
            # Up to the first pixel that changed, and it, everything is final: what they depend on has not changed.
            final = (changed.cumsum(dim=1) == 0).sum(dim=1) + 1
            active = active[changed.any(dim=1)]
            if not len(active):
                break
            bar.update(int(final[changed.any(dim=1)].min()) - bar.n)
        else:
            raise ValueError(
                f"fixed-point iteration has not ended after {height * width + 1} sweeps, as it does where a pass gives "
                f"the same numbers twice; give --trainer.deterministic true, or take the density's sampler incremental"
            )
    fewest, median, most = sweeps.min(), sweeps.median(), sweeps.max()
    log.info("fixed-point iteration: %d images, %d to %d sweeps, median %d", len(image), fewest, most, median)
    return image, sweeps
