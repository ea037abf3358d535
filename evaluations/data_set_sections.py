"""The sections of a report on one data set."""

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from evaluations import paper
from evaluations.cells import NONE, estimate, number
from evaluations.charts import nce_differences
from evaluations.data_sets import DataSet, log_prob
from evaluations.figures import information_maps, layers_grid, nearest_grid
from evaluations.html import Part, Picture, Section, Table
from evaluations.information import (
    data_processing_rises,
    information_estimate,
    information_map,
    paired_difference,
    relative_nce,
)

NUM_MAPS = 4  # single images whose maps are shown


def what_is_kept(group: DataSet) -> Section | None:
    if not group.inverters and not group.unconditional:
        return None
    log_probs = {label: log_prob(run) for label, run in group.inverters.items()}
    p_x = log_prob(group.unconditional) if group.unconditional else None
    conv1 = log_probs.get("conv1")
    rows = []
    for label, run in group.inverters.items():
        row, decoder = run.row, group.decoders.get(label)
        relative = relative_nce(log_probs[label], conv1) if conv1 is not None else None
        rows.append(
            [
                label, str(row["num_images"]), number(row["nce_nats"], row["nce_nats_se"]),
                number(row["bits_per_dim"], digits=3),
                number(relative.mean, relative.standard_error, 3) if relative else NONE,
                estimate(information_estimate(log_probs[label], p_x)) if p_x is not None else NONE,
                number(row["shuffled_nce_nats"]),
                number(row["class_agreement"], row["class_agreement_se"]),
                number(decoder.row["nce_nats"], decoder.row["nce_nats_se"]) if decoder else NONE,
            ]
        )  # fmt: skip
    if group.unconditional:
        row = group.unconditional.row
        nce, bits = number(row["nce_nats"], row["nce_nats_se"]), number(row["bits_per_dim"], digits=3)
        rows.append(["nothing: p(x)", str(row["num_images"]), nce, bits, NONE, NONE, NONE, NONE, NONE])
    header = [
        "layer", "images", "NCE, nats", "bits/dim", "NCE / |NCE of conv1|", "estimate of I(x; h), nats",
        "NCE with other images' h", "class agreement", "NCE of the MSE decoder",
    ]  # fmt: skip
    parts: list[Part] = [Table(f"What the layers of {group.name} keep.", header, rows)]
    if not group.unconditional:
        parts.append("There is no estimate of I(x; h) without an unconditional model (configs/unconditional_*.yaml).")
    if group.left_out:
        parts.append(f"Left out, because tested on other images than these: {', '.join(group.left_out)}.")
    if group.one_network and len(log_probs) + (p_x is not None) > 1:
        parts += _steps(log_probs, p_x)
    if len(group.classifiers) < len(group.digests):
        parts.append(
            "Some of these inverters are of classifiers of one name and other weights, so that not every layer is a "
            "function of the one before it, and differences between layers are not given."
        )
    grid = _grid(group)
    if grid:
        parts.append(grid)
    return Section(f"{group.name}: what is kept", parts)


def _steps(log_probs: dict[str, Tensor], p_x: Tensor | None) -> list[Part]:
    """From layer to layer, and whether NCE rises where information cannot; nothing, p(x), is a function of any."""
    layers = list(log_probs)
    rows = [
        [f"{later} less {earlier}", estimate(paired_difference(log_probs[later], log_probs[earlier]))]
        for earlier, later in pairwise(layers)
    ]
    rises = data_processing_rises(log_probs | ({"nothing: p(x)": p_x} if p_x is not None else {}))
    words = "No layer's NCE is above that of a layer before it by more than 2 standard errors, as it should be."
    if rises:
        these = "; ".join(f"{r.later} above {r.earlier} by {estimate(r.difference)} nats" for r in rises)
        words = (
            f"A layer cannot hold more than a layer that it is computed from, nor nothing more than a layer, but NCE "
            f"says so here: {these}. The inverter of the earlier layer is too weak, or not trained for long enough."
        )
    return [*([Table("Differences of NCE, nats.", ["layers", "difference"], rows)] if rows else []), words]


def _grid(group: DataSet) -> Picture | None:
    """Fig 1: the inputs, then draws and the mean of the MSE decoder for every layer."""
    columns, inputs = {}, None
    for label, run in group.inverters.items():
        arrays = run.arrays("samples")
        if arrays is None or (inputs is not None and not np.array_equal(arrays["inputs"], inputs)):
            continue
        inputs = arrays["inputs"]
        columns[label] = arrays["draws"][:, :3]
        decoder = group.decoders.get(label)
        means = decoder.arrays("samples") if decoder else None
        if means is not None and np.array_equal(means["inputs"], inputs):
            columns[f"{label}, MSE"] = means["means"][:, None]
    if inputs is None:
        return None
    words = (
        "Test images, and draws from p(x | h) of every layer; beside them the mean of the decoder that is trained by "
        f"squared error. The noise is the same for all, so what differs is what the layers keep, and what each model, "
        f"trained by itself, has learnt of it (the paper's fig {'1' if group.one_network else '4'})."
    )
    return Picture(words, layers_grid(inputs, columns))


def neighbours(group: DataSet) -> Section | None:
    parts: list[Part] = []
    for label, run in group.inverters.items():
        arrays = run.arrays("nearest")
        if arrays is not None and run.measured("distances"):
            words = (
                f"{group.name}, {label}: the nearest of {int(arrays['num_samples'])} samples and the nearest training "
                f"images (the paper's fig 2); and of the samples that are as near, to the layer, as the nearest "
                f"training image, those that differ most from the input in pixels: what the layer is most blind to. "
                f"Fewer, or none, where no sample is so near. Below each image is its distance from the input: the "
                f"mean absolute difference per unit of {label}, or per pixel where pixels are compared."
            )
            parts.append(Picture(words, nearest_grid(arrays, label)))
    return Section(f"{group.name}: nearest, and most different", parts) if parts else None


def maps(group: DataSet) -> Section | None:
    without = group.unconditional.array("log_prob_per_pixel") if group.unconditional else None
    if without is None:
        return None
    parts: list[Part] = [
        "log p(x_i | x_<i, h) less log p(x_i | x_<i), in nats: what h adds at each pixel to the pixels before it, row "
        "by row. The mean map's sum is the estimate of I(x; h) exactly, by the chain rule; that of a single image's is "
        "what h adds to the log-probability of that image, which may be below 0, as any of its pixels may, even for an "
        "exact model. A mean below 0, beyond its error, is an inverter's weakness. The maps show where information "
        "enters in that order, not all that h knows of a pixel."
    ]
    for label, run in group.inverters.items():
        given, samples = run.array("log_prob_per_pixel"), run.arrays("samples")
        if given is None or samples is None:
            continue
        found = information_map(torch.from_numpy(given), torch.from_numpy(without)).numpy()
        images = samples["inputs"][:NUM_MAPS]
        mean = found.mean(0)
        words = f"{group.name}, {label}: mean over {len(found)} images, {mean.sum():.2f} nats in all; single images."
        parts.append(Picture(words, information_maps(mean, images, found[: len(images)], label)))
    return Section(f"{group.name}: where the information sits", parts) if len(parts) > 1 else None


def networks(group: DataSet) -> Section | None:
    """Section 5.2: several networks of one data set, by their fc3."""
    last = {run.row["classifier"]: run for run in group.inverters.values() if run.row["layer"] == "fc3"}
    if len(last) < 2:
        return None
    reference = "classifier_affnist_pool" if "classifier_affnist_pool" in last else next(iter(last))
    values = {
        name: paired_difference(log_prob(run), log_prob(last[reference]))
        for name, run in last.items() if name != reference
    }  # fmt: skip
    theirs = paper.AFFNIST_NCE if reference in paper.AFFNIST_NCE else {}
    published = {name: theirs[name] - theirs[reference] for name in values if name in theirs}
    rows = [
        [name, number(run.row["nce_nats"], run.row["nce_nats_se"]), number(theirs.get(name)),
         estimate(values[name]) if name in values else NONE]
        for name, run in last.items()
    ]  # fmt: skip
    header = ["classifier", "NCE of fc3, nats", "the paper's", f"less that of {reference}"]
    parts: list[Part] = [Table("Networks (the paper's section 5.2).", header, rows)]
    if group.name == "affnist_generated":
        parts.append("On a set generated from MNIST, not the paper's: only the differences can be compared.")
    parts.append(Picture("Differences of NCE of fc3, nats.", nce_differences(values, published, reference)))
    return Section(f"{group.name}: networks", parts)


def other_settings(group: DataSet) -> Section | None:
    """Further runs of the same layers, as a sweep leaves them."""
    rows = [
        [str(run.folder), number(run.row["nce_nats"], run.row["nce_nats_se"]), number(run.row["class_agreement"]),
         estimate(paired_difference(log_prob(run), log_prob(first))), str(first.folder)]
        for run, first in group.others
    ]  # fmt: skip
    if not rows:
        return None
    words = (
        "Further runs of what the sections above show, as of a sweep: NCE beside that of the run which is shown there."
    )
    header = ["run", "NCE, nats", "class agreement", "difference, paired", "from the run"]
    return Section(f"{group.name}: other settings", [words, Table("Other settings.", header, rows)])
