"""What came of further runs of the same layers, as a sweep leaves them?"""

from evaluations.report.cells import nce, share, with_interval
from evaluations.report.groups import Group, nce_difference
from evaluations.report.page import Section, Table


def section(group: Group) -> Section | None:
    rows = [
        [str(run.folder), nce(run.result), share(run.result.class_agreement, run.result.num_samples),
         with_interval(nce_difference(run, first)), str(first.folder)]
        for run, first in group.others
    ]  # fmt: skip
    if not rows:
        return None
    words = (
        "Further runs of what the sections above show, as of a sweep: NCE beside that of the run which is shown there."
    )
    header = ["run", "NCE, nats", "class agreement", "difference, paired", "from the run"]
    return Section(f"{group.name}: other settings", [words, Table("Other settings.", header, rows)])
