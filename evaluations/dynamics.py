"""What the layers hold in the course of a classifier's training (Nash et al. 2019, fig 5b)."""

from collections.abc import Iterable
from itertools import combinations, pairwise

from evaluations.cells import NONE, estimate, number
from evaluations.charts import training_dynamics
from evaluations.data_sets import OVER_TRAINING, nce_difference, place
from evaluations.html import Part, Picture, Section, Table
from evaluations.information import is_rise
from evaluations.runs import Run

Dynamics = dict[str, dict[str, dict[int, Run]]]  # by kind of training, layer and number of the classifier's updates


def over_training(runs: Iterable[Run]) -> dict[str, Dynamics]:
    """The inverters of classifiers in the course of their training (Nash et al. 2019, fig 5b), by data set.

    Of several runs of the same the one in the outermost folder is taken.
    """
    found: dict[str, Dynamics] = {}
    chosen = [run for run in runs if run.row.get("kind") == "inverter" and run.row["density"] != "MSEDecoder"]
    for run in sorted(chosen, key=place):
        row = run.row
        if str(row["classifier"]).endswith(OVER_TRAINING):
            kind = "overfitted" if row["classifier"].endswith("_overfitted") else "regular"
            points = found.setdefault(row["dataset"], {}).setdefault(kind, {}).setdefault(row["layer"], {})
            points.setdefault(row["classifier_updates"], run)
    return {name: dict(sorted(kinds.items(), reverse=True)) for name, kinds in found.items()}  # regular first


def dynamics(name: str, kinds: Dynamics, p_x: Run | None) -> Section:
    """NCE over the classifier's training, with paired differences along it, across it and to nothing, p(x)."""
    lines = {(kind, layer): points for kind, layers in kinds.items() for layer, points in layers.items()}
    rows, pairs, below = [], [], False
    for (kind, layer), points in lines.items():
        for updates, run in sorted(points.items()):
            above = nce_difference(run, p_x) if p_x else None
            below |= above is not None and above.mean < -2 * above.standard_error
            value = number(run.row["nce_nats"], run.row["nce_nats_se"])
            rows.append([f"{kind}, {layer}", str(updates), value, estimate(above) if above else NONE])
        for earlier, later in pairwise(sorted(points)):
            pairs.append((f"{kind}, {layer}: {later} less {earlier} updates", points[later], points[earlier]))
    for (kind, layer), points in lines.items():
        regular = lines.get(("regular", layer), {}) if kind == "overfitted" else {}
        for updates in sorted(points.keys() & regular.keys()):
            pairs.append((f"{layer}, {updates} updates: overfitted less regular", points[updates], regular[updates]))
    rises = [
        f"{kind}, {n} updates: {later} above {earlier} by {estimate(found)}"
        for kind, layers in kinds.items()
        for earlier, later in combinations(layers, 2)  # from the input to the output
        for n in sorted(layers[earlier].keys() & layers[later].keys())
        if layers[earlier][n].row["network_digest"] == layers[later][n].row["network_digest"]
        and (found := nce_difference(layers[later][n], layers[earlier][n]))
        and is_rise(found)
    ]
    differences = [[words, estimate(found)] for words, run, less in pairs if (found := nce_difference(run, less))]
    values = {
        kind: {
            layer: {n: (run.row["nce_nats"], run.row["nce_nats_se"]) for n, run in points.items()}
            for layer, points in layers.items()
        }
        for kind, layers in kinds.items()
    }
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
