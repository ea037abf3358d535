"""What can be read: the verdict, nats, pictures, and where in the picture."""

import math
from collections.abc import Sequence

import numpy as np
import torch

from evaluations.figures import boxes_on_map, layers_grid
from evaluations.information import Estimate, is_rise, paired_difference
from evaluations.measurements import ContrastResult
from evaluations.regions import Region, check_inside, inside_and_outside, quarters
from evaluations.report.audit.audited import Audit, command
from evaluations.report.budgets import P_X as NO_H
from evaluations.report.cells import NONE, number, share, with_interval
from evaluations.report.groups import is_function
from evaluations.report.kept import certified
from evaluations.report.page import Grid, Lead, Missing, Part, Picture, Section, Table
from evaluations.report.training import IMPROVING, courses_of
from evaluations.trained_beside import config_of_p_x

NUM_INPUTS, NUM_DRAWS = 6, 4  # that are shown
MOST_CANDIDATES = 1e4  # as many as a number of nats is told as
SAFE = "never that the rest is safe: what was not read here may be read by another."
P_X = "p(x), which knows nothing of h"


def no_prior(audit: Audit) -> Missing:
    config = config_of_p_x(audit.result.dataset, audit.result.name)
    return Missing(
        "a model p(x) of the same images, to which h tells nothing. Without it there is no estimate of I(x; h), no map "
        "and no region. Train one on the same data, or give the folder of one that there is",
        [f"python cli.py fit --config {config}"] if config else ["python cli.py configs unconditional"],
    )


def verdict(audit: Audit) -> Section:
    """In two sentences, with the number first."""
    bound, gain = audit.contrast, audit.gain
    if bound and audit.proven:
        about = f"95 % interval of the bound {bound.bound_nats_low:.2f} to {bound.bound_nats_high:.2f}"
        about += f", of {bound.ceiling_nats:.2f} that {bound.num_images} images can show" if bound.saturated else ""
        first = f"At least {bound.bound_nats_low:.2f} nats an image are readable from {audit.source} ({about})."
    elif bound:
        first = f"No leak was proven of {audit.source}: the lower bound is {_bound(bound)} nats."
    elif gain:
        first = f"By estimate {gain.mean:.1f} nats an image are readable from {audit.source}; no bound was measured."
    else:
        first = f"Nothing is known of {audit.source}: neither a bound nor an estimate was measured."
    what = f"That is of {audit.network}, on average over images of {audit.result.dataset}, by a reader who has h, "
    what += f"pictures of the same kind with their h, and {_effort(audit)}"
    if bound and gain:
        interval = f"95 % interval {gain.low:.1f} to {gain.high:.1f}"
        what += f"; by estimate this reader finds {gain.mean:.1f} nats in all ({interval})"
    safe = f"This proves {'a leak, and' if audit.proven else 'nothing, and'} {SAFE}"
    parts: list[Part] = [Lead(first), f"{what}.", f"{_candidates(bound)}{safe}"]
    parts += not_ended(audit)
    return Section(f"Audit of {audit.layer}", parts)


def _effort(audit: Audit) -> str:
    flop = audit.result.training_flop
    return "the compute of one training" if flop is None else f"{flop:.1e} FLOP"


def _candidates(bound: ContrastResult | None) -> str:
    """The bound as what it takes to tell pictures apart; nothing where that means little."""
    if bound is None or not 0 < bound.bound_nats_low < math.log(MOST_CANDIDATES):
        return ""
    told = f"{bound.bound_nats_low:.2f} nats are what it takes to find one"
    return f"{told} of {math.exp(bound.bound_nats_low):.0f} equally likely pictures. "


def _bound(found: ContrastResult) -> str:
    interval = f"[{found.bound_nats_low:.2f}, {found.bound_nats_high:.2f}]"
    return f"{number(found.bound_nats, found.bound_nats_se)} {interval}"


def nats(audit: Audit) -> Section:
    """The guaranteed bound first, then the estimate."""
    result, bound, gain = audit.result, audit.contrast, audit.gain
    rows = []
    if bound:
        rows.append(["I(x; h), at least", _bound(bound), str(bound.num_images), "a lower bound, for any model"])
    if gain:
        rows.append(["I(x; h), estimated", with_interval(gain), str(result.num_images), "an estimate, no bound"])
    nce = number(result.nce_nats, result.nce_nats_se)
    rows.append(["NCE, log p(x | h)", nce, str(result.num_images), "minus an upper bound of H(x | h)"])
    if result.shuffled_nce_nats is not None and result.nce_nats is not None:
        fall = number(result.nce_nats - result.shuffled_nce_nats)
        rows.append(["NCE less that with other images' h", fall, str(result.num_images), "above 0, or h was not read"])
    parts: list[Part] = [Table("Nats an image.", ["what", "nats", "images", "what it is"], rows)]
    if bound:
        parts += certified({audit.layer: bound}, gain is not None)
    else:
        what = "the lower bound of I(x; h), which holds for any model and needs no p(x)"
        parts.append(audit.missing(ContrastResult, what, "--num_images", "256"))
    if gain is None:
        parts.append(no_prior(audit))
    else:
        parts += [
            "The estimate is the mean of log p(x | h) less log p(x). It is the difference of two bounds, minus upper "
            "bounds of H(x | h) and of H(x), and so no bound itself: a poor p(x) makes it too large, a poor p(x | h) "
            "too small.",
            _images(audit),
        ]
    return Section("What can be read, in nats", [*parts, *_later(audit)])


def _images(audit: Audit) -> Table:
    """How much images differ in it."""
    assert audit.prior is not None
    values = (audit.run.log_prob - audit.prior.log_prob).numpy()
    shares = (0.05, 0.25, 0.5, 0.75, 0.95)
    row = [f"{np.quantile(values, q):.1f}" for q in shares]
    words = "log p(x | h) less log p(x) of single images, nats: so many of them have less. One may be below 0."
    return Table(words, ["", *(f"{q:.0%}" for q in shares)], [["nats", *row]])


def _later(audit: Audit) -> list[Part]:
    """Layers that are functions of this one, of which more is read: it can hold no less than they."""
    later = [run for run in audit.others if is_function(run.result, audit.result)]
    found = [(run, paired_difference(run.log_prob, audit.run.log_prob)) for run in later]
    return [
        f"{run.result.layer}, which is computed from {audit.layer}, gives {with_interval(difference)} nats more. All "
        f"that is in it is in {audit.layer} too, whose inverter is too weak: the numbers of this page are too low."
        for run, difference in found if is_rise(difference)
    ]  # fmt: skip


def pictures(audit: Audit) -> Section:
    """The first test images beside draws."""
    title, samples = "What can be read, in pictures", audit.run.samples
    if samples is None:
        what = "draws from p(x | h); a test makes them unless it is told not to"
        return Section(title, [Missing(what, [command(audit.run, "test")])])
    inputs, draws = (array[:NUM_INPUTS] for array in samples)
    columns = {f"draws from p(x | {audit.layer})": draws[:, :NUM_DRAWS]}
    if audit.prior and (its := audit.prior.samples) and np.array_equal(its[0][: len(inputs)], inputs):
        columns[P_X] = its[1][: len(inputs), :1]
    words = (
        "The first test images, in the seeded order and not chosen, and what the attacker draws who has h of each. "
        "What all draws of a picture have in common is what is read of it; where they differ, the reader guesses."
    )
    agreement = audit.result.class_agreement
    parts: list[Part] = [Grid(words, layers_grid(inputs, columns), inputs, columns)]
    if agreement is not None:
        told = share(agreement, audit.result.num_samples, 1, percent=True)
        parts.append(
            f"The network gives a draw the class of its picture in {told} % of {audit.result.num_samples} draws."
        )
    return Section(title, parts)


def regions(audit: Audit, boxes: Sequence[Region]) -> Section:
    """Inside and outside of boxes.

    Args:
        audit: Of which.
        boxes: Those of the middle and of the quarters where none are given.

    Raises:
        ValueError: A box does not lie within the images.
    """
    title, prior = "Where in the picture", audit.prior
    if prior is None:
        return Section(title, [no_prior(audit)])
    given, without = audit.run.log_prob_per_pixel, prior.log_prob_per_pixel
    if given is None or without is None or given.shape != without.shape:
        which = audit.run if given is None else prior
        what = f"log p of single pixels of {which.result.name}, which a test keeps of what goes pixel by pixel"
        return Section(title, [Missing(what, [command(audit.run, "test")])])
    p_h, p_x = torch.from_numpy(given), torch.from_numpy(without)
    total, height, width = p_h.shape
    check_inside(boxes, height, width)
    chosen = list(boxes) or [box for box in quarters(height, width) if box.num_pixels > 0]
    whole = float((p_h.double() - p_x.double()).sum((1, 2)).mean())
    rows = []
    for box in chosen:
        inside, outside = inside_and_outside(p_h, p_x, box)
        place = f"rows {box.top} to {box.bottom - 1}, columns {box.left} to {box.right - 1}"
        rows.append([box.name, place, *_cells(inside, box.num_pixels, whole)])
        rows.append([f"outside of {box.name}", NONE, *_cells(outside, height * width - box.num_pixels, whole)])
    words = (
        f"The estimate of I(x; h) by region, {total} images: what h adds inside of a box and outside of it, which "
        f"together is what it adds to the whole image, {whole:.2f} nats."
    )
    header = ["region", "pixels, from 0", "number", "nats", "share, %", "nats a pixel"]
    mean = (p_h.double() - p_x.double()).mean(0).numpy()
    drawn = {box.name: (box.top, box.bottom, box.left, box.right) for box in chosen}
    parts: list[Part] = [
        Table(words, header, rows),
        Picture("Where h helps (red): the mean map, with the boxes.", boxes_on_map(mean, drawn, audit.layer)),
        "A pixel counts what h adds to the pixels before it, row by row: what a box shares with earlier pixels is told "
        "there, and a box that comes late is told less. This is where information enters in that order, an estimate "
        "like its sum, and no proof that the rest of a picture cannot be read.",
    ]  # fmt: skip
    if not boxes:
        parts.append(
            "These boxes know nothing of the pictures. Give those that matter, such as a face, in pixels: "
            "--regions face=8:24,4:20, rows before columns."
        )
    return Section(title, parts)


def _cells(value: Estimate, num_pixels: int, whole: float) -> list[str]:
    part = f"{100 * value.mean / whole:.0f}" if whole > 0 else NONE
    each = f"{value.mean / num_pixels:.3f}" if num_pixels else NONE
    return [str(num_pixels), with_interval(value), part, each]


def not_ended(audit: Audit) -> list[str]:
    """What follows where a training was still improving when it ended."""
    moving = [label for label, course in courses_of(audit.group).items() if course.verdict == IMPROVING]
    sentences = {
        audit.layer: "The inverter's training had not ended: more of it would read more.",
        NO_H: "The training of p(x) had not ended: more of it would make the estimate smaller, and not the bound.",
    }
    return [sentences[label] for label in moving]
