"""What do the layers hold in the course of a classifier's training (Nash et al. 2019, fig 5b)?"""

from collections.abc import Iterable, Sequence
from itertools import combinations, pairwise

from evaluations.charts import training_dynamics
from evaluations.information import is_rise, mean_and_standard_error
from evaluations.report.cells import nce, with_interval
from evaluations.report.groups import Group, by_depth, is_function, nce_difference
from evaluations.report.page import Part, Picture, Section, Table
from evaluations.report.tested_runs import AnyRun, InverterRun, inverters

Line = dict[int, InverterRun]  # by the number of the classifier's updates


def sections_by_data_set(runs: Iterable[AnyRun], groups: Sequence[Group]) -> list[Section]:
    """One of each data set; of several runs of the same the one in the outermost folder is taken."""
    found: dict[str, dict[tuple[str, str], Line]] = {}
    for run in sorted(inverters(runs), key=by_depth):
        result = run.result
        if result.course and result.nce_nats is not None and not result.point_estimate:
            line = found.setdefault(result.dataset, {}).setdefault((result.course, str(result.layer)), {})
            line.setdefault(result.classifier_updates or 0, run)
    p_x = {group.name: group.unconditional for group in groups}
    return [_section(name, lines, p_x.get(name)) for name, lines in found.items()]


def _section(name: str, lines: dict[tuple[str, str], Line], p_x: InverterRun | None) -> Section:
    """NCE over the classifier's training, with paired differences along it, across it and to nothing, p(x).

    Lines are by course and layer, from the input to the output.
    """
    lines = dict(sorted(lines.items(), key=lambda item: item[0][0], reverse=True))  # the regular course first
    rows, pairs, below = [], [], False
    values: dict[str, dict[str, dict[int, tuple[float, float]]]] = {}
    for (course, layer), line in lines.items():
        for updates, run in sorted(line.items()):
            above = nce_difference(run, p_x) if p_x else None
            below |= above is not None and above.mean < -2 * above.standard_error
            rows.append([f"{course}, {layer}", str(updates), nce(run.result), with_interval(above)])
        for earlier, later in pairwise(sorted(line)):
            pairs.append((f"{course}, {layer}: {later} less {earlier} updates", line[later], line[earlier]))
        values.setdefault(course, {})[layer] = {n: mean_and_standard_error(run.log_prob) for n, run in line.items()}
    for (course, layer), line in lines.items():
        regular = lines.get(("regular", layer), {}) if course == "overfitted" else {}
        for updates in sorted(line.keys() & regular.keys()):
            pairs.append((f"{layer}, {updates} updates: overfitted less regular", line[updates], regular[updates]))
    differences = [[words, with_interval(found)] for words, run, less in pairs if (found := nce_difference(run, less))]
    rises = [
        f"{course}, {n} updates: {later} above {earlier} by {with_interval(found)}"
        for ((course, earlier), before), ((other, later), after) in combinations(lines.items(), 2) if course == other
        for n in sorted(before.keys() & after.keys())
        if is_function(after[n].result, before[n].result)
        and (found := nce_difference(after[n], before[n])) and is_rise(found)
    ]  # fmt: skip
    parts: list[Part] = [
        "NCE of inverters of the classifier as it was after so many updates (the paper's fig 5b), regular and "
        "overfitted (100 training images, no dropout). The inverters were always trained on the full training set.",
        Picture(
            f"NCE of {name} against the number of the classifier's updates; bars of one standard error, most of which "
            f"the points share, as they are of the same images: the differences below have errors of their own.",
            training_dynamics(values),
        ),
        Table("NCE, nats.", ["classifier, layer", "updates", "NCE", "less that of p(x)"], rows),
    ]
    if differences:
        parts.append(Table("Differences of NCE, paired, nats.", ["classifier and layer", "difference"], differences))
    if below:
        parts.append(
            "Below 0 against p(x), an inverter says less of an image than a model that is told nothing: it is too weak "
            "or was not trained for long enough. Such points compare how fast inverters learn, not what layers hold."
        )
    if rises:
        parts.append(
            f"A layer cannot hold more than one that it is computed from, but NCE says so here, where the earlier "
            f"layer's inverter is too weak: {'; '.join(rises)} nats."
        )
    return Section(f"{name}: over the classifier's training", parts)
