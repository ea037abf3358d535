"""What do the layers keep of what is known of the images?"""

import math
from collections.abc import Sequence

from evaluations.charts import ledger_chart
from evaluations.information import information_estimate
from evaluations.measurements import LedgerResult
from evaluations.report.cells import number
from evaluations.report.groups import images_of
from evaluations.report.page import Part, Picture, Section, Table
from evaluations.report.tested_runs import AnyRun, inverters

WORDS = (
    "A probe is trained to tell an attribute from h, on images of training; what it gains over the shares that its "
    "values have among the test images, in nats on these, is a lower bound of what the layer keeps of it, I(a; h), but "
    "for the error of these images; behind a channel, of what arrives of h. It proves that so much can be read. What "
    "is not found may still be there, for another probe. Attributes may depend on one another, so that these do not "
    "add up; of numbers that are not counted, it is told of bins."
)


def section(runs: Sequence[AnyRun]) -> Section | None:
    rows = [one for run in runs for one in run.rows(LedgerResult) if one.is_of(run.result)]
    if not rows:
        return None
    header = ["layer", "attribute", "kept, nats", "of, nats", "share, %", "values", "images"]
    cells = [
        [one.called, one.attribute, number(one.kept_nats, one.kept_nats_se), number(one.entropy_nats),
         number(100 * one.kept_nats / one.entropy_nats if one.entropy_nats else math.nan, digits=0),
         str(one.num_values), str(one.num_images)]
        for one in rows
    ]  # fmt: skip
    bars: dict[str, dict[str, tuple[float, float, float]]] = {}
    for one in rows:
        kept = one.kept_nats, one.kept_nats_se, one.entropy_nats
        bars.setdefault(one.attribute, {})[one.called] = kept
    parts: list[Part] = [WORDS, Table("What is kept of each attribute, at least.", header, cells)]
    parts.append(Picture("Kept, of what there is to keep: nats, bars of one standard error.", ledger_chart(bars)))
    return Section("A ledger by attribute", [*parts, *_rest(runs)])


def _rest(runs: Sequence[AnyRun]) -> list[Part]:
    """What else of x the layer keeps, where there is p(x)."""
    asked = [run for run in inverters(runs) if run.result.nce_nats is not None]
    rows = []
    for run in asked:
        its = run.result
        p_x = [
            other
            for other in asked
            if other.result.layer is None and other.result.dataset == its.dataset and images_of(other) == images_of(run)
        ]
        if its.layer is None or not p_x:
            continue
        prior = max(p_x, key=lambda other: float(other.log_prob.mean()))  # the best: a poor one inflates it
        gain = information_estimate(run.log_prob, prior.log_prob)
        for one in run.measured(LedgerResult):
            if (one.layer, one.channel, one.rate) == (its.layer, its.channel, its.rate):
                both = math.hypot(gain.standard_error, one.kept_nats_se)
                cells = [number(gain.mean, gain.standard_error), number(one.kept_nats, one.kept_nats_se)]
                rows.append([one.called, one.attribute, *cells, number(gain.mean - one.kept_nats, both)])
    if not rows:
        return []
    words = (
        "I(x; h) = I(a; h) + I(x; h | a): the rest is what h tells of x to one who knows a. It is an estimate less a "
        "bound, and neither bounds it. The two errors are taken for independent."
    )
    return [Table(words, ["layer", "attribute a", "estimate of I(x; h)", "I(a; h) at least", "rest"], rows)]
