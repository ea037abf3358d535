"""What is each way to invert a layer worth, beside the others, by the measures that all have?"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from evaluations.charts import diversity_over_weights
from evaluations.diversity import COLLAPSED
from evaluations.figures import layers_grid
from evaluations.measurements import ComparisonResult, Scores
from evaluations.report.arrays import checked
from evaluations.report.cells import NONE, number, share
from evaluations.report.groups import by_depth, what_is_seen
from evaluations.report.page import Part, Picture, Section, Table
from evaluations.report.tested_runs import AnyRun, InverterRun, inverters
from evaluations.trained_beside import second_classifier

Compared = tuple[InverterRun, ComparisonResult, dict[str, np.ndarray]]
NEAREST, INPUT = "nearest training image", "the input itself"
NUM_DRAWS = 3  # of each in the figure
WORDS = (
    "Ways to invert one layer of one network, on the same test images, by measures that need no likelihood. Of a point "
    "estimate what people are shown is compared, of all else draws. Distances in h are relative to that of the "
    "nearest training image, as in the paper's table 1. Agreement is the share that gets the class of the input: of "
    "the network that is inverted, and of a second classifier that nothing here was trained against, which an "
    "adversarial pattern does not deceive as easily. Diversity is the mean distance of two draws of one input over "
    "that of two true images of its class: 1 is as diverse as these, and near 0 all draws are one image. Squared "
    "error, PSNR and SSIM ask for the input's own pixels, and favour the mean of all images that h allows over each."
)
HEADER = [
    "way", "draws", "a draw / 1NN, in h", "nearest draw / 1NN, in h", "class agreement", "by a second classifier",
    "log p(x) less the input's, nats", "diversity, pixels", "diversity, h", "squared error", "PSNR, dB", "SSIM",
    "seconds a draw", "training, FLOP", "NCE, nats",
]  # fmt: skip


def section(runs: Sequence[AnyRun]) -> Section | None:
    parts: list[Part] = [part for those in side_by_side(runs) for part in _of_one_layer(those)]
    return Section("Every way to invert, side by side", [WORDS, *parts]) if parts else None


def side_by_side(runs: Iterable[AnyRun]) -> list[list[Compared]]:
    """What was compared, by the layer of one network and its test images, from the input to the output."""
    found: dict[tuple[Any, ...], list[Compared]] = {}
    for run in sorted(inverters(runs), key=by_depth):
        for row in run.measured(ComparisonResult):
            arrays = run.compared(row)
            if arrays is None:
                continue
            place = run.folder / "comparison.npz"
            checked(arrays, place, ("index", "inputs", "draws", "nearest"), N=row.num_images)
            its = run.result
            key = its.dataset, its.layer, *what_is_seen(its), its.tokens, its.pictures_digest
            found.setdefault((*key, tuple(arrays["index"].tolist())), []).append((run, row, arrays))
    return list(found.values())


def names_of(those: Sequence[Compared]) -> list[str]:
    """What each is called, for people: with its knob, its config or its folder where several are called the same."""
    ways: list[Callable[[InverterRun, ComparisonResult], str]] = [
        lambda run, row: row.called,
        lambda run, row: row.called + ("" if row.entropy_weight is None else f", entropy {row.entropy_weight:g}"),
        lambda run, row: f"{row.called}, {row.name}",
        lambda run, row: f"{row.called}, {run.folder}",
    ]
    names = [""] * len(those)
    for way in ways:
        alike = [names.count(name) > 1 or not name for name in names]
        names = [way(run, row) if again else name
                 for name, again, (run, row, _) in zip(names, alike, those, strict=True)]  # fmt: skip
    return names


def _of_one_layer(those: Sequence[Compared]) -> list[Part]:
    names, (run, row, arrays) = names_of(those), those[0]
    most = max((its.num_samples for _, its, _ in those if not its.point_estimate), default=0)
    rows = [
        [name, *_draws(its, most), f"{its.seconds_per_draw:.2g}", _training(one, its),
         number(one.result.nce_nats, one.result.nce_nats_se, 1)]
        for name, (one, its, _) in zip(names, those, strict=True)
    ]  # fmt: skip
    rows += [[name, NONE, *_cells(its, row), *[NONE] * 3] for name, its in ((NEAREST, row.nearest), (INPUT, row.input))]
    about = f"{run.result.dataset}, {row.layer}: {row.num_images} test images."
    columns = {NEAREST: arrays["nearest"][:, None]}
    columns |= {name: its["draws"][:, :NUM_DRAWS] for name, (_, _, its) in zip(names, those, strict=True)}
    words = f"{run.result.dataset}, {row.layer}: the same test images for all; of what is random several draws."
    return [
        Table(about, HEADER, rows), *_remarks(names, those), Picture(words, layers_grid(arrays["inputs"], columns)),
        *_over_weights(names, those),
    ]  # fmt: skip


def _draws(row: ComparisonResult, most: int) -> list[str]:
    """How many of each image, and their scores; of which the nearest gets nearer the more there are.

    So that is left out where another way has more; of a point estimate, whose draws are one, it is that of any number.
    """
    if row.point_estimate:
        return ["1", *_cells(row.own, row)]
    a_draw, nearest, *others = _cells(row.own, row)
    return [str(row.num_samples), a_draw, nearest if row.num_samples == most else NONE, *others]


def _cells(its: Scores, row: ComparisonResult) -> list[str]:
    """From the distance in h to SSIM."""
    psnr = number(its.psnr, its.psnr_se, 1) if its.psnr is not None else "\N{INFINITY}"
    collapsed = " (collapsed)" if its is row.own and row.collapsed else ""
    return [
        number(its.im_s_ratio, its.im_s_ratio_se, 3), number(its.im_nn_ratio, its.im_nn_ratio_se, 3),
        share(its.class_agreement, row.num_images, 3), share(its.judge_agreement, row.num_images, 3),
        number(its.log_prob_difference, its.log_prob_difference_se, 1),
        number(its.diversity, its.diversity_se, 3) + collapsed, number(its.diversity_in_h, its.diversity_in_h_se, 3),
        number(its.squared_error, its.squared_error_se, 4), psnr,
        NONE if math.isnan(its.ssim) else number(its.ssim, its.ssim_se, 3),
    ]  # fmt: skip


def _training(run: InverterRun, row: ComparisonResult) -> str:
    flop = run.result.training_flop if row.trained else 0
    return NONE if flop is None else f"{flop:.2g}"


def _remarks(names: Sequence[str], those: Sequence[Compared]) -> list[str]:
    """What a reader must know beside the numbers."""
    rows = {name: row for name, (_, row, _) in zip(names, those, strict=True)}
    kinds = {
        "Point estimates, of which what they show is compared": [n for n, row in rows.items() if row.point_estimate],
        "Given the image itself, and so more than h": [n for n, row in rows.items() if row.given_image],
        "Nothing was trained for": [n for n, row in rows.items() if not row.trained],
        f"Collapsed, as draws of one input differ by less than {COLLAPSED:.0%} of true images":
            [n for n, row in rows.items() if row.collapsed],
    }  # fmt: skip
    remarks = [f"{words}: {', '.join(those)}." for words, those in kinds.items() if those]
    timed = sorted({f"{row.device}, {row.num_threads} thread{'s' * (row.num_threads > 1)}" for row in rows.values()})
    remarks.append(f"Seconds a draw are those of the comparison itself ({'; '.join(timed)}).")
    remarks += _prior(rows) + _judge(rows)
    return remarks


def _prior(rows: Mapping[str, ComparisonResult]) -> list[str]:
    digests = {row.prior_digest for row in rows.values()}
    if digests == {None}:
        return [
            "There is no log p(x) without an unconditional model: train one (python cli.py configs unconditional lists "
            "their configs) and compare again, or give it by --prior."
        ]
    row = next(row for row in rows.values() if row.prior)
    spread = "" if row.input_log_prob_sd is None else (
        f" That of the inputs is {row.input_log_prob:.1f} on average, and of one of them within "
        f"{row.input_log_prob_sd:.1f} of that as a rule (standard deviation)."
    )  # fmt: skip
    words = (
        f"log p(x) is that of {row.prior}, which knows nothing of h.{spread} Far below 0 draws are nothing like the "
        f"data, as where their grey levels are none of its own; far above they are emptier or smoother than its "
        f"images, which a likelihood favours: near 0 is best, and not high."
    )
    return [words, *_mixed(digests, "unconditional models", "--prior")]


def _judge(rows: Mapping[str, ComparisonResult]) -> list[str]:
    digests = {row.judge_digest for row in rows.values()}
    if digests == {None} and any(row.own.class_agreement is not None for row in rows.values()):
        return [
            f"No second classifier has judged: train one from another seed ({second_classifier()}) and compare again, "
            f"or give it by --judge."
        ]
    return _mixed(digests, "second classifiers", "--judge")


def _mixed(digests: set[str | None], what: str, key: str) -> list[str]:
    """Where not all were judged by one and the same."""
    if len(digests) < 2:
        return []
    return [f"Not all rows are of the same {what}, so that these columns cannot be compared: give all the same {key}."]


def _over_weights(names: Sequence[str], those: Sequence[Compared]) -> list[Part]:
    """The paper's fig 3: diversity is what its weight says, where there are runs at several, and of p(x | h) one."""
    curves: dict[tuple[Any, ...], dict[float, tuple[float, float]]] = {}
    beside = {}
    for name, (run, row, _) in zip(names, those, strict=True):
        value, error = row.own.diversity, row.own.diversity_se
        if value is None or math.isnan(value):
            continue
        if row.entropy_weight is not None:
            others = [part for part in sorted(run.result.loss_weights.items()) if part[0] != "entropy"]
            curves.setdefault((row.called, row.name, *others), {})[row.entropy_weight] = value, error or 0.0
        elif run.result.nce_nats is not None and not row.point_estimate:
            beside[name] = value, error or 0.0
    parts: list[Part] = []
    for (called, config, *others), points in curves.items():
        if len(points) > 1:
            weights = "".join(f", {part} weight {weight:g}" for part, weight in others)
            words = (
                f"{called} ({config}{weights}): the diversity of its draws against the weight of its entropy loss, "
                f"which someone must choose; p(x | h) has no such weight, as the likelihood itself says how diverse "
                f"draws must be (the paper's fig 3). Bars and bands are of one standard error."
            )
            parts.append(Picture(words, diversity_over_weights(dict(sorted(points.items())), beside, called)))
    return parts
