"""How near do samples come in the layer's space, beside the nearest training image?"""

from collections.abc import Sequence

from evaluations.charts import table1_ratios
from evaluations.report.cells import NONE, number
from evaluations.report.groups import Group
from evaluations.report.page import Part, Picture, Section, Table
from evaluations.results import DistancesResult

IM_S, IM_NN = "IM-S / 1NN", "IM-NN / 1NN"


def section(groups: Sequence[Group]) -> Section | None:
    rows = []
    measured: dict[str, dict[str, dict[str, tuple[float, float]]]] = {}
    published: dict[str, dict[str, dict[str, float]]] = {}
    notes: dict[str, str] = {}
    for group in groups:
        for label, run in group.inverters.items():
            for found in run.measured(DistancesResult):
                ours = {
                    IM_S: (found.im_s_ratio, found.im_s_ratio_se),
                    IM_NN: (found.im_nn_ratio, found.im_nn_ratio_se),
                }
                paper = run.result.published
                known = {IM_S: paper.im_s_ratio, IM_NN: paper.im_nn_ratio}
                theirs = {name: value for name, value in known.items() if value is not None}
                measured.setdefault(group.name, {})[label] = ours
                published.setdefault(group.name, {})[label] = theirs
                if theirs and paper.note:
                    notes[group.name] = paper.note
                rows.append([
                    f"{group.name} {label}", f"{found.num_images} x {found.num_samples}",
                    f"{found.one_nn:.4g} ± {found.one_nn_se:.2g}", f"{found.im_s:.4g} ± {found.im_s_se:.2g}",
                    f"{found.im_nn:.4g} ± {found.im_nn_se:.2g}", *(number(*ratio, digits=3) for ratio in ours.values()),
                    " / ".join(f"{value:.3f}" for value in theirs.values()) or NONE,
                    number(found.class_agreement, found.class_agreement_se),
                ])  # fmt: skip
    if not rows:
        return None
    words = (
        "How far samples are from their input in the layer's own space, beside the nearest of all training images: the "
        "mean absolute difference per unit. 1NN is the nearest training image, IM-S a sample, IM-NN the nearest of an "
        "image's samples. The scale of a layer is arbitrary; the ratios to 1NN are free of it. Below 1 a sample looks "
        "more like the input, to the layer, than any training image does."
    )
    header = ["layer", "images x samples", "1NN", "IM-S", "IM-NN", IM_S, IM_NN, "the paper's", "class agreement"]
    parts: list[Part] = [words, Table("Distances in the layer's space (the paper's table 1).", header, rows)]
    parts += [
        f"The paper's ratios beside {name} are {note}: they show the order of layers, and need not agree."
        for name, note in notes.items()
    ]
    parts.append(Picture("The ratios, bars of one standard error.", table1_ratios(measured, published)))
    return Section("Distances in the layer's space", parts)
