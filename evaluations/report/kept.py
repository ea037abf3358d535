"""What do the layers of one data set keep?"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from evaluations.figures import layers_grid
from evaluations.information import data_processing_rises, information_estimate, paired_difference, relative_nce
from evaluations.measurements import ContrastResult, Reidentification
from evaluations.report.budgets import Budgets, said
from evaluations.report.cells import NONE, nce, number, share, with_interval
from evaluations.report.groups import Group
from evaluations.report.page import Grid, Part, Picture, Section, Table

NOTHING = "nothing: p(x)"


def section(group: Group, by_budget: Sequence[Budgets] = ()) -> Section | None:
    runs = group.inverters | ({NOTHING: group.unconditional} if group.unconditional else {})
    if not runs:
        return None
    log_probs, p_x, first = group.log_probs, group.p_x, group.first_layer
    bounds_of = {label: run.measured(ContrastResult) for label, run in group.inverters.items()}
    contrasts = {label: found[0] for label, found in bounds_of.items() if found}
    budgets = [one for one in by_budget if {run.folder for run in runs.values()} & one.nce.keys()]
    rows = []
    for label, run in runs.items():
        result, given_h, decoder = run.result, log_probs.get(label), group.decoders.get(label)
        relative = relative_nce(given_h, log_probs[first]) if given_h is not None and first else None
        gain = information_estimate(given_h, p_x) if given_h is not None and p_x is not None else None
        rows.append([
            label, str(result.num_images), nce(result), number(result.bits_per_dim, digits=3),
            number(relative.mean, relative.standard_error, 3) if relative else NONE, with_interval(gain),
            *([_bound(contrasts.get(label))] if contrasts else []), number(result.shuffled_nce_nats),
            share(result.class_agreement, result.num_samples),
            nce(decoder.result) if decoder else NONE, *([_settled(run.folder, budgets)] if budgets else []),
        ])  # fmt: skip
    header = [
        "layer", "images", "NCE, nats", "bits/dim", f"NCE / |NCE of {first or 'the first layer'}|",
        "estimate of I(x; h), nats", *(["I(x; h) at least, nats"] if contrasts else []),
        "NCE with other images' h", "class agreement", "NCE of the MSE decoder",
        *(["over budgets"] if budgets else []),
    ]  # fmt: skip
    parts: list[Part] = [Table(f"What the layers of {group.name} keep.", header, rows)]
    if p_x is None:
        parts.append("There is no estimate of I(x; h) without an unconditional model (configs/unconditional_*.yaml).")
    parts += certified(contrasts, p_x is not None)
    parts += reidentified(contrasts)
    if group.left_out:
        parts.append(f"Left out, because tested on other images than these: {', '.join(group.left_out)}.")
    bounds: dict[str, list[str]] = {}
    for label, run in group.inverters.items():
        if run.result.bound:
            bounds.setdefault(run.result.bound, []).append(label)
    parts += [
        f"{', '.join(labels)}: {bound}. The estimate of I(x; h) is of that picture too. Draws have no class agreement, "
        f"as the network does not see such small ones." for bound, labels in bounds.items()
    ]  # fmt: skip
    if group.one_network and len(log_probs) + (p_x is not None) > 1:
        parts += _steps(group)
    if len(group.classifiers) < len(group.digests):
        parts.append(
            "Some of these inverters are of classifiers of one name and other weights, so that not every layer is a "
            "function of the one before it, and differences between layers are not given."
        )
    return Section(f"{group.name}: what is kept", [*parts, *_grid(group)])


def _bound(found: ContrastResult | None) -> str:
    return number(found.bound_nats, found.bound_nats_se) if found else NONE


def _settled(folder: Path, budgets: Sequence[Budgets]) -> str:
    """Whether NCE, and the estimate, of the run in this folder have."""
    verdicts = []
    for one in budgets:
        if nce := one.nce.get(folder):
            verdicts.append(f"NCE {said(nce.verdict)}")
            gain = one.information.get(folder)
            if gain and gain.images[-1] == nce.images[-1]:  # else it is of a shorter run than the one in this row
                verdicts.append(f"I(x; h) {said(gain.verdict)}")
    return "; ".join(verdicts) or NONE


def certified(contrasts: Mapping[str, ContrastResult], with_estimate: bool) -> list[str]:
    """What the bound is, and for which layers it says more of the number of images than of h."""
    if not contrasts:
        return []
    words = (
        f"I(x; h) is at least what the contrastive bound says (Poole et al. 2019), but for the error of its images: it "
        f"holds for any model and needs no p(x){', unlike the estimate' if with_estimate else ''}. It cannot exceed ln "
        f"of the number of images: {', '.join(_ceiling(label, found) for label, found in contrasts.items())}."
    )
    if near := [label for label, found in contrasts.items() if found.saturated]:
        words += f" It stands near that for {', '.join(near)}, where more images would give a higher one."
    return [words]


def reidentified(contrasts: Mapping[str, ContrastResult]) -> list[Part]:
    """How often h gives away of which image it is."""
    found: dict[tuple[str, str, str, int], dict[int, Reidentification]] = {}
    for label, contrast in contrasts.items():
        for one in contrast.reidentified:
            found.setdefault((label, one.images, one.attack, one.num_images), {})[one.k] = one
    if not found:
        return []
    rows = []
    for (label, images, attack, n), at in found.items():
        shares = [share(at[k].share, n, 1, percent=True) if k in at else NONE for k in (1, 5)]
        chances = " / ".join(f"{100 * min(k / n, 1):.1f}" for k in (1, 5))
        rows.append([label, images, attack, *shares, chances])
    words = (
        "Two attackers, who have the trained inverter and nothing else. One has a representation that leaked, and "
        "pictures among which its own is, and ranks them by log p(x | h) less the log of its mean over h, in place of "
        "log p(x). The other has a picture, and stored representations among which its own is. What they find is "
        "readable for certain. What they do not find is not safe: NCE is minus an upper bound of H(x | h), and "
        "a better model, or one who has the network and compares h itself, may find more."
    )
    header = ["layer", "images", "attack", "first, %", "among 5, %", "chance, %"]
    return [Table("Re-identification: how often the right one is first, or among the first five.", header, rows), words]


def _ceiling(label: str, found: ContrastResult) -> str:
    return f"{found.ceiling_nats:.2f} for {label} ({found.num_images} images)"


def _steps(group: Group) -> list[Part]:
    """From layer to layer, and whether NCE rises where information cannot; nothing, p(x), is a function of any."""
    log_probs, p_x, branches = group.log_probs, group.p_x, group.in_branches
    rows = [
        [f"{later} less {earlier}", with_interval(paired_difference(log_probs[later], log_probs[earlier]))]
        for earlier, later in pairwise(log_probs)
    ]
    pairs, nothing = group.functions, {NOTHING: p_x} if p_x is not None else {}
    pairs += [(label, NOTHING) for label in log_probs if nothing]
    rises = data_processing_rises(log_probs | nothing, pairs)
    words = "No layer's NCE is above that of a layer before it by more than 2 standard errors, as it should be."
    if rises:
        these = "; ".join(f"{b} above {a} by {with_interval(found)} nats" for (a, b), found in rises.items())
        words = (
            f"A layer cannot hold more than a layer that it is computed from, nor nothing more than a layer, but NCE "
            f"says so here: {these}. The inverter of the earlier layer is too weak, or not trained for long enough."
        )
    if branches:
        words += (
            f" What comes after {', '.join(branches)} may hold more, and is not compared with it: the network hands "
            "something on past it, as in a residual block, or h is not all that the layer gives. That was tried: where "
            "it was given there what is of other images, the network did not end in what it gives for those."
        )
    return [*([Table("Differences of NCE, nats.", ["layers", "difference"], rows)] if rows else []), words]


def _grid(group: Group) -> list[Picture]:
    """Fig 1: the inputs, then draws and the mean of the MSE decoder for every layer, if any was drawn."""
    columns: dict[str, np.ndarray] = {}
    inputs = np.empty(0)
    for label, run in group.inverters.items():
        for title, one in ((label, run), (f"{label}, MSE", group.decoders.get(label))):
            samples = one.samples if one else None
            if samples and (not columns or np.array_equal(samples[0], inputs)):
                inputs, columns[title] = samples[0], samples[1][:, :3]
    if not columns:
        return []
    words = "Test images, and draws from p(x | h) of every layer"
    if any(label in columns for label in group.inverters):
        means = any(f"{label}, MSE" in columns for label in group.inverters)
        words += "; beside them the mean of the decoder that is trained by squared error" if means else ""
    words += (
        f". The noise is the same for all, so what differs is what the layers keep, and what each model, trained by "
        f"itself, has learnt of it (the paper's fig {'1' if group.one_network else '4'})."
    )
    return [Grid(words, layers_grid(inputs, columns), inputs, columns)]
