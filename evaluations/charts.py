"""The charts, each a function from what was measured to a matplotlib figure; nothing else is drawn."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from evaluations.budgets import Curve
from evaluations.estimators import Breakdown
from evaluations.figures import plain
from evaluations.information import Estimate

# Okabe and Ito's colours and different markers, so that lines can be told apart in grey and by everyone.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")
REACH = 64  # times the largest budget, as far as laws are drawn


def nce_over_layers(relative: Mapping[str, Mapping[str, Estimate]], order: Sequence[str], reference: str) -> Figure:
    """NCE, by data set and layer, over abs(NCE of the reference), with 95 % intervals (Nash et al. 2019, fig 5a).

    The order is that of all layers, from the input to the output.
    """
    figure, (axis,) = _panels()
    axis.set_xticks(range(len(order)), list(map(plain, order)))
    for k, (name, layers) in enumerate(relative.items()):
        places, values = [order.index(layer) for layer in layers], list(layers.values())
        _line(axis, k, name, places, [value.mean for value in values], _bars(values))
    axis.set(xlabel="layer", ylabel=f"NCE / |NCE of {plain(reference)}|")
    return _with_legend(figure)


def training_dynamics(points: Mapping[str, Mapping[str, Mapping[int, tuple[float, float]]]]) -> Figure:
    """NCE against the number of the classifier's updates, one panel a kind of training (Nash et al. 2019, fig 5b).

    Points are NCE and its standard error, nats, by kind, layer and number of updates.
    """
    figure, axes = _panels(len(points), width=4)
    numbers = sorted({n for layers in points.values() for line in layers.values() for n in line})
    names = list(dict.fromkeys(layer for layers in points.values() for layer in layers))
    for axis, (kind, layers) in zip(axes, points.items(), strict=True):
        for layer, line in layers.items():
            values, errors = zip(*(line[n] for n in sorted(line)), strict=True)
            _line(axis, names.index(layer), layer, sorted(line), values, errors)
        axis.set_xscale("symlog", linthresh=100)
        _ticks(axis, numbers)
        axis.set(title=f"{plain(kind)} classifier", xlabel="updates of the classifier")
    axes[0].set_ylabel("NCE, nats per image")
    return _with_legend(figure)


def table1_ratios(measured: Mapping[str, Mapping[str, Mapping[str, tuple[float, float, float | None]]]]) -> Figure:
    """Distances of samples relative to the nearest training image's, one panel a data set (Nash et al. 2019, table 1).

    By data set, layer and ratio there are its value, its standard error and, where there is one, the paper's value.
    """
    figure, axes = _panels(len(measured), width=4)
    for axis, (name, layers) in zip(axes, measured.items(), strict=True):
        for k, ratio in enumerate(next(iter(layers.values()))):
            places = np.arange(len(layers)) + 0.16 * (k - 0.5)
            values, errors, published = zip(*(layer[ratio] for layer in layers.values()), strict=True)
            axis.errorbar(places, values, errors, fmt=MARKERS[k], color=COLOURS[k], capsize=3, label=ratio)
            for place, value in zip(places, published, strict=True):
                if value is not None:
                    _paper(axis, place, value, k, f"{ratio}, the paper's")
        axis.axhline(1, color="grey", linewidth=0.8, linestyle=":")
        axis.set_xticks(range(len(layers)), list(map(plain, layers)))
        axis.set(xlim=(-0.5, len(layers) - 0.5), title=plain(name), xlabel="layer")
    axes[0].set_ylim(bottom=0)
    axes[0].set_ylabel("distance / that of the nearest training image")
    return _with_legend(figure)


def ledger_chart(kept: Mapping[str, Mapping[str, tuple[float, float, float]]]) -> Figure:
    """What each layer keeps of each attribute, its standard error, and of how much: nats, by attribute and layer."""
    names = list(dict.fromkeys(layer for layers in kept.values() for layer in layers))
    figure, (axis,) = _panels(height=1.5 + 0.3 * sum(map(len, kept.values())))
    width = 0.8 / len(names)
    for place, layers in enumerate(kept.values()):
        for name, (value, error, entropy) in layers.items():
            k = names.index(name)
            y = place + width * (k - (len(names) - 1) / 2)
            axis.barh(y, entropy, 0.9 * width, color="#e5e5e5", label="of")
            colour = COLOURS[k % len(COLOURS)]
            axis.barh(y, max(value, 0), 0.9 * width, xerr=error, color=colour, capsize=2, label=plain(name))
    axis.set_yticks(range(len(kept)), list(map(plain, kept)))
    axis.invert_yaxis()
    axis.set(xlabel="nats")
    axis.spines[["top", "right"]].set_visible(False)
    return _with_legend(figure)


def rate_chart(
    nce: Mapping[str, Sequence[tuple[float, float, float]]],
    prior: float | None,
    accuracy: Sequence[tuple[float, float]],
    whole: float | None,
) -> Figure:
    """NCE over the bits of h that are sent, nats, and below it the network's accuracy, per cent.

    Args:
        nce: (bits, nats, error) of each rate; those of the first are joined.
        prior: NCE of p(x), to which no bit is sent.
        accuracy: (bits, per cent) of each rate.
        whole: With all of h, per cent.
    """
    figure = Figure(figsize=(7, 6 if accuracy else 4), layout="constrained")
    axes = figure.subplots(
        1 + bool(accuracy), 1, sharex=True, squeeze=False, height_ratios=[2, 1][: 1 + bool(accuracy)]
    )
    axis = axes[0, 0]
    for k, (name, points) in enumerate(nce.items()):
        bits, values, errors = zip(*points, strict=True)
        _line(axis, k, name, bits, values, errors, hollow=k > 0, joined=k == 0)
    if prior is not None:
        axis.axhline(prior, color="grey", linestyle="--", linewidth=1, label="p(x): no bit")
    axis.set(xscale="log", ylabel="NCE, nats")
    if accuracy:
        below = axes[1, 0]
        bits, shares = zip(*accuracy, strict=True)
        _line(below, 2, "accuracy of what is sent", bits, shares)
        if whole is not None:
            below.axhline(whole, color="grey", linestyle=":", linewidth=1, label="accuracy with all of h")
        below.set(ylabel="accuracy, %")
    axes[-1, 0].set_xlabel("bits of h that are sent, of an image")
    _ticks(axes[-1, 0], sorted({round(bits) for points in nce.values() for bits, _, _ in points}))
    return _with_legend(figure)


def nce_differences(measured: Mapping[str, Estimate], paper: Mapping[str, float], reference: str) -> Figure:
    """NCE of several networks less that of the reference, with 95 % intervals (Nash et al. 2019, section 5.2).

    Both are by network, in nats; the paper has not all of them.
    """
    figure, (axis,) = _panels(height=1.5 + 0.6 * len(measured))
    for place, (name, value) in enumerate(measured.items()):
        bars = _bars([value])
        axis.errorbar(value.mean, place, xerr=bars, fmt=MARKERS[0], color=COLOURS[0], capsize=3, label="measured")
        if name in paper:
            _paper(axis, paper[name], place, 1, "the paper's")
    axis.axvline(0, color="grey", linewidth=0.8, linestyle=":")
    axis.set_yticks(range(len(measured)), list(map(plain, measured)))
    axis.set(ylim=(-0.5, len(measured) - 0.5), xlabel=f"NCE less that of {plain(reference)}, nats per image")
    return _with_legend(figure)


def breakdown_chart(rows: Sequence[Breakdown]) -> Figure:
    """Estimate less truth against the dimension, where the truth is known; within the band it is a nat off at most."""
    figure, (axis,) = _panels()
    for k, name in enumerate(dict.fromkeys(row.estimator for row in rows)):
        off = sorted((row.dimension, row.estimate_nats - row.truth_nats) for row in rows if row.estimator == name)
        dimensions, errors = zip(*off, strict=True)
        _line(axis, k, name, dimensions, errors, hollow=True)
    axis.axhspan(-1, 1, color="grey", alpha=0.2, linewidth=0, label="a nat off")
    axis.set_yscale("symlog", linthresh=1)
    axis.set_xscale("log", base=2)
    _ticks(axis, sorted({row.dimension for row in rows}))
    axis.set(xlabel="dimension", ylabel="estimate less truth, nats")
    return _with_legend(figure)


def world_errors(points: Mapping[str, Sequence[tuple[float, float, float]]]) -> Figure:
    """Estimate less truth against the true information, nats: of each world (truth, estimate less truth, its error)."""
    figure, (axis,) = _panels()
    for k, (name, values) in enumerate(points.items()):
        truth, off, errors = zip(*sorted(values), strict=True)
        _line(axis, k, name, truth, off, errors)
    axis.axhline(0, color="grey", linewidth=0.8, linestyle=":")
    axis.set(xlabel="true I(x; h), nats", ylabel="estimate less truth, nats")
    return _with_legend(figure)


def learning_curves(curves: Mapping[str, Sequence[tuple[int, float]]]) -> Figure:
    """NCE of the validation images, nats, by layer, against the steps of training."""
    figure, (axis,) = _panels(width=6)
    for k, (name, points) in enumerate(curves.items()):
        steps, values = zip(*points, strict=True)
        _line(axis, k, name, steps, values)
    axis.set(xlabel="steps of training", ylabel="NCE of validation images, nats")
    return _with_legend(figure)


def over_budgets(panels: Mapping[str, Sequence[Curve]]) -> Figure:
    """Means with standard errors against FLOP of training, the power laws through them, and where these end.

    Curves are by what a panel shows; those of one name have one colour.
    """
    figure, axes = _panels(len(panels), share=False)
    names = list(dict.fromkeys(curve.name for curves in panels.values() for curve in curves))
    for axis, (what, curves) in zip(axes, panels.items(), strict=True):
        right = REACH * max(curve.flop[-1] for curve in curves)
        points = np.concatenate([curve.means + k * np.nan_to_num(curve.errors) for curve in curves for k in (-1, 1)])
        bottom, top = points[np.isfinite(points)].min(), points[np.isfinite(points)].max()
        most = _wider(axis, bottom, top, 0.5)  # for limits
        for curve in curves:
            k, law = names.index(curve.name), curve.law
            bends, colour = law is not None and law.limit is not None, COLOURS[k % len(COLOURS)]
            _line(axis, k, curve.name, curve.flop, curve.means, curve.errors, joined=not bends)
            if law is None or law.limit is None:
                continue
            x, ahead = np.geomspace(curve.flop[0], right, 200), [curve.flop[-1], right]
            low, high = np.clip((law.low, law.high), *most)
            axis.plot(x, law.at(x), color=colour, linestyle="--", linewidth=1)
            axis.plot(ahead, [law.limit] * 2, color=colour, linestyle=":")
            axis.fill_between(ahead, low, high, color=colour, alpha=0.15, linewidth=0)
            bottom, top = min(bottom, low), max(top, high)
        axis.set(xscale="log", xlabel="FLOP of training", ylabel=what, ylim=_wider(axis, bottom, top, 0.04))
        left, right = axis.get_xlim()
        axis.set_xlim(left / 2, right * 2)  # so that there is a power of ten, which alone has room for its label
        axis.xaxis.set_minor_formatter(NullFormatter())
        _say_scale(axis)
    return _with_legend(figure)


def diversity_over_weights(
    points: Mapping[float, tuple[float, float]], beside: Mapping[str, tuple[float, float]], called: str
) -> Figure:
    """Diversity against the weight that sets it, and of what has no such weight (Nash et al. 2019, fig 3).

    Values are diversities and their standard errors: by weight, from the smallest on, and by name.

    Args:
        points: Of draws of one generator.
        beside: Of others.
        called: The generator.
    """
    figure, (axis,) = _panels()
    pairs = [points[weight] for weight in points]
    _line(axis, 0, called, list(points), [value for value, _ in pairs], [error for _, error in pairs])
    for k, (name, (value, error)) in enumerate(beside.items(), 1):
        axis.axhline(value, color=COLOURS[k % len(COLOURS)], label=plain(name))
        axis.axhspan(value - error, value + error, color=COLOURS[k % len(COLOURS)], alpha=0.2, linewidth=0)
    axis.axhline(1, color="grey", linestyle=":", label="true images of one class")
    smallest = min(weight for weight in points if weight > 0)
    axis.set_xscale("symlog", linthresh=smallest)  # which has 0
    axis.set(xlabel="weight of the entropy loss", ylabel="diversity in pixels", ylim=(0, None))
    axis.set_xticks(list(points), [f"{weight:g}" for weight in points])
    axis.minorticks_off()
    axis.spines[["top", "right"]].set_visible(False)
    return _with_legend(figure)


def _wider(axis: Axes, bottom: float, top: float, share: float) -> tuple[float, float]:
    """A range of y with so much more at both ends; of log-probabilities that differ by a factor, on a scale of factors.

    Else the largest budgets, which matter most, would lie on one another.
    """
    if top < 0 and bottom < 1.5 * top:
        axis.set_ylim(bottom, top)  # the scale does not have 0 to 1, which an empty panel has
        least = 1e-3  # a law may go on to 0, and beyond it
        axis.set_yscale("function", functions=(lambda y: -np.log(np.maximum(-y, least)), lambda z: -np.exp(-z)))
        room = share * math.log(bottom / top)
        return bottom * math.exp(room), top * math.exp(-room)
    room = share * (top - bottom)
    return bottom - room, top + room


def _say_scale(axis: Axes) -> None:
    """Round numbers along a scale of factors."""
    if axis.get_yscale() == "function":
        bottom, top = axis.get_ylim()
        steps = (1, 1.5, 2, 3, 4, 5, 6, 8) if bottom / top < 20 else (1, 3)
        ticks = [-step * 10.0**power for power in range(-1, 8) for step in steps]
        axis.set_yticks([tick for tick in ticks if bottom <= tick <= top])
        axis.yaxis.set_major_formatter("{x:g}")


def _panels(number: int = 1, width: float = 5, height: float = 4, share: bool = True) -> tuple[Figure, np.ndarray]:
    """Side by side, each of this size in inches, with one scale of y, or each its own."""
    figure = Figure(figsize=(1 + width * number, height), layout="constrained")
    return figure, figure.subplots(1, number, sharey=share, squeeze=False)[0]


def _ticks(axis: Axes, numbers: Sequence[int]) -> None:
    """At these numbers of x and nowhere else, whatever its scale."""
    axis.set_xticks(numbers, list(map(str, numbers)))
    axis.minorticks_off()


def _bars(values: Sequence[Estimate]) -> list[list[float]]:
    """How far the intervals reach below the means, and above."""
    return [[max(v.mean - v.low, 0) for v in values], [max(v.high - v.mean, 0) for v in values]]


def _paper(axis: Axes, x: float, y: float, k: int, label: str) -> None:
    """A published value, as a large hollow marker."""
    axis.plot(x, y, MARKERS[k], color=COLOURS[k], fillstyle="none", markersize=10, label=label)


def _with_legend(figure: Figure) -> Figure:
    """One entry for every label in any panel, below the panels, where it hides nothing."""
    entries: dict[str, Any] = {}
    for axis in figure.axes:
        handles, labels = axis.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
    columns = int(figure.get_figwidth() // 2.4)  # inches, of the longest label
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=columns, frameon=False)
    return figure


def _line(
    axis: Axes, k: int, label: str, x: Any, y: Any, errors: Any = None, hollow: bool = False, joined: bool = True
) -> None:
    """One measured line; hollow markers shrink from line to line, so that lines on top of one another are seen."""
    style: dict[str, Any] = {"fillstyle": "none", "markersize": 13 - 2.5 * k} if hollow else {}
    style |= {"color": COLOURS[k % len(COLOURS)], "marker": MARKERS[k % len(MARKERS)], "capsize": 3}
    style |= {} if joined else {"linestyle": ""}
    axis.errorbar(x, y, errors, label=plain(label), **style)
    axis.spines[["top", "right"]].set_visible(False)
