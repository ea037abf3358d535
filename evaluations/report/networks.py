"""Which network of one data set keeps more, by a layer that is inverted in several (Nash et al. 2019, section 5.2)?"""

from evaluations.charts import nce_differences
from evaluations.report.cells import nce, notes, number, with_interval
from evaluations.report.groups import Group, nce_difference
from evaluations.report.page import Part, Picture, Section, Table
from evaluations.report.tested_runs import InverterRun


def section(group: Group) -> Section | None:
    layers: dict[str, dict[str, InverterRun]] = {}
    for run in map(group.inverters.__getitem__, group.log_probs):
        seen = f", seen at {run.result.seen_at}" if run.result.seen_at else ""
        layers.setdefault(str(run.result.layer), {})[f"{group.called(run)}{seen}"] = run
    parts = [part for layer, runs in layers.items() if len(runs) > 1 for part in _compared(layer, runs)]
    return Section(f"{group.name}: networks", parts) if parts else None


def _compared(layer: str, runs: dict[str, InverterRun]) -> list[Part]:
    """The networks beside the one with the highest NCE."""
    reference = max(runs, key=lambda name: runs[name].log_prob.mean().item())
    published = {name: run.result.published.nce_nats for name, run in runs.items()}
    best = published[reference]
    theirs = {name: value - best for name, value in published.items() if value is not None and best is not None}
    values = {name: nce_difference(run, runs[reference]) for name, run in runs.items() if name != reference}
    rows = [
        [name, nce(run.result), number(published[name]), with_interval(values.get(name))]
        for name, run in runs.items()
    ]  # fmt: skip
    header = ["classifier", f"NCE of {layer}, nats", "the paper's", f"less that of {reference}"]
    chart = nce_differences({name: value for name, value in values.items() if value}, theirs, reference)
    remarks = notes(run.result for run in runs.values())
    return [
        Table(f"Networks by their {layer} (the paper's section 5.2).", header, rows),
        *(f"{remark} Only differences can be compared with the paper's." for remark in remarks),
        Picture(f"Differences of NCE of {layer}, nats.", chart),
    ]
