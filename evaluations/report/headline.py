"""What came out, in one sentence and one picture."""

from collections.abc import Mapping, Sequence
from itertools import islice

import numpy as np

from evaluations.figures import story
from evaluations.information import Estimate, information_estimate, paired_difference
from evaluations.report.cells import number
from evaluations.report.groups import Group
from evaluations.report.page import Lead, Part, Section, Story
from evaluations.report.training import IMPROVING, courses_of

NUM_INPUTS = 3  # whose draws are shown
NOTHING = "nothing: p(x)"


def section(group: Group) -> Section | None:
    """Of the last layer beside the first, or in each network that it is inverted in; None without a likelihood."""
    log_probs = group.log_probs
    if not log_probs:
        return None
    p_x = group.p_x
    gains = {label: information_estimate(one, p_x) for label, one in log_probs.items()} if p_x is not None else {}
    parts: list[Part] = [Lead(_sentence(group, gains))]
    picture = story_of(group, gains)
    if picture:
        parts.append(picture)
    if gains:
        parts.append(
            "These are estimates of I(x; h), NCE less that of an unconditional model p(x) of the same images, with "
            "paired standard errors over test images. They are no bounds, for a poor p(x) inflates them, and no "
            "certificate that nothing more can be read."
        )
    if moving := [label for label, course in courses_of(group).items() if course.verdict == IMPROVING]:
        parts.append(
            f"Training had not ended for {', '.join(moving)} (see the learning curves): there the "
            f"number says how far this training came, and more of it would move it."
        )
    return Section(f"{group.name}: in short", parts)


def _sentence(group: Group, gains: Mapping[str, Estimate]) -> str:
    labels, log_probs = list(group.log_probs), group.log_probs
    first, last = labels[0], labels[-1]
    its_layer = group.inverters[last].result.layer
    of_networks = [label for label in labels if group.inverters[label].result.layer == its_layer]
    if not group.one_network and len(of_networks) > 1:
        return _of_networks(group, of_networks, gains)
    if not gains:
        if len(labels) == 1 or not group.one_network:
            return f"{_alone(group, last, gains)}."
        gap = paired_difference(log_probs[first], log_probs[last])
        way = "above" if gap.mean >= 0 else "below"
        return f"NCE of {first} is {_short(abs(gap.mean), gap.standard_error)} nats {way} that of {last}."
    its = gains[last]
    if len(labels) == 1 or not group.one_network or _nothing(its) or gains[first].mean <= its.mean:
        return f"{_alone(group, last, gains)}."
    return f"{last} keeps {_short(its.mean, its.standard_error)} of {first}'s {gains[first].mean:.1f} nats."


def _nothing(gain: Estimate) -> bool:
    """Whether it is no more than two of its errors above 0."""
    return gain.mean <= 2 * gain.standard_error


def _alone(group: Group, label: str, gains: Mapping[str, Estimate]) -> str:
    """What one layer keeps, or its NCE where there is no p(x)."""
    if gains:
        nats = _short(gains[label].mean, gains[label].standard_error)
        if _nothing(gains[label]):
            return f"In {label}, p(x | h) finds no more than p(x) knows: {nats} nats"
        return f"{label} keeps {nats} nats of the image, by estimate"
    result = group.inverters[label].result
    return f"NCE of {label} is {_short(result.nce_nats or 0, result.nce_nats_se)} nats an image"


def _of_networks(group: Group, labels: Sequence[str], gains: Mapping[str, Estimate]) -> str:
    """How far the networks are below the one that keeps most by one layer, paired."""
    log_probs = group.log_probs
    best, *others = sorted(labels, key=lambda label: -log_probs[label].mean().item())
    gaps = {label: paired_difference(log_probs[best], log_probs[label]) for label in others}
    more = (f"{_short(gap.mean, gap.standard_error)} more than {label}" for label, gap in gaps.items())
    return f"{_alone(group, best, gains)}, {' and '.join(more)}."


def _short(mean: float, error: float | None) -> str:
    return number(mean, error, digits=1)


def story_of(group: Group, gains: Mapping[str, Estimate]) -> Story | None:
    """The first test images and a draw of each layer for every one, with what the layer keeps; None without draws."""
    runs = dict(islice(((label, group.inverters[label]) for label in group.log_probs), 8))
    every = {**runs, **({NOTHING: group.unconditional} if group.unconditional else {})}
    inputs = np.empty(0, np.uint8)
    draws: dict[str, np.ndarray] = {}
    for label, run in every.items():
        if (samples := run.samples) and (not draws or np.array_equal(samples[0][:NUM_INPUTS], inputs)):
            inputs, draws[label] = samples[0][:NUM_INPUTS], samples[1][:NUM_INPUTS, 0]
    if not draws or not runs.keys() & draws.keys():
        return None
    longest = max((gain.mean for gain in gains.values()), default=0)
    steps: list[tuple[str, str, float | None, np.ndarray]] = [("input", "", None, inputs)]
    for label, images in draws.items():
        gain = gains.get(label)
        told = f"{_short(gain.mean, gain.standard_error)} nats" if gain else ""
        if label == NOTHING and gains:
            told = "0 nats"
        share = gain.mean / longest if gain and longest > 0 else 0.0 if label == NOTHING and gains else None
        steps.append((label, told, share, images))
    words = (
        f"The first {len(inputs)} test images, in the seeded order and not chosen, and a draw from p(x | h) of every "
        f"layer, with the same noise"
    )
    words += "; over them the estimate of I(x; h) over all test images" if gains else ""
    words += "; those of p(x) know nothing of the input." if NOTHING in draws else "."
    return Story(words, story(steps), steps)
