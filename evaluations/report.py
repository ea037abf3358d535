"""What all tested runs say together, as the sections of a report."""

from collections.abc import Sequence
from typing import Any

from evaluations import paper
from evaluations.cells import NONE, number, percent
from evaluations.charts import breakdown_chart, nce_over_layers, table1_ratios
from evaluations.data_set_sections import maps, neighbours, networks, other_settings, what_is_kept
from evaluations.data_sets import DataSet, data_sets, log_prob
from evaluations.dynamics import dynamics, over_training
from evaluations.estimators import breaks_down_at
from evaluations.html import Folded, Part, Picture, Section, Table
from evaluations.information import Estimate, relative_nce
from evaluations.runs import Run

HOW_TO_READ = (
    "NCE is the mean of log p(x | h) over the test images, in nats per image: the negative of a cross-entropy. It "
    "bounds the information that the layer keeps, I(x; h), from below, up to the constant H(x), the entropy of the "
    "images: a better density model only raises it. Differences of NCE between layers are differences of these bounds.",
    "Less the NCE of an unconditional model p(x) it is an estimate of I(x; h), not a bound: a poor unconditional model "
    "inflates it.",
    "A deterministic network in floating point loses hardly any information in principle, short of exact collisions. "
    "What NCE measures is the information that a model of this family, trained like this, can use (Xu et al. 2020). A "
    "lower number for a later layer says that what was there has become harder to use, not that it cannot be there.",
    "Bits/dim is -NCE per pixel and channel, in bits. With other images' h, NCE must be lower: else the model does not "
    "listen to h. Class agreement is the share of samples that the classifier gives the class that it gives the input. "
    "NCE of an MSE decoder is that of a spherical Gaussian around its mean, discretised like pixels.",
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
    old = [run.row.get("name", str(run.folder)) for run in runs if "network_digest" not in run.row]
    runs = [run for run in runs if "network_digest" in run.row]
    groups = data_sets(runs)
    p_x = {group.name: group.unconditional for group in groups}
    found = [
        _about(runs, old),
        _known_worlds(runs),
        _classifiers(runs),
        *(what_is_kept(group) for group in groups),
        _over_layers(groups),
        _distances(groups),
        *(neighbours(group) for group in groups),
        *(maps(group) for group in groups),
        *(networks(group) for group in groups),
        *(other_settings(group) for group in groups),
        *(dynamics(name, kinds, p_x.get(name)) for name, kinds in over_training(runs).items()),
        _other_estimators(groups, breakdown_rows),
        _configs(runs),
        Section("References", REFERENCES),
    ]
    return [section for section in found if section is not None]


def _about(runs: Sequence[Run], old: Sequence[str]) -> Section:
    parts = list(HOW_TO_READ)
    if old:
        parts.append(f"Left out, tested by an older version: {', '.join(old)}. Test them again to have them here.")
    for verb in ("distances", "estimators"):
        stale = [run.row["name"] for run in runs if run.measured(verb) != run.rows(verb)]
        if stale:
            parts.append(
                f"The {verb} of {', '.join(stale)} are left out, for they are of other weights than the test: python "
                f"cli.py test and {verb} measure both anew."
            )
    return Section("How to read this", parts)


def _known_worlds(runs: Sequence[Run]) -> Section | None:
    worlds = [run.row for run in runs if "passes" in run.row]
    if not worlds:
        return None
    rows = []
    for row in worlds:
        must_fail = "shuffled" in row["dataset"]
        right = row["passes"] != must_fail
        verdict = ("passes" if row["passes"] else "fails") + (
            ", as it must" if right else f", but must {'fail' if must_fail else 'pass'}"
        )
        rows.append(
            [
                row["name"], number(row["entropy_nats"], digits=3), number(row["exact_nce_nats"], digits=3),
                number(row["nce_nats"], row["nce_nats_se"], digits=3),
                number(row["excess_nats"], row["excess_nats_se"], digits=3),
                number(0.02 * row["entropy_nats"], digits=3),
                verdict,
            ]
        )  # fmt: skip
    header = ["world", "H(x)", "exact NCE", "measured NCE", "excess", "allowed", "verdict"]
    words = (
        "Worlds where log p(x | h) of every image is known exactly. The excess is the mean of exact less measured "
        "log-probability over the same test images. Above 2 % of H(x) the model is too weak; more than 4 standard "
        "errors below 0 it knows what it cannot, a leak. In the shuffled world h belongs to another image when it is "
        "tested, and the exact NCE is that of the image's own h: it must fail."
    )
    return Section("Does the estimator tell the truth?", [words, Table("Known against measured, nats.", header, rows)])


def _classifiers(runs: Sequence[Run]) -> Section | None:
    found = [run.row for run in runs if run.row.get("kind") == "classifier"]
    if not found:
        return None
    rows = [
        [
            row["name"], row["dataset"], row["network"], str(row["num_images"]),
            percent(row["accuracy"], row["accuracy_se"]), number(paper.ACCURACY.get(row["name"]), digits=1),
        ]
        for row in found
    ]  # fmt: skip
    header = ["classifier", "data", "network", "test images", "accuracy, %", "the paper's"]
    parts: list[Part] = [Table("Accuracy of the classifiers whose layers are inverted.", header, rows)]
    if any(row["dataset"] == "affnist_generated" for row in found):
        parts.append("affnist_generated is made from MNIST and is not the paper's affNIST.")
    return Section("Classifiers", parts)


def _over_layers(groups: Sequence[DataSet]) -> Section | None:
    rows: dict[str, dict[str, Estimate]] = {}
    depths: dict[str, int] = {}
    for group in groups:
        if group.one_network and "conv1" in group.inverters and len(group.inverters) > 1:
            reference = log_prob(group.inverters["conv1"])
            rows[group.name] = {label: relative_nce(log_prob(run), reference) for label, run in group.inverters.items()}
            depths |= {label: run.row["depth"] for label, run in group.inverters.items()}
    if not rows:
        return None
    words = "NCE over layers, relative to that of conv1; bars are 95 % intervals (the paper's fig 5a)."
    return Section(
        "From layer to layer", [Picture(words, nce_over_layers(rows, sorted(depths, key=depths.__getitem__)))]
    )


def _distances(groups: Sequence[DataSet]) -> Section | None:
    rows = []
    measured: dict[str, dict[str, dict[str, tuple[float, float]]]] = {}
    published: dict[str, dict[str, dict[str, float]]] = {}
    for group in groups:
        theirs = paper.RATIOS.get(group.name.removesuffix("5k"), {})
        for label, run in group.inverters.items():
            row = next(iter(run.measured("distances")), None)
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


def _other_estimators(groups: Sequence[DataSet], breakdown_rows: Sequence[dict[str, Any]]) -> Section | None:
    rows = [
        [f"{group.name} {label}", row["estimator"], str(row["num_images"]), number(row["estimate_nats"]),
         number(row["ceiling_nats"])]
        for group in groups
        for label, run in group.inverters.items()
        for row in run.measured("estimators")
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
        limits = []
        for name in dict.fromkeys(row["estimator"] for row in breakdown_rows):
            at = breaks_down_at(breakdown_rows, name)
            limits.append(f"{name} {f'from {at} dimensions on' if at else 'in none that was tried'}")
        parts.append(
            Picture(
                f"Estimate less truth, with the same settings, for {breakdown_rows[0]['num_samples']} samples of "
                f"independent normal variables, where the truth is known, against their number. The error is more than "
                f"a nat for {', for '.join(limits)}. Binning and both kernel density bounds, the upper one too, then "
                f"say the logarithm of the number of samples.",
                breakdown_chart(breakdown_rows),
            )
        )
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
