"""Is the measured NCE, and the information, right where the truth is known?"""

from collections.abc import Sequence

from evaluations.charts import world_errors
from evaluations.report.cells import nce, number
from evaluations.report.groups import nce_difference
from evaluations.report.page import Part, Picture, Section, Table
from evaluations.report.tested_runs import AnyRun, InverterRun, inverters
from evaluations.results import WorldResult

NO_P_X = "no p(x) of the same images"


def section(runs: Sequence[AnyRun]) -> Section | None:
    worlds = [(run, world) for run in inverters(runs) if (world := run.result.world)]
    parts = [*_log_probs(worlds), *_information(worlds)]
    return Section("Does the estimator tell the truth?", parts) if parts else None


def _log_probs(worlds: Sequence[tuple[InverterRun, WorldResult]]) -> list[Part]:
    rows = []
    for result, world in ((run.result, world) for run, world in worlds if world.passes is not None):
        verdict = "passes" if world.passes else "fails"
        must = "fail" if world.must_fail else "pass"
        verdict += ", as it must" if world.passes != world.must_fail else f", but must {must}"
        rows.append([
            result.name, number(world.entropy_nats, digits=3), number(world.exact_nce_nats, digits=3),
            nce(result, digits=3), number(world.excess_nats, world.excess_nats_se, digits=3),
            number(0.02 * world.entropy_nats, digits=3), verdict,
        ])  # fmt: skip
    if not rows:
        return []
    header = ["world", "H(x)", "exact NCE", "measured NCE", "excess", "allowed", "verdict"]
    words = (
        "Worlds where log p(x | h) of every image is known exactly. The excess is the mean of exact less measured "
        "log-probability over the same test images. Above 2 % of H(x) the model is too weak; more than 4 standard "
        "errors below 0 it knows what it cannot, a leak. A negative control, where h belongs to another image when it "
        "is tested, and the exact NCE is that of the image's own h, must fail."
    )
    return [words, Table("Known against measured, nats.", header, rows)]


def _information(worlds: Sequence[tuple[InverterRun, WorldResult]]) -> list[Part]:
    """I(x; h) beside NCE less that of p(x), or, where H(x) is known and there is no p(x), NCE plus H(x)."""
    rows: list[list[str]] = []
    points: dict[str, list[tuple[float, float, float]]] = {}
    unconditional = [run for run, _ in worlds if run.result.layer is None]
    for run, world in worlds:
        truth, name, measured = world.information_nats, run.result.name, run.result.nce_nats
        if truth is None or run.result.layer is None or measured is None:
            continue
        same = (prior for prior in unconditional if prior.result.dataset == run.result.dataset)
        found = next((gain for prior in same if (gain := nce_difference(run, prior))), None)
        if found:
            estimate, error, of = found.mean, found.standard_error, "NCE less that of p(x)"
        elif world.passes is not None:
            estimate, error = measured + world.entropy_nats, run.result.nce_nats_se or 0.0
            of = "NCE plus H(x)"
        else:
            rows.append([name, number(truth, digits=3), NO_P_X, *["\N{EN DASH}"] * 2])
            continue
        points.setdefault(name, []).append((truth, estimate - truth, error))
        off = f"{estimate - truth:+.3f}"
        rows.append([name, number(truth, digits=3), of, number(estimate, error, digits=3), off])
    if not rows:
        return []
    words = (
        "The information itself, where it is known, beside its estimate. NCE plus H(x) is a lower bound, up to the "
        "error of the mean; NCE less that of an unconditional run on the same images is none, as a poor p(x) inflates "
        "it. Where H(x) is not known, as of real digits, only this difference can be compared."
    )
    header = ["world", "I(x; h)", "estimated as", "estimate", "off by"]
    parts: list[Part] = [words, Table("Known information against estimated, nats.", header, rows)]
    if points:
        parts.append(
            Picture("Estimate less truth against the true I(x; h), with standard errors.", world_errors(points))
        )
    return parts
