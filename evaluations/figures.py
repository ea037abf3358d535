"""The figures of images, each a function to a matplotlib figure."""

from collections.abc import Mapping, Sequence
from textwrap import wrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

BOX_COLOURS = ("#000000", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe and Ito's that red and blue do not hide


def plain(text: str) -> str:
    """A name that comes from data, which Matplotlib must not take for a formula."""
    return text.replace("$", r"\$")


def sample_grid(inputs: Tensor, draws: Tensor, layer: str | None, called: str | None = None) -> Figure:
    """Inputs in the first column, draws from p(x | h) of each in the others (Nash et al. 2019, fig 1).

    Args:
        inputs: uint8 [N, C, H, W].
        draws: uint8 [N, M, C, H, W].
        layer: That is inverted; None for the unconditional model, whose draws have nothing to do with the inputs.
        called: What made the columns, where it is no p(x | h).
    """
    num_images, num_draws = draws.shape[:2]
    size = (max(num_draws + 1.2, 2.8), num_images + 0.4)  # room for the title
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(num_images, num_draws + 1, squeeze=False)
    for row, image, its in zip(axes, inputs, draws, strict=True):
        for axis, shown in zip(row, (image, *its), strict=True):
            _show(axis, shown.cpu().numpy())
    title = "draws from p(x)" if layer is None else f"draws from p(x | {layer})"
    if called is not None:
        title = f"{called}, {layer}"
    lines = wrap(title, max(12, 10 * num_draws + 1))
    axes[0, 0].set_title("\n" * (len(lines) - 1) + "input")
    # No title, which would push the columns apart where a name is long.
    words = axes[0, 1].annotate(
        plain("\n".join(lines)), (0, 1), (0, 6), "axes fraction", "offset points", fontsize="large"
    )
    words.set_in_layout(False)
    return figure


def contact_sheet(images: Tensor, labels: Sequence[str], inches: float = 1) -> Figure:
    """Images uint8 [N, C, H, W] in rows of ten, each so wide, under its label."""
    num_rows = -(-len(images) // 10)
    figure = Figure(figsize=(10 * inches, (inches + 0.2) * num_rows), layout="constrained")
    axes = figure.subplots(num_rows, 10, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, image, label in zip(axes.flat, images, labels, strict=False):
        _show(axis, image.cpu().numpy())
        axis.set_title(plain(label), fontsize=8)
    return figure


def labelled_rows(rows: Sequence[tuple[str, np.ndarray, Sequence[str]]]) -> Figure:
    """Rows with a title each, of images uint8 [K, C, H, W], one size in all rows, with a label below each."""
    num_columns, (height, width) = max(len(images) for _, images, _ in rows), rows[0][1].shape[2:]
    inches = width / height + 0.15, 1.55
    longest = 0.075 * max(len(title) for title, _, _ in rows)
    figure = Figure(figsize=(max(inches[0] * num_columns, longest), inches[1] * len(rows)))
    edge = 0.25 / inches[1] / len(rows)
    place = {"left": 0.01, "right": inches[0] * num_columns / figure.get_figwidth() - 0.01}
    grid = {**place, "top": 1 - edge, "bottom": edge, "wspace": 0.1, "hspace": 0.5}
    axes = figure.subplots(len(rows), num_columns, squeeze=False, gridspec_kw=grid)
    for row, (title, images, labels) in zip(axes, rows, strict=True):
        for axis in row:
            axis.set_axis_off()
        for axis, image, label in zip(row, images, labels, strict=False):
            _show(axis, image)
            axis.text(0.5, -0.03, plain(label), size=8, ha="center", va="top", transform=axis.transAxes)
        row[0].set_title(plain(title), fontsize=8, loc="left")
    return figure


def layers_grid(inputs: np.ndarray, columns: Mapping[str, np.ndarray]) -> Figure:
    """Inputs uint8 [N, C, H, W], then by title draws or means, [N, M, C, H, W], M of each (Nash et al. 2019, fig 1)."""
    widths = [1, *(images.shape[1] for images in columns.values())]
    titles = [wrap(title, 15 * n, break_long_words=False) for title, n in zip(["input", *columns], widths, strict=True)]
    room = 0.25 + 0.15 * max(map(len, titles))
    figure = Figure(figsize=(0.9 * (sum(widths) + 0.5 * len(columns)), 0.9 * len(inputs) + room), layout="constrained")
    axes = figure.subplots(len(inputs), 1 + len(columns), width_ratios=widths, squeeze=False)
    for column, (title, images) in enumerate(zip(titles, [inputs[:, None], *columns.values()], strict=True)):
        axes[0, column].set_title(plain("\n".join(title)), fontsize=9)
        for axis, row in zip(axes[:, column], images, strict=True):
            # Side by side, with a white line of two pixels between.
            padded = np.pad(row, [(0, 0), (0, 0), (0, 0), (0, 2)], constant_values=255)
            _show(axis, np.concatenate(padded, axis=2)[..., :-2])
    return figure


def story(steps: Sequence[tuple[str, str, float | None, np.ndarray]]) -> Figure:
    """From the input to nothing: name, value and share of the longest bar over images uint8 [Q, C, H, W] of each."""
    num_rows, num_steps = len(steps[0][3]), len(steps)
    figure = Figure(figsize=(1.5 * num_steps, 1.45 * num_rows + 0.7), layout="constrained")
    heights = [0.45, *[1.0] * num_rows]
    axes = figure.subplots(1 + num_rows, num_steps, height_ratios=heights, squeeze=False)
    for column, (name, told, share, images) in zip(axes.T, steps, strict=True):
        top = column[0]
        top.set_axis_off()
        top.set(xlim=(0, 1), ylim=(0, 1))
        top.text(0, 0.95, plain("\n".join(wrap(name, 16))), fontsize=11, weight="bold", va="top")
        top.text(0, 0.4, told, fontsize=9, va="center")
        if share is not None:
            top.barh(0, [1, min(max(share, 0), 1)], height=0.13, color=["0.92", "#0072B2"], align="edge")
        for axis, image in zip(column[1:], images, strict=True):
            _show(axis, image)
    return figure


def nearest_grid(arrays: Mapping[str, np.ndarray], layer: str) -> Figure:
    """Beside each input its nearest samples, its nearest training images, and what looks as near to the layer and yet
    differs most (Nash et al. 2019, fig 2).

    Args:
        arrays: inputs uint8 [Q, C, H, W]; samples, training and blind uint8 [Q, K, C, H, W]; sample_distances,
            training_distances and blind_distances [Q, K], nan where there is no image; space, "layer" or "pixels".
        layer: Whose representation it is.
    """
    layer = plain(layer)
    space = layer if str(arrays.get("space", "layer")) == "layer" else "pixels"
    kinds = (
        ("samples", "sample_distances", f"nearest samples by {space}"),
        ("training", "training_distances", f"nearest training images by {space}"),
        ("blind", "blind_distances", f"as near by {layer}, most different in pixels"),
    )
    num_queries, num_shown = arrays["samples"].shape[:2]
    height = 4.2 * num_queries
    figure = Figure(figsize=(1.1 * (1 + num_shown), height))
    # Not "constrained", which takes a title's width for its column's.
    place = {"left": 0.01, "right": 0.99, "top": 1 - 0.25 / height, "bottom": 0.25 / height}
    grid = {**place, "wspace": 0.06, "hspace": 0.38}
    axes = figure.subplots(3 * num_queries, 1 + num_shown, squeeze=False, gridspec_kw=grid)
    for axis in axes.flat:
        axis.set_axis_off()
    for query, rows in enumerate(axes.reshape(num_queries, 3, -1)):
        for row, (images, distances, title) in zip(rows, kinds, strict=True):
            far = arrays[distances][query]
            for axis, image, distance in zip(row[1:], arrays[images][query], far, strict=True):
                if not np.isnan(distance):
                    _show(axis, image)
                    axis.text(0.5, -0.02, f"{distance:.3g}", size=8, ha="center", va="top", transform=axis.transAxes)
            row[1].set_title(f"{title}: none" if np.isnan(far).all() else title, fontsize=8, loc="left")
        _show(rows[0, 0], arrays["inputs"][query])
        rows[0, 0].set_title("input", fontsize=8)
    return figure


def information_maps(mean: np.ndarray, images: np.ndarray, maps: np.ndarray, layer: str) -> Figure:
    """Where a layer's h informs: the mean map [H, W], then images uint8 [K, C, H, W] above theirs [K, H, W], nats.

    Red is where h helps and blue where it misleads. The mean over all images has a scale of its own, a single image's
    values being many times larger; these share theirs.
    """
    figure = Figure(figsize=(2.2 * (1 + len(images)), 4.6), layout="constrained")
    axes = figure.subplots(2, 1 + len(images))
    limit = abs(mean).max() or 1.0
    shown = axes[0, 0].imshow(mean, cmap="RdBu_r", vmin=-limit, vmax=limit)
    name = plain("\n".join(wrap(layer, 24)))
    axes[0, 0].set_title(f"{name}: mean,\n{mean.sum():.2f} nats in all", fontsize=9)
    figure.colorbar(shown, ax=axes[0, 0], label="nats per pixel, mean", shrink=0.8)
    limit = np.quantile(abs(maps), 0.999) or 1.0
    for axis, image, one in zip(axes.T[1:], images, maps, strict=True):
        _show(axis[0], image)
        shown = axis[1].imshow(one, cmap="RdBu_r", vmin=-limit, vmax=limit)
        axis[1].set_title(f"{one.sum():.2f} nats", fontsize=9)
    figure.colorbar(shown, ax=axes[1, -1], label="nats per pixel, each image", shrink=0.8, extend="both")
    for axis in axes.flat:
        axis.set_axis_off()
    return figure


def boxes_on_map(mean: np.ndarray, boxes: Mapping[str, tuple[int, int, int, int]], layer: str) -> Figure:
    """The mean map [H, W] nats of a layer, with boxes by name: top, bottom, left and right."""
    figure = Figure(figsize=(4.5, 4), layout="constrained")
    axis = figure.subplots()
    limit = abs(mean).max() or 1.0
    shown = axis.imshow(mean, cmap="RdBu_r", vmin=-limit, vmax=limit)
    for k, (name, (top, bottom, left, right)) in enumerate(boxes.items()):
        colour, line = BOX_COLOURS[k % len(BOX_COLOURS)], ("-", "--", ":")[k // len(BOX_COLOURS) % 3]
        place, size = (left - 0.5 + 0.08 * k, top - 0.5 + 0.08 * k), (right - left, bottom - top)
        axis.add_patch(
            Rectangle(place, *size, fill=False, edgecolor=colour, linestyle=line, linewidth=1.5, label=plain(name))
        )
    axis.set_axis_off()
    axis.set_title("\n".join(wrap(f"{plain(layer)}: mean map", 40)), fontsize=9)
    figure.colorbar(shown, ax=axis, label="nats per pixel, mean", shrink=0.8)
    figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    return figure


def _show(axis: Axes, image: np.ndarray) -> None:
    """One image uint8 [C, H, W]."""
    axis.imshow(image.transpose(1, 2, 0), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axis.set_axis_off()
