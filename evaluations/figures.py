"""The figures, each a function from images or result rows to a matplotlib figure."""

from collections.abc import Sequence

import matplotlib

matplotlib.use("Agg")  # a training run has no screen

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor


def _grid(inputs: Tensor, others: Tensor, title: str) -> Figure:
    """Inputs in the first column, others [N, M, C, H, W] under a title."""
    num_images, num_others = others.shape[:2]
    size = (max(num_others + 1.2, 2.8), num_images + 0.4)  # room for the title
    figure, axes = plt.subplots(num_images, num_others + 1, figsize=size, squeeze=False, layout="constrained")
    for row in range(num_images):
        for column, image in enumerate((inputs[row], *others[row])):
            axis = axes[row, column]
            axis.imshow(image.permute(1, 2, 0).cpu().numpy(), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axis.set_axis_off()
    axes[0, 0].set_title("input")
    axes[0, 1].set_title(title, loc="left")
    return figure


def sample_grid(inputs: Tensor, draws: Tensor, layer: str | None) -> Figure:
    """Inputs in the first column, draws from p(x | h) of each in the others (Nash et al. 2019, fig 1).

    Args:
        inputs: uint8 [N, C, H, W].
        draws: uint8 [N, M, C, H, W].
        layer: That is inverted; None for the unconditional model, whose draws have nothing to do with the inputs.
    """
    return _grid(inputs, draws, "draws from p(x)" if layer is None else f"draws from p(x | {layer})")


def mean_grid(inputs: Tensor, means: Tensor) -> Figure:
    """Inputs beside their reconstructions (Nash et al. 2019, fig 1, "MSE"), both uint8 [N, C, H, W]."""
    return _grid(inputs, means[:, None], "mean of the\nMSE decoder")


def contact_sheet(images: Tensor, labels: Sequence[str]) -> Figure:
    """Images in rows of ten, each under its label.

    Args:
        images: uint8 [N, C, H, W].
        labels: N.
    """
    num_rows = -(-len(images) // 10)
    figure, axes = plt.subplots(num_rows, 10, figsize=(10, 1.2 * num_rows), squeeze=False, layout="constrained")
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, image, label in zip(axes.flat, images, labels, strict=False):
        axis.imshow(image.permute(1, 2, 0).cpu().numpy(), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axis.set_title(label, fontsize=8)
    return figure
