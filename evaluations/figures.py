"""The figures, each a function from images or result rows to a matplotlib figure."""

import matplotlib

matplotlib.use("Agg")  # a training run has no screen

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor


def sample_grid(inputs: Tensor, draws: Tensor, layer: str | None) -> Figure:
    """Inputs in the first column, draws from p(x | h) of each in the others (Nash et al. 2019, fig 1).

    Args:
        inputs: uint8 [N, C, H, W].
        draws: uint8 [N, M, C, H, W].
        layer: That is inverted; None for the unconditional model, whose draws have nothing to do with the inputs.
    """
    num_images, num_draws = draws.shape[:2]
    figure, axes = plt.subplots(
        num_images, num_draws + 1, figsize=(num_draws + 1.2, num_images + 0.4), squeeze=False, layout="constrained"
    )
    for row in range(num_images):
        for column, image in enumerate((inputs[row], *draws[row])):
            axis = axes[row, column]
            axis.imshow(image.permute(1, 2, 0).cpu().numpy(), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axis.set_axis_off()
    axes[0, 0].set_title("input")
    axes[0, 1].set_title("draws from p(x)" if layer is None else f"draws from p(x | {layer})", loc="left")
    return figure
