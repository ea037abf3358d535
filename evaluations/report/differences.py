"""How do two networks, or two layers of one, differ?"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from evaluations.difference import Nats
from evaluations.difference_figures import figures
from evaluations.difference_result import DifferenceResult
from evaluations.report.cells import NONE, number
from evaluations.report.groups import images_of
from evaluations.report.maps import MOST_BYTES, explorable, pictures
from evaluations.report.page import Explorer, Part, Picture, Section, Table
from evaluations.report.tested_runs import AnyRun, InverterRun, inverters

WORDS = (
    "Two models of the same images. The difference of log p(x | h) is paired, on test images. The KL divergence is how "
    "much less likely one finds the other's draws than the other does, each with its own h of the same image: it is of "
    "the two models, whatever they are worth, and at least 0 but for its error. Where the second layer is a function "
    "of the first and both models are exact, the divergence of the first from the second and the difference are one "
    "number, the information that is lost between the layers; that they are not says how far the models are from the "
    "data. The divergence of the second from the first says how firmly the first rules out what the second allows: it "
    "is no information, and infinite for exact models of a network without noise. A calibrated model finds its own "
    "draws as likely as the images. Matched are two images with their two representations: nothing here proves that "
    "what is not told apart cannot be."
)


def section(runs: Sequence[AnyRun]) -> Section | None:
    found = list(of_tests(inverters(runs)))
    if not found:
        return None
    pairs, draws = [], []
    for one, _ in found:
        a, b = one.a, one.b
        interval = f"{_told(one.log_prob)} [{one.log_prob.low:.2f}, {one.log_prob.high:.2f}]"
        shares = [f"{100 * side.share_matched:.1f} % by {side.called}" for side in (a, b)]
        of = {"b of a": f"{b.called} of {a.called}", "a of b": f"{a.called} of {b.called}"}.get(str(one.function), NONE)
        pairs.append([f"{b.called} less {a.called}", str(one.num_tested), interval, of, "; ".join(shares)])
        for its, by in ((a, b), (b, a)):
            near = NONE if its.alike is None else f"{100 * its.alike:.1f}"
            draws.append([
                f"{its.called}, scored by {by.called}", f"{one.num_images} x {one.num_draws}", _told(its.divergence),
                _told(by.draws_less_own), _told(by.own_draws_less), near, number(its.alike_by_other),
            ])  # fmt: skip
    parts: list[Part] = [
        WORDS,
        Table(
            "The same images under both, nats an image.",
            ["runs", "images", "difference of log p(x | h)", "a function", "pairs matched"], pairs,
        ),
        Table(
            "Draws of one under the other, nats an image; distances in h are over that of the nearest training image.",
            [
                "draws of", "images x draws", "less likely than by who drew: KL", "less likely than the images",
                "the scorer's own draws, likewise", "no farther than 1 by their own h, %",
                "and these by the other's h, mean",
            ], draws,
        ),
    ]  # fmt: skip
    for one, arrays in found:
        told = f"{one.dataset}: {one.b.called} less {one.a.called}."
        made = {name: Picture(f"{told} {words}", figure) for name, (words, figure) in figures(one, arrays).items()}
        explorer = _explorer(one, inverters(runs), made.get("map"), MOST_BYTES // len(found))
        parts += [explorer if explorer and name == "map" else picture for name, picture in made.items()]
    return Section("Two networks, two layers", parts)


def _explorer(one: DifferenceResult, runs: Sequence[InverterRun], still: Picture | None, most: int) -> Explorer | None:
    """The difference at each pixel of each test image; None where two tests have not left what it is of."""
    both = [next(run for run in runs if its(run.result)) for its in (one.is_from, one.is_of)]
    kept = [run.log_prob_per_pixel for run in both]
    if still is None or kept[0] is None or kept[1] is None or images_of(both[0]) != images_of(both[1]):
        return None
    maps = kept[1].astype(np.float64) - kept[0].astype(np.float64)
    name, red_and_blue = (
        f"{one.b.called} less {one.a.called}",
        f"Red is where {one.b.called} has more nats, blue where fewer",
    )
    data = explorable({name: maps}, pictures(both), both[0].index, red_and_blue, most)
    return Explorer(data, [still])


def of_tests(runs: Sequence[InverterRun]) -> Iterator[tuple[DifferenceResult, Mapping[str, np.ndarray]]]:
    """Those of two runs in the report, of the weights that were tested, with their arrays."""
    for run in runs:
        for one, arrays in run.differences():
            known = any(one.is_from(other.result) for other in runs)
            if known and one.is_of(run.result) and arrays is not None:
                yield one, arrays


def _told(nats: Nats) -> str:
    return "\N{INFINITY}" if nats.mean is None else number(nats.mean, nats.standard_error)
