"""When, on what and at which cost was it measured?"""

import re
from collections.abc import Sequence

from evaluations.report.cells import NONE
from evaluations.report.page import Section, Table
from evaluations.report.tested_runs import AnyRun
from evaluations.results import InverterResult
from evaluations.run_order import record_of

CAPTION = "Of the runs."
HEADER = ["run", "began", "commit", "images seen", "FLOP of training", "versions", "machine"]


def section(runs: Sequence[AnyRun]) -> Section:
    words = (
        "When each training began, the code it was tested with, the images that training saw, each as often as it did, "
        "and the FLOP of the density's forward and backward passes; a dash where it was not recorded."
    )
    return Section("When, where, at what cost", [words, Table(CAPTION, HEADER, list(map(_row, runs)))])


def _row(run: AnyRun) -> list[str]:
    result, record = run.result, record_of(run.run_folder)
    images, flop = None, None
    if isinstance(result, InverterResult):
        images, flop = result.training_images, result.training_flop
    day = re.match(r"(\d{4}-\d\d-\d\d)_(\d\d)-(\d\d)", run.run_folder.name)
    versions = record and record.versions and ", ".join(f"{name} {its}" for name, its in record.versions.items())
    return [
        result.name, f"{day[1]} {day[2]}:{day[3]}" if day else NONE, (result.commit or NONE)[:12],
        f"{images}" if images else NONE, f"{flop:.2e}" if flop else NONE,
        versions or NONE, (record and record.machine) or NONE,
    ]  # fmt: skip
