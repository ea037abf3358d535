"""How good are the classifiers whose layers are inverted?"""

from collections.abc import Sequence

from evaluations.report.cells import notes, number, share
from evaluations.report.page import Section, Table
from evaluations.report.tested_runs import AnyRun


def section(runs: Sequence[AnyRun]) -> Section | None:
    results = [run.result for run in runs if run.result.kind == "classifier"]
    if not results:
        return None
    rows = [
        [
            result.name, result.dataset, str(result.network), str(result.num_images),
            share(result.accuracy, result.num_images, percent=True), number(result.published.accuracy, digits=1),
        ]
        for result in results
    ]  # fmt: skip
    header = ["classifier", "data", "network", "test images", "accuracy, %", "the paper's"]
    table = Table("Accuracy of the classifiers whose layers are inverted.", header, rows)
    return Section("Classifiers", [table, *notes(results)])
