"""Is the measured NCE right where the truth is known?"""

from collections.abc import Sequence

from evaluations.report.cells import nce, number
from evaluations.report.page import Section, Table
from evaluations.report.tested_runs import AnyRun, inverters


def section(runs: Sequence[AnyRun]) -> Section | None:
    rows = []
    for result in (run.result for run in inverters(runs)):
        if world := result.world:
            verdict = "passes" if world.passes else "fails"
            must = "fail" if world.must_fail else "pass"
            verdict += ", as it must" if world.passes != world.must_fail else f", but must {must}"
            rows.append([
                result.name, number(world.entropy_nats, digits=3), number(world.exact_nce_nats, digits=3),
                nce(result, digits=3), number(world.excess_nats, world.excess_nats_se, digits=3),
                number(0.02 * world.entropy_nats, digits=3), verdict,
            ])  # fmt: skip
    if not rows:
        return None
    header = ["world", "H(x)", "exact NCE", "measured NCE", "excess", "allowed", "verdict"]
    words = (
        "Worlds where log p(x | h) of every image is known exactly. The excess is the mean of exact less measured "
        "log-probability over the same test images. Above 2 % of H(x) the model is too weak; more than 4 standard "
        "errors below 0 it knows what it cannot, a leak. A negative control, where h belongs to another image when it "
        "is tested, and the exact NCE is that of the image's own h, must fail."
    )
    return Section("Does the estimator tell the truth?", [words, Table("Known against measured, nats.", header, rows)])
