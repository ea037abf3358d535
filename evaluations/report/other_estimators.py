"""What do other estimators say of the same layers?"""

from collections.abc import Sequence

from evaluations.charts import breakdown_chart
from evaluations.estimators import Breakdown, breaks_down_at
from evaluations.measurements import EstimatorResult
from evaluations.report.cells import number
from evaluations.report.groups import Group
from evaluations.report.page import Part, Picture, Section, Table


def section(groups: Sequence[Group], breakdown_rows: Sequence[Breakdown]) -> Section | None:
    rows = [
        [f"{group.name} {label}", found.estimator, str(found.num_images), number(found.estimate_nats),
         number(found.ceiling_nats)]
        for group in groups for label, run in group.inverters.items() for found in run.measured(EstimatorResult)
    ]  # fmt: skip
    if not rows:
        return None
    words = (
        "Binning and the kernel density bounds say how well h tells which of these images it is of, and cannot exceed "
        "the logarithm of their number, whatever the layer keeps of images at large. The k-nearest-neighbour estimate "
        "is a differential entropy of h, and depends on its scale; a layer of ReLU units has none, for they are 0 for "
        "many images, and the number then only says how far apart the images lie. None of them says what of x is kept."
    )
    header = ["layer", "estimator", "images", "estimate", "ceiling"]
    parts: list[Part] = [words, Table("Of the same layers, nats.", header, rows)]
    if breakdown_rows:
        found = {row.estimator: breaks_down_at(breakdown_rows, row.estimator) for row in breakdown_rows}
        limits = [f"{k} {f'from {at} dimensions on' if at else 'in none that was tried'}" for k, at in found.items()]
        words = (
            f"Estimate less truth, with the same settings, for {breakdown_rows[0].num_samples} samples of independent "
            f"normal variables, where the truth is known, against their number. The error is more than a nat for "
            f"{', for '.join(limits)}. Binning and both kernel density bounds, the upper one too, then say the "
            f"logarithm of the number of samples."
        )
        parts.append(Picture(words, breakdown_chart(breakdown_rows)))
    return Section("Other estimators", parts)
