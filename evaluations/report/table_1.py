"""How near do samples come in the layer's space, beside the nearest training image?"""

from collections.abc import Sequence

from evaluations.charts import table1_ratios
from evaluations.measurements import DistancesResult
from evaluations.report.cells import NONE, number, share
from evaluations.report.groups import Group
from evaluations.report.page import Picture, Section, Table


def section(groups: Sequence[Group]) -> Section | None:
    rows = []
    measured: dict[str, dict[str, dict[str, tuple[float, float, float | None]]]] = {}
    notes: dict[str, str] = {}
    for group in groups:
        for label, run in group.inverters.items():
            for found in run.measured(DistancesResult):
                paper = run.result.published
                ratios = {
                    "IM-S / 1NN": (found.im_s_ratio, found.im_s_ratio_se, paper.im_s_ratio),
                    "IM-NN / 1NN": (found.im_nn_ratio, found.im_nn_ratio_se, paper.im_nn_ratio),
                }
                measured.setdefault(group.name, {})[label] = ratios
                theirs = [f"{value:.3f}" for *_, value in ratios.values() if value is not None]
                if theirs and paper.note:
                    notes[group.name] = paper.note
                rows.append([
                    f"{group.name} {label}", f"{found.num_images} x {found.num_samples}",
                    f"{found.one_nn:.4g} ± {found.one_nn_se:.2g}", f"{found.im_s:.4g} ± {found.im_s_se:.2g}",
                    f"{found.im_nn:.4g} ± {found.im_nn_se:.2g}",
                    *(number(value, error, digits=3) for value, error, _ in ratios.values()),
                    " / ".join(theirs) or NONE, share(found.class_agreement, found.num_images),
                ])  # fmt: skip
    if not rows:
        return None
    words = (
        "How far samples are from their input in the layer's own space, beside the nearest of all training images: the "
        "mean absolute difference per unit. 1NN is the nearest training image, IM-S a sample, IM-NN the nearest of an "
        "image's samples. The scale of a layer is arbitrary; the ratios to 1NN are free of it. Below 1 a sample looks "
        "more like the input, to the layer, than any training image does. The interval of class agreement is "
        "that of one sample an image, as the samples of one image are not independent."
    )
    header = [
        "layer", "images x samples", "1NN", "IM-S", "IM-NN", "IM-S / 1NN", "IM-NN / 1NN", "the paper's",
        "class agreement",
    ]  # fmt: skip
    remarks = [
        f"The paper's ratios beside {name} are {note}: they show the order of layers, and need not agree."
        for name, note in notes.items()
    ]
    table = Table("Distances in the layer's space (the paper's table 1).", header, rows)
    picture = Picture("The ratios, bars of one standard error.", table1_ratios(measured))
    return Section("Distances in the layer's space", [words, table, *remarks, picture])
