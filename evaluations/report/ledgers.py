"""What do the layers keep of what is known of the images?"""

import math
from collections.abc import Sequence

from evaluations.charts import ledger_chart
from evaluations.report.cells import number
from evaluations.report.page import Part, Picture, Section, Table
from evaluations.report.tested_runs import AnyRun
from evaluations.results import InverterResult, LedgerResult

WORDS = (
    "A probe is trained to tell an attribute from h, on images of training; what it gains over a guess without h, in "
    "nats on the test images, is a lower bound of what the layer keeps of it, I(a; h), but for the error of these "
    "images. It proves that so much can be read. What is not found may still be there, for another probe. Attributes "
    "may depend on one another, so that these do not add up; of numbers that are not counted, it is told of bins."
)


def section(runs: Sequence[AnyRun]) -> Section | None:
    found = [(run, [one for one in run.rows(LedgerResult) if one.is_of(run.result)]) for run in runs]
    rows = [one for _, its in found for one in its]
    if not rows:
        return None
    header = ["layer", "attribute", "kept, nats", "of, nats", "share, %", "values", "images"]
    cells = [
        [f"{one.name} {one.layer}", one.attribute, number(one.kept_nats, one.kept_nats_se), number(one.entropy_nats),
         number(100 * one.kept_nats / one.entropy_nats if one.entropy_nats else math.nan, digits=0),
         str(one.num_values), str(one.num_images)]
        for one in rows
    ]  # fmt: skip
    bars: dict[str, dict[str, tuple[float, float, float]]] = {}
    for one in rows:
        kept = one.kept_nats, one.kept_nats_se, one.entropy_nats
        bars.setdefault(one.attribute, {})[f"{one.name} {one.layer}"] = kept
    parts: list[Part] = [WORDS, Table("What is kept of each attribute, at least.", header, cells)]
    parts.append(Picture("Kept, of what there is to keep: nats, bars of one standard error.", ledger_chart(bars)))
    return Section("A ledger by attribute", [*parts, *_rest(found)])


def _rest(found: Sequence[tuple[AnyRun, Sequence[LedgerResult]]]) -> list[Part]:
    """What else of x the layer keeps, where there is p(x)."""
    p_x = {
        (run.result.dataset, run.result.pictures_digest): run
        for run, _ in found
        if isinstance(run.result, InverterResult) and run.result.layer is None and run.result.nce_nats is not None
    }
    rows = []
    for run, its in found:
        result = run.result
        if not isinstance(result, InverterResult) or result.nce_nats is None:
            continue
        prior = p_x.get((result.dataset, result.pictures_digest))
        if prior is None or prior.index.tolist() != run.index.tolist():
            continue
        gain = run.log_prob - prior.log_prob
        mean, error = float(gain.mean()), float(gain.std() / math.sqrt(len(gain)))
        for one in its:
            if one.layer == result.layer:
                both = math.hypot(error, one.kept_nats_se)
                cells = number(mean, error), number(one.kept_nats, one.kept_nats_se), number(mean - one.kept_nats, both)
                rows.append([f"{one.name} {one.layer}", one.attribute, *cells])
    if not rows:
        return []
    words = (
        "I(x; h) = I(a; h) + I(x; h | a): the rest is what h tells of x to one who knows a. It is an estimate less a "
        "bound, and neither bounds it. The two errors are taken for independent."
    )
    return [Table(words, ["layer", "attribute a", "estimate of I(x; h)", "I(a; h) at least", "rest"], rows)]
