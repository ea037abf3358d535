"""The figure of what one network keeps, depth by depth: nats above, and samples along the way beneath."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from evaluations.charts import COLOURS, MARKERS
from evaluations.figures import plain
from evaluations.information import Estimate

P_X = "p(x)"
LINE, LETTER = 0.15, 0.072  # inches, of a label's line and of a letter in it


class Measured(NamedTuple):
    """NCE of one layer with its standard error, and the paired estimate of I(x; h), nats, where there is one."""

    nce: float
    nce_se: float
    information: Estimate | None


def depth_profile(
    layers: Sequence[str],
    lines: Mapping[str, Mapping[str, Measured]],
    p_x: tuple[float, float] | None,
    inputs: np.ndarray,
    draws: Mapping[str, np.ndarray],
) -> Figure:
    """NCE, and the estimate of I(x; h) where p(x) is known, layer by layer, with bars of one standard error.

    Beneath every layer there is a draw for each input: every column is of the layer whose name stands over it.

    Args:
        layers: From the input to the output.
        lines: By density and layer; a density need not have all layers.
        p_x: NCE of an unconditional model and its standard error, nats.
        inputs: uint8 [Q, C, H, W]; Q may be 0.
        draws: One for each input, uint8 [Q, C, H, W], by layer, and P_X for those of the unconditional model, where
            there are some.
    """
    first, names = -1 if len(inputs) else 0, [*layers, *([P_X] if p_x else [])]  # the inputs stand at place -1
    num_columns = len(names) - first
    column = min(0.9, max(0.35, 11 / num_columns))  # inches; a page is no wider than 11
    labels, room = _labels(names, column)
    informed = any(one.information for line in lines.values() for one in line.values())
    row = column * (inputs.shape[2] / inputs.shape[3] if len(inputs) else 1)
    heights = {"nce": 2.3, **({"information": 1.9} if informed else {}), "labels": room, "images": row * len(inputs)}
    sides, gap = (0.85, 0.15), 0.12
    size = (sum(sides) + column * num_columns, 0.45 + sum(heights.values()) + gap * len(heights))
    figure, top, panels = Figure(figsize=size), size[1] - 0.45, {}
    for name, height in heights.items():
        if height and name != "labels":
            # Not "constrained", which would part the columns of the images from the places of their layers.
            place = (sides[0] / size[0], (top - height) / size[1], 1 - sum(sides) / size[0], height / size[1])
            panels[name] = figure.add_axes(place)
            panels[name].set_xlim(first - 0.5, len(names) - 0.5)
        top -= height + gap
    places = {layer: float(k) for k, layer in enumerate(layers)}
    for k, (density, line) in enumerate(lines.items()):
        shown = [layer for layer in layers if layer in line]
        nce = [(places[layer], line[layer].nce, line[layer].nce_se) for layer in shown]
        _line(panels["nce"], k, nce, density)
        if informed:
            found = [(places[layer], line[layer].information) for layer in shown]
            _line(panels["information"], k, [(x, i.mean, i.standard_error) for x, i in found if i], density)
    if p_x:
        panels["nce"].axhline(p_x[0], color="grey", linewidth=0.8, linestyle=":")
        panels["nce"].errorbar(len(layers), *p_x, color="grey", marker="x", capsize=3, linestyle="", label=P_X)
    panels["nce"].set_ylabel("NCE, nats")
    if informed:
        panels["information"].axhline(0, color="grey", linewidth=0.8, linestyle=":")
        panels["information"].set_ylabel("I(x; h), estimate, nats", fontsize=9)
    lowest = list(panels)[-2 if len(inputs) else -1]
    for name, axis in panels.items():
        if name == "images":
            _images(axis, inputs, [draws.get(layer) for layer in names])
            continue
        angle = 90 if room > 2 * LINE else 0
        axis.set_xticks(range(len(names)), labels if name == lowest else [""] * len(names))
        for label in axis.get_xticklabels():
            label.set(rotation=angle, size=9, multialignment="right" if angle else "center")
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="x", color="0.93")
        axis.set_axisbelow(True)
    handles = panels["nce"].get_legend_handles_labels()
    figure.legend(*handles, loc="upper center", ncols=max(1, int(size[0] // 1.6)), frameon=False, fontsize=9)
    return figure


def _line(axis: Axes, k: int, points: Sequence[tuple[float, float, float]], label: str) -> None:
    """(place, value, error) of each layer."""
    if points:
        style = {"color": COLOURS[k % len(COLOURS)], "marker": MARKERS[k % len(MARKERS)], "capsize": 3}
        axis.errorbar(*zip(*points, strict=True), label=plain(label), **style)  # type: ignore[arg-type] # three sequences


def _images(axis: Axes, inputs: np.ndarray, draws: Sequence[np.ndarray | None]) -> None:
    """The inputs, uint8 [Q, C, H, W], and right of them a column of draws at every layer's place."""
    limits = axis.get_xlim()
    for k, column in enumerate([inputs, *draws]):
        for row, image in enumerate(column if column is not None else []):
            left, below = k - 1.47, len(inputs) - row - 0.97
            extent = (left, left + 0.94, below, below + 0.94)
            shown = image.transpose(1, 2, 0)
            axis.imshow(shown, cmap="gray", vmin=0, vmax=255, interpolation="nearest", extent=extent, aspect="auto")
    axis.set(xlim=limits, ylim=(0, len(inputs)))
    if len(inputs):
        axis.text(-1, len(inputs) + 0.05, "input", ha="center", size=9)
    axis.set_axis_off()


def _labels(names: Sequence[str], column: float) -> tuple[list[str], float]:
    """The names as they stand over columns of so many inches, and the inches that the longest needs.

    Where one is too wide they are turned, and broken after dots into as many lines as a column has room for.
    """
    if max(map(len, names)) * LETTER <= column:
        return list(map(plain, names)), 2 * LINE
    broken = ["\n".join(_broken(name, most=int(column // LINE))) for name in names]
    longest = max(len(line) for name in broken for line in name.split("\n"))
    return list(map(plain, broken)), max(longest * LETTER, 2 * LINE) + LINE


def _broken(name: str, most: int, wide: int = 24) -> list[str]:
    """A name in at most so many lines, parted after dots where it is wider than so many letters."""
    lines = [""]
    for part in re.findall(r"[^.]*\.?", name):
        if len(lines[-1] + part) > wide and lines[-1] and len(lines) < most:
            lines.append("")
        lines[-1] += part
    return lines
