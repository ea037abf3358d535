"""The charts, each a function from what was measured to a matplotlib figure; nothing else is drawn."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from evaluations.estimators import Breakdown
from evaluations.information import Estimate

# Okabe and Ito's colours and different markers, so that lines can be told apart in grey and by everyone.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")


def nce_over_layers(relative: Mapping[str, Mapping[str, Estimate]], order: Sequence[str], reference: str) -> Figure:
    """NCE of each layer relative to abs(NCE of the reference), with 95 % intervals (Nash et al. 2019, fig 5a).

    Args:
        relative: By data set and layer.
        order: Every layer, from the input to the output.
        reference: What they are relative to, in words.
    """
    figure = Figure(figsize=(6, 4), layout="constrained")
    axis = figure.subplots()
    axis.set_xticks(range(len(order)), order)
    for k, (name, layers) in enumerate(relative.items()):
        places = [order.index(layer) for layer in layers]
        _line(axis, k, name, places, [value.mean for value in layers.values()], _bars(list(layers.values())))
    axis.set_ylabel(f"NCE / |NCE of {reference}|")
    axis.set_xlabel("layer")
    _legend(figure)
    return figure


def training_dynamics(points: Mapping[str, Mapping[str, Mapping[int, tuple[float, float]]]]) -> Figure:
    """NCE against the number of the classifier's updates, one panel a kind of training (Nash et al. 2019, fig 5b).

    Args:
        points: By kind, layer and number of updates: NCE and its standard error, nats.
    """
    figure, axes = _panels(len(points))
    numbers = sorted({n for layers in points.values() for line in layers.values() for n in line})
    names = list(dict.fromkeys(layer for layers in points.values() for layer in layers))
    for axis, (kind, layers) in zip(axes, points.items(), strict=True):
        for layer, line in layers.items():
            updates = sorted(line)
            values, errors = zip(*(line[n] for n in updates), strict=True)
            _line(axis, names.index(layer), layer, updates, values, errors)
        axis.set_xscale("symlog", linthresh=100)
        axis.set_xticks(numbers, [str(n) for n in numbers])
        axis.minorticks_off()
        axis.set_title(f"{kind} classifier")
        axis.set_xlabel("updates of the classifier")
    axes[0].set_ylabel("NCE, nats per image")
    _legend(figure)
    return figure


def table1_ratios(
    measured: Mapping[str, Mapping[str, Mapping[str, tuple[float, float]]]],
    paper: Mapping[str, Mapping[str, Mapping[str, float]]],
) -> Figure:
    """Distances of samples relative to the nearest training image's, one panel a data set (Nash et al. 2019, table 1).

    Args:
        measured: By data set, layer and ratio: its value and standard error.
        paper: By data set, layer and ratio: the published value, where there is one.
    """
    figure, axes = _panels(len(measured))
    for axis, (name, layers) in zip(axes, measured.items(), strict=True):
        theirs = paper.get(name, {})
        for k, ratio in enumerate(next(iter(layers.values()))):
            places = np.arange(len(layers)) + 0.16 * (k - 0.5)
            values, errors = zip(*(layer[ratio] for layer in layers.values()), strict=True)
            axis.errorbar(places, values, errors, fmt=MARKERS[k], color=COLOURS[k], capsize=3, label=ratio)
            for place, layer in zip(places, layers, strict=True):
                if ratio in theirs.get(layer, {}):
                    _paper(axis, place, theirs[layer][ratio], k, f"{ratio}, the paper's")
        axis.axhline(1, color="grey", linewidth=0.8, linestyle=":")
        axis.set_xticks(range(len(layers)), list(layers))
        axis.set_xlim(-0.5, len(layers) - 0.5)
        axis.set_title(name)
        axis.set_xlabel("layer")
    axes[0].set_ylim(bottom=0)
    axes[0].set_ylabel("distance / that of the nearest training image")
    _legend(figure)
    return figure


def nce_differences(measured: Mapping[str, Estimate], paper: Mapping[str, float], reference: str) -> Figure:
    """NCE of several networks less that of one, with 95 % intervals (Nash et al. 2019, section 5.2).

    Args:
        measured: By network, nats.
        paper: By network, the published difference, where there is one.
        reference: The network that is subtracted.
    """
    figure = Figure(figsize=(6, 1.5 + 0.6 * len(measured)), layout="constrained")
    axis = figure.subplots()
    for place, (name, value) in enumerate(measured.items()):
        style: dict[str, Any] = {"fmt": MARKERS[0], "color": COLOURS[0], "capsize": 3, "label": "measured"}
        axis.errorbar([value.mean], [place], xerr=_bars([value]), **style)
        if name in paper:
            _paper(axis, paper[name], place, 1, "the paper's")
    axis.axvline(0, color="grey", linewidth=0.8, linestyle=":")
    axis.set_yticks(range(len(measured)), list(measured))
    axis.set_ylim(-0.5, len(measured) - 0.5)
    axis.set_xlabel(f"NCE less that of {reference}, nats per image")
    _legend(figure)
    return figure


def breakdown_chart(rows: Sequence[Breakdown]) -> Figure:
    """Estimate less truth against the dimension, where the truth is known; within the band it is a nat off at most."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axis = figure.subplots()
    for k, name in enumerate(dict.fromkeys(row.estimator for row in rows)):
        mine = sorted((row for row in rows if row.estimator == name), key=lambda row: row.dimension)
        errors = [row.estimate_nats - row.truth_nats for row in mine]
        _line(axis, k, name, [row.dimension for row in mine], errors, None, hollow=True)
    axis.axhspan(-1, 1, color="grey", alpha=0.2, linewidth=0, label="a nat off")
    axis.set_yscale("symlog", linthresh=1)
    dimensions = sorted({row.dimension for row in rows})
    axis.set_xscale("log", base=2)
    axis.set_xticks(dimensions, [str(d) for d in dimensions])
    axis.minorticks_off()
    axis.set_xlabel("dimension")
    axis.set_ylabel("estimate less truth, nats")
    _legend(figure)
    return figure


def _panels(number: int) -> tuple[Figure, np.ndarray]:
    """Side by side, with one scale of y."""
    figure = Figure(figsize=(1 + 4 * number, 4), layout="constrained")
    return figure, figure.subplots(1, number, sharey=True, squeeze=False)[0]


def _bars(values: Sequence[Estimate]) -> list[list[float]]:
    """How far the intervals reach below the means, and above."""
    return [[max(v.mean - v.low, 0) for v in values], [max(v.high - v.mean, 0) for v in values]]


def _paper(axis: Axes, x: float, y: float, k: int, label: str) -> None:
    """A published value, as a large hollow marker."""
    axis.plot(x, y, MARKERS[k], color=COLOURS[k], fillstyle="none", markersize=10, label=label)


def _legend(figure: Figure) -> None:
    """One entry for every label in any panel, below the panels, where it hides nothing."""
    entries: dict[str, Any] = {}
    for axis in figure.axes:
        handles, labels = axis.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
    columns = int(figure.get_figwidth() // 2.4)  # inches, of the longest label
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=columns, frameon=False)


def _line(
    axis: Axes, k: int, label: str, x: Sequence[Any], y: Sequence[float], errors: Any, hollow: bool = False
) -> None:
    """One measured line; hollow markers shrink from line to line, so that lines on top of one another are seen."""
    style: dict[str, Any] = {"fillstyle": "none", "markersize": 13 - 2.5 * k} if hollow else {}
    colour, marker = COLOURS[k % len(COLOURS)], MARKERS[k % len(MARKERS)]
    axis.errorbar(x, y, errors, color=colour, marker=marker, capsize=3, label=label, **style)
    axis.spines[["top", "right"]].set_visible(False)
