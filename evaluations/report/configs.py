"""Which configs and checkpoints are the numbers of?"""

from collections.abc import Sequence

from evaluations.report.page import Folded, Section
from evaluations.report.tested_runs import AnyRun


def section(runs: Sequence[AnyRun]) -> Section:
    folded = []
    for run in runs:
        words = f"{run.folder}: commit {run.result.commit or 'unknown'}, checkpoint {run.result.checkpoint}"
        folded.append(Folded(words, run.config() or "no config beside it"))
    return Section("Configs", folded)
