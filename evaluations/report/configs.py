"""Which configs and checkpoints are the numbers of?"""

from collections.abc import Sequence

from evaluations.report.page import Folded, Section
from evaluations.report.tested_runs import AnyRun


def section(runs: Sequence[AnyRun]) -> Section:
    folded = [
        Folded(
            f"{run.folder}: commit {run.result.commit or 'unknown'}, checkpoint {run.result.checkpoint}",
            run.config() or "no config beside it",
        )
        for run in runs
    ]
    return Section("Configs", folded)
