"""Where do NCE, p(x) and their difference go as the budget of training grows, and have they settled?"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from evaluations.budgets import Curve, Verdict
from evaluations.charts import over_budgets
from evaluations.information import paired_difference
from evaluations.report.cells import NONE, number, with_interval
from evaluations.report.groups import by_depth, images_of
from evaluations.report.page import Part, Picture, Section, Table
from evaluations.report.tested_runs import AnyRun, InverterRun, inverters

P_X = "p(x)"
NCE, INFORMATION = "NCE, nats per image", "estimate of I(x; h), nats"
WORDS = (
    "The same experiments at several budgets: recipe, seed, images and the network that is inverted are the same, and "
    "only the number of steps differs, over which the learning rate has its course. FLOP are those of the density's "
    "forward and backward passes, without the optimiser's, of which Muon's grow with the steps and not with the batch. "
    "An estimate has settled where it changed by less than its standard error over the last factor of four in budget. "
    "The change itself is paired, and known far better than that: where it is more than two of its own errors, or the "
    "law below does not bend, the estimate is still moving all the same, though by less than its error over images.",
    "The law is limit - scale C^-exponent, by least squares over all budgets C alike; its limit is where it goes as C "
    "grows. The interval is of the bootstrap over test images, and knows no more than that: not how the same trainings "
    "would end with other seeds, as each was done once, and not whether the law holds beyond the budgets measured.",
)


@dataclass(frozen=True)
class Line:
    """One experiment at several budgets.

    Attributes:
        name: Of its layer, or p(x).
        runs: By the images that their training saw, from the fewest on.
        again: Those of a budget that another run has already.
    """

    name: str
    runs: Mapping[int, InverterRun]
    again: Sequence[InverterRun] = ()

    @property
    def longest(self) -> InverterRun:
        return self.runs[max(self.runs)]


def lines_of(runs: Iterable[AnyRun]) -> list[Line]:
    """What was trained at several budgets, from the input to the output: of one recipe, network and test images.

    Of several runs of the same the one in the outermost folder is taken.
    """
    found: dict[tuple[object, ...], dict[int, InverterRun]] = {}
    again: dict[tuple[object, ...], list[InverterRun]] = {}
    for run in sorted(inverters(runs), key=by_depth):
        its = run.result
        if its.recipe and its.training_images and its.training_flop and its.nce_nats is not None:
            key: tuple[object, ...] = its.dataset, images_of(run), its.recipe, its.network_digest
            if found.setdefault(key, {}).setdefault(its.training_images, run) is not run:
                again.setdefault(key, []).append(run)
    lines: list[Line] = []
    for experiment, of_one in found.items():
        if len(of_one) > 1:
            dataset = experiment[0]
            name, taken = _layer(of_one), {line.name for line in lines if line.longest.result.dataset == dataset}
            config = f"{name}, {of_one[max(of_one)].result.name}"
            free = (one for one in (name, config, f"{config}, {len(lines)}") if one not in taken)
            lines.append(Line(next(free), dict(sorted(of_one.items())), again.get(experiment, ())))
    return lines


def _layer(runs: Mapping[int, InverterRun]) -> str:
    return next(iter(runs.values())).result.layer or P_X


def shorter(lines: Sequence[Line]) -> set[Path]:
    """The folders of all runs but the longest of each, which alone other sections show."""
    return {run.folder for line in lines for run in (*line.runs.values(), *line.again) if run is not line.longest}


@dataclass(frozen=True)
class Budgets:
    """The curves of one data set.

    Attributes:
        name: Of the data set.
        nce: NCE, and log p(x), by the folder of the longest run.
        information: NCE less that of p(x) at the same budgets, likewise; the longest may not be among them.
    """

    name: str
    nce: Mapping[Path, Curve]
    information: Mapping[Path, Curve]


def budgets_of(lines: Sequence[Line]) -> list[Budgets]:
    """By data set, and by the images that were tested, as differences are paired."""
    together: dict[tuple[object, ...], list[Line]] = {}
    for line in lines:
        together.setdefault((line.longest.result.dataset, images_of(line.longest)), []).append(line)
    found = []
    for (name, _), those in together.items():
        conditional = [line for line in those if line.longest.result.layer]
        priors = [line for line in those if line not in conditional]
        nce = {line.longest.folder: _curve(line) for line in [*conditional, *priors]}
        gains = {line.longest.folder: _gain(line, priors) for line in conditional}
        found.append(Budgets(str(name), nce, {folder: gain for folder, gain in gains.items() if gain}))
    return found


def _curve(line: Line, prior: Line | None = None) -> Curve:
    """NCE, or less that of a prior at the budgets that both have, against the FLOP of the first."""
    runs = {n: run for n, run in line.runs.items() if prior is None or n in prior.runs}
    values = [run.log_prob - prior.runs[n].log_prob if prior else run.log_prob for n, run in runs.items()]
    flop = [run.result.training_flop or 0 for run in runs.values()]
    return Curve(line.name, np.array(list(runs)), np.array(flop, float), torch.stack(values).numpy())


def _gain(line: Line, priors: Sequence[Line]) -> Curve | None:
    """With the prior that has most of its budgets; None where none has two."""
    prior = max(priors, key=lambda prior: len(prior.runs.keys() & line.runs.keys()), default=None)
    return _curve(line, prior) if prior and len(prior.runs.keys() & line.runs.keys()) > 1 else None


def section(budgets: Budgets) -> Section:
    panels = {NCE: list(budgets.nce.values())}
    panels |= {INFORMATION: list(budgets.information.values())} if budgets.information else {}
    named = [(f"NCE of {curve.name}" if curve.name != P_X else "log p(x)", curve) for curve in panels[NCE]]
    named += [(f"The estimate of I(x; {curve.name})", curve) for curve in panels.get(INFORMATION, [])]
    less = ", and less log p(x) at the same budget," if budgets.information else ""
    words = (
        f"{budgets.name}: NCE{less} against the FLOP of training; bars of one standard error, most of which the points "
        f"share, as they are of the same images. Dashed is the power law, dotted its limit, in a band that is its 95 % "
        f"interval, as far as there is room for it."
    )
    rows = [row for name, curve in named for row in _rows(name, curve)]
    header = ["estimate", "images seen", "FLOP", "mean, nats", "less that at the budget before, paired"]
    sentences = [
        f"{name} {_verdict(curve)} {_limit(curve) if k < len(panels[NCE]) else _of_estimate(curve)}".strip()
        for k, (name, curve) in enumerate(named)
    ]
    parts: list[Part] = [*WORDS, Picture(words, over_budgets(panels)), *sentences]
    return Section(f"{budgets.name}: NCE against budget", [*parts, Table("By budget.", header, rows)])


def _rows(name: str, curve: Curve) -> list[list[str]]:
    means = [number(mean, error) for mean, error in zip(curve.means, curve.errors, strict=True)]
    steps = [torch.from_numpy(values) for values in curve.values]
    changes = [NONE, *(with_interval(paired_difference(b, a)) for a, b in pairwise(steps))]
    return [
        [name, str(images), f"{flop:.2e}", mean, change]
        for images, flop, mean, change in zip(curve.images, curve.flop, means, changes, strict=True)
    ]


def _verdict(curve: Curve) -> str:
    if curve.before is None or curve.change is None:
        return "has no run of a quarter of its largest budget, so that nothing is said of whether it has settled."
    change, error = curve.change
    over = f"over the last factor of {curve.images[-1] / curve.images[curve.before]:.1f}"
    if math.isnan(error):
        return f"has no error, as one image was tested: {over} it changed by {change:+.2f} nats."
    changed, of_mean = f"{change:+.2f} ± {error:.2f} nats, paired", f"its error over images, {curve.errors[-1]:.2f}"
    if curve.verdict == "settled":
        return f"has settled: {over} it changed by {changed}, less than {of_mean}."
    if curve.verdict == "still moving":
        return f"is still moving: {over} it changed by {changed}, more than {of_mean}."
    return f"is within {of_mean}, and still moving by {changed}, {over}."


def _limit(curve: Curve, log_prob: bool = True) -> str:
    """Of its power law; nothing of too few budgets."""
    law = curve.law
    if law is None:
        return "Of fewer than three budgets there is no fit."
    ends = [f"{end:.2f}" if math.isfinite(end) else f"{'-' if end < 0 else ''}infinity" for end in (law.low, law.high)]
    interval = f"95 % interval {ends[0]} to {ends[1]}"
    if law.limit is None:
        return f"The fit does not bend: it is a line over ln C, or steeper, which has no limit ({interval})."
    off = abs(law.residuals).max()
    found = f"The power law goes to {law.limit:.2f} nats ({interval}), by C^-{law.exponent:.2f}, and misses no mean by "
    found += f"more than {off:.2f}."
    if law.misfits:
        found += (
            " That is more than twice what other test images would make of it: it is no power law over all these "
            "budgets, and the limit says little."
        )
    if log_prob and law.limit > 0:
        found += " No log-probability of pixels is above 0: the law cannot hold so far."
    return found


def _of_estimate(curve: Curve) -> str:
    """Of I(x; h): its power law, and why it may fall."""
    change, error = curve.change or (math.nan, math.nan)
    falls = (
        " It falls, as p(x) gains more than p(x | h) does, which is so where h of the training images is learnt by "
        "heart: more images help, and of a vector companions (--model.density.companions, --model.warp)."
    )
    return _limit(curve, log_prob=False) + (falls if change < -2 * error else "")


def said(verdict: Verdict | None) -> str:
    """In a table."""
    return verdict or NONE
