"""What all tested runs say together, as the sections of a report."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from evaluations import paper
from evaluations.charts import breakdown_chart, nce_differences, nce_over_layers, table1_ratios, training_dynamics
from evaluations.data_sets import DataSet, data_sets, log_prob, over_training
from evaluations.estimators import breaks_down_at
from evaluations.figures import information_maps, layers_grid, nearest_grid
from evaluations.html import Folded, Picture, Section, Table
from evaluations.information import (
    Estimate,
    data_processing_rises,
    information_estimate,
    information_map,
    paired_difference,
    relative_nce,
)
from evaluations.runs import Run

NONE = "\N{EN DASH}"  # in a table, where there is no value
NUM_MAPS = 4  # single images whose maps are shown
Part = str | Table | Picture | Folded

HOW_TO_READ = (
    "NCE is the mean of log p(x | h) over the test images, in nats per image: the negative of a cross-entropy. It "
    "bounds the information that the layer keeps, I(x; h), from below, up to the constant H(x), the entropy of the "
    "images: a better density model only raises it. Differences of NCE between layers are differences of these bounds.",
    "Less the NCE of an unconditional model p(x) it is an estimate of I(x; h), not a bound: a poor unconditional model "
    "inflates it.",
    "A deterministic network in floating point loses hardly any information in principle, short of exact collisions. "
    "What NCE measures is the information that a model of this family, trained like this, can use (Xu et al. 2020). A "
    "lower number for a later layer says that what was there has become harder to use, not that it cannot be there.",
    "Errors after a ± are standard errors over test images; those of differences are paired over the same images, and "
    "brackets are 95 % bootstrap intervals. They say nothing of the spread over trainings; each was done once.",
)

REFERENCES = (
    "C. Nash, N. Kushman, C. K. I. Williams. Inverting Supervised Representations with Autoregressive Neural Density "
    "Models. AISTATS 2019.",
    "T. Salimans, A. Karpathy, X. Chen, D. P. Kingma. PixelCNN++. ICLR 2017.",
    "Y. Xu, S. Zhao, J. Song, R. Stewart, S. Ermon. A Theory of Usable Information under Computational Constraints. "
    "ICLR 2020.",
    "A. Kolchinsky, B. D. Tracey. Estimating Mixture Entropy with Pairwise Distances. Entropy 19(7), 2017.",
    "A. Kraskov, H. Stögbauer, P. Grassberger. Estimating mutual information. Physical Review E 69, 2004.",
)


def sections(runs: Sequence[Run], breakdown_rows: Sequence[dict[str, Any]]) -> list[Section]:
    """Everything that was measured, and nothing else: a section without data does not appear.

    Args:
        runs: From `runs_under`.
        breakdown_rows: From `evaluations.breakdown`.
    """
    groups = data_sets(runs)
    found = [
        _about(runs),
        _known_worlds(runs),
        _classifiers(runs),
        *(_nce(group) for group in groups),
        _over_layers(groups),
        _distances(groups),
        *(_neighbours(group) for group in groups),
        *(_maps(group) for group in groups),
        *(_networks(group) for group in groups),
        *(_dynamics(name, kinds) for name, kinds in over_training(runs).items()),
        _other_estimators(groups, breakdown_rows),
        _configs(runs),
        Section("References", REFERENCES),
    ]
    return [section for section in found if section is not None]


def number(value: float | None, error: float | None = None, digits: int = 2) -> str:
    """A number with its standard error, for people."""
    if value is None:
        return NONE
    return f"{value:.{digits}f}" + (f" ± {error:.{digits}f}" if error is not None else "")


def estimate(value: Estimate, digits: int = 2) -> str:
    """With its standard error and interval."""
    interval = f" [{value.low:.{digits}f}, {value.high:.{digits}f}]"
    return number(value.mean, value.standard_error, digits) + interval


def _about(runs: Sequence[Run]) -> Section:
    old = [run.row.get("name", str(run.folder)) for run in runs if "kind" not in run.row]
    parts = list(HOW_TO_READ)
    if old:
        parts.append(f"Left out, tested by an older version: {', '.join(old)}. Test them again to have them here.")
    return Section("How to read this", parts)


def _known_worlds(runs: Sequence[Run]) -> Section | None:
    worlds = [run.row for run in runs if "passes" in run.row]
    if not worlds:
        return None
    rows = []
    for row in worlds:
        must_fail = "shuffled" in row["name"]
        verdict = ("passes" if row["passes"] else "fails") + (", as it must" if row["passes"] != must_fail else "")
        rows.append(
            [
                row["name"], number(row["entropy_nats"]), number(row["exact_nce_nats"]),
                number(row["nce_nats"], row["nce_nats_se"]),
                number(row["excess_nats"], row["excess_nats_se"], digits=3),
                number(0.02 * row["entropy_nats"], digits=3),
                verdict,
            ]
        )  # fmt: skip
    header = ["world", "H(x)", "exact NCE", "measured NCE", "excess", "allowed", ""]
    words = (
        "Worlds where log p(x | h) of every image is known exactly. The excess is the mean of exact less measured "
        "log-probability over the same test images. Above 2 % of H(x) the model is too weak; more than 4 standard "
        "errors below 0 it knows what it cannot, a leak. In the shuffled world h belongs to another image when it is "
        "tested, so that it must fail."
    )
    return Section("Does the estimator tell the truth?", [words, Table("Known against measured, nats.", header, rows)])


def _classifiers(runs: Sequence[Run]) -> Section | None:
    found = [run.row for run in runs if run.row.get("kind") == "classifier"]
    if not found:
        return None
    rows = [
        [
            row["name"], row["dataset"], row["network"], str(row["num_images"]),
            number(100 * row["accuracy"], 100 * row["accuracy_se"]), number(paper.ACCURACY.get(row["name"]), digits=1),
        ]
        for row in found
    ]  # fmt: skip
    header = ["classifier", "data", "network", "test images", "accuracy, %", "the paper's"]
    parts: list[Part] = [Table("Accuracy of the classifiers whose layers are inverted.", header, rows)]
    if any(row["dataset"] == "affnist_generated" for row in found):
        parts.append("affnist_generated is made from MNIST and is not the paper's affNIST.")
    return Section("Classifiers", parts)


def _nce(group: DataSet) -> Section | None:
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
    if group.one_network and len(log_probs) > 1:
        parts += _steps(log_probs)
    grid = _grid(group)
    if grid:
        parts.append(grid)
    return Section(f"{group.name}: what is kept", parts)


def _steps(log_probs: dict[str, torch.Tensor]) -> list[Part]:
    """From layer to layer, and whether NCE rises where information cannot."""
    layers = list(log_probs)
    rows = [
        [f"{later} less {earlier}", estimate(paired_difference(log_probs[later], log_probs[earlier]))]
        for earlier, later in pairwise(layers)
    ]
    rises = data_processing_rises(log_probs)
    words = "No layer's NCE is above that of a layer before it by more than 2 standard errors, as it should be."
    if rises:
        these = "; ".join(f"{r.later} above {r.earlier} by {estimate(r.difference)} nats" for r in rises)
        words = (
            f"A layer cannot hold more than a layer that it is computed from, but NCE says so here: {these}. The "
            f"inverter of the earlier layer is too weak, or not trained for long enough."
        )
    return [Table("Differences of NCE, nats.", ["layers", "difference"], rows), words]


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
        "squared error. The noise is the same for all layers, so what differs is what they keep (the paper's fig 1)."
    )
    return Picture(words, layers_grid(inputs, columns))


def _over_layers(groups: Sequence[DataSet]) -> Section | None:
    rows = {}
    for group in groups:
        if group.one_network and "conv1" in group.inverters and len(group.inverters) > 1:
            reference = log_prob(group.inverters["conv1"])
            rows[group.name] = {label: relative_nce(log_prob(run), reference) for label, run in group.inverters.items()}
    if not rows:
        return None
    words = "NCE over layers, relative to that of conv1; bars are 95 % intervals (the paper's fig 5a)."
    return Section("From layer to layer", [Picture(words, nce_over_layers(rows))])


def _distances(groups: Sequence[DataSet]) -> Section | None:
    rows = []
    measured: dict[str, dict[str, dict[str, tuple[float, float]]]] = {}
    published: dict[str, dict[str, dict[str, float]]] = {}
    for group in groups:
        theirs = paper.RATIOS.get(group.name.removesuffix("5k"), {})
        for label, run in group.inverters.items():
            row = run.json("distances")
            if row is None:
                continue
            ratios = [(row[f"{name}_ratio"], row[f"{name}_ratio_se"]) for name in ("im_s", "im_nn")]
            names = ("IM-S / 1NN", "IM-NN / 1NN")
            measured.setdefault(group.name, {})[label] = dict(zip(names, ratios, strict=True))
            if label in theirs:
                published.setdefault(group.name, {})[label] = dict(zip(names, theirs[label], strict=True))
            values = [f"{row[name]:.4g} ± {row[f'{name}_se']:.2g}" for name in ("one_nn", "im_s", "im_nn")]
            rows.append(
                [
                    f"{group.name} {label}", f"{row['num_images']} x {row['num_samples']}", *values,
                    *(number(*ratio, digits=3) for ratio in ratios),
                    " / ".join(f"{value:.3f}" for value in theirs[label]) if label in theirs else NONE,
                    number(row["class_agreement"], row["class_agreement_se"]),
                ]
            )  # fmt: skip
    if not rows:
        return None
    words = (
        "How far samples are from their input in the layer's own space, beside the nearest of all training images: the "
        "mean absolute difference per unit. 1NN is the nearest training image, IM-S a sample, IM-NN the nearest of an "
        "image's samples. The scale of a layer is arbitrary; the ratios to 1NN are free of it. Below 1 a sample looks "
        "more like the input, to the layer, than any training image does."
    )
    header = [
        "layer", "images x samples", "1NN", "IM-S", "IM-NN", "IM-S / 1NN", "IM-NN / 1NN", "the paper's",
        "class agreement",
    ]  # fmt: skip
    parts: list[Part] = [words, Table("Distances in the layer's space (the paper's table 1).", header, rows)]
    if any("5k" in group.name and group.name in measured for group in groups):
        parts.append(
            "The paper's ratios beside mnist5k are those of MNIST, with 50 000 training images among which to look for "
            "a neighbour and a larger density model: they show the order of layers, and need not agree."
        )
    parts.append(Picture("The ratios, bars of one standard error.", table1_ratios(measured, published)))
    return Section("Distances in the layer's space", parts)


def _neighbours(group: DataSet) -> Section | None:
    parts: list[Part] = []
    for label, run in group.inverters.items():
        arrays = run.arrays("nearest")
        if arrays is not None:
            words = (
                f"{group.name}, {label}: the nearest of {int(arrays['num_samples'])} samples and the nearest training "
                f"images (the paper's fig 2); and of the samples that are as near, to the layer, as the nearest "
                f"training image, those that differ most from the input in pixels: what the layer is most blind to. "
                f"Empty where no sample is so near."
            )
            parts.append(Picture(words, nearest_grid(arrays, label)))
    return Section(f"{group.name}: nearest, and most different", parts) if parts else None


def _maps(group: DataSet) -> Section | None:
    without = group.unconditional.array("log_prob_per_pixel") if group.unconditional else None
    if without is None:
        return None
    parts: list[Part] = [
        "log p(x_i | x_<i, h) less log p(x_i | x_<i), in nats: what h adds at each pixel to the pixels before it, row "
        "by row. A map's sum is the estimate of I(x; h) exactly, by the chain rule. It shows where information enters "
        "in that order, not all that h knows of a pixel. Single pixels can be below 0: h misled the model there."
    ]
    for label, run in group.inverters.items():
        given, samples = run.array("log_prob_per_pixel"), run.arrays("samples")
        if given is None or samples is None:
            continue
        maps = information_map(torch.from_numpy(given), torch.from_numpy(without)).numpy()
        images = samples["inputs"][:NUM_MAPS]
        mean = maps.mean(0)
        words = f"{group.name}, {label}: mean over {len(maps)} images, {mean.sum():.2f} nats in all, and single images."
        parts.append(Picture(words, information_maps(mean, images, maps[: len(images)], label)))
    return Section(f"{group.name}: where the information sits", parts) if len(parts) > 1 else None


def _networks(group: DataSet) -> Section | None:
    """Fig 4: several networks of one data set, by their fc3."""
    last = {run.row["classifier"]: run for run in group.inverters.values() if run.row["layer"] == "fc3"}
    reference = "classifier_affnist_pool"
    if len(last) < 2 or reference not in last:
        return None
    values = {
        name: paired_difference(log_prob(run), log_prob(last[reference]))
        for name, run in last.items() if name != reference
    }  # fmt: skip
    published = {
        name: paper.AFFNIST_NCE[name] - paper.AFFNIST_NCE[reference] for name in values if name in paper.AFFNIST_NCE
    }
    rows = [
        [name, number(run.row["nce_nats"], run.row["nce_nats_se"]), number(paper.AFFNIST_NCE.get(name)),
         estimate(values[name]) if name in values else NONE]
        for name, run in last.items()
    ]  # fmt: skip
    header = ["classifier", "NCE of fc3, nats", "the paper's", f"less that of {reference}"]
    parts: list[Part] = [Table("Three networks (the paper's section 5.2).", header, rows)]
    if group.name == "affnist_generated":
        parts.append("On a set generated from MNIST, not the paper's: only the differences can be compared.")
    parts.append(Picture("Differences of NCE of fc3, nats.", nce_differences(values, published, reference)))
    return Section(f"{group.name}: networks", parts)


def _dynamics(name: str, kinds: dict[str, dict[str, dict[int, tuple[float, float]]]]) -> Section:
    rows = [
        [f"{kind}, {layer}", str(updates), number(*values)]
        for kind, layers in kinds.items()
        for layer, points in layers.items()
        for updates, values in sorted(points.items())
    ]
    words = (
        "NCE of inverters of the classifier as it was after so many updates (the paper's fig 5b), regular and "
        "overfitted (100 training images, no dropout). The inverters were always trained on the full training set."
    )
    table = Table("NCE over the classifier's training, nats.", ["classifier, layer", "updates", "NCE"], rows)
    picture = Picture(f"NCE of {name} against the number of the classifier's updates.", training_dynamics(kinds))
    return Section(f"{name}: over the classifier's training", [words, picture, table])


def _other_estimators(groups: Sequence[DataSet], breakdown_rows: Sequence[dict[str, Any]]) -> Section | None:
    rows = [
        [f"{group.name} {label}", row["estimator"], number(row["estimate_nats"]), number(row["ceiling_nats"])]
        for group in groups
        for label, run in group.inverters.items()
        for row in run.json("estimators") or []
    ]
    if not rows:
        return None
    words = (
        "Binning and the kernel density bounds cannot exceed the logarithm of the number of images, their ceiling, "
        "whatever the layer keeps. The k-nearest-neighbour estimate is a differential entropy of h, and depends on its "
        "scale. None of them says what of x is kept."
    )
    parts: list[Part] = [words, Table("Of the same layers, nats.", ["layer", "estimator", "estimate", "ceiling"], rows)]
    if breakdown_rows:
        limits = []
        for name in dict.fromkeys(row["estimator"] for row in breakdown_rows):
            at = breaks_down_at(breakdown_rows, name)
            limits.append(f"{name} {f'at {at} dimensions' if at else 'not up to the largest tried'}")
        parts.append(
            Picture(
                "Estimate over truth where the truth is known, against the dimension. An error of 10 % is reached by "
                + ", ".join(limits) + ".",
                breakdown_chart(breakdown_rows),
            )
        )  # fmt: skip
    return Section("Other estimators", parts)


def _configs(runs: Sequence[Run]) -> Section:
    folded = [
        Folded(
            f"{run.folder}: commit {run.row.get('commit') or 'unknown'}, checkpoint {run.row.get('checkpoint')}",
            run.config() or "no config beside it",
        )
        for run in runs
    ]
    return Section("Configs", folded)
