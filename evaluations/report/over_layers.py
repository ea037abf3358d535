"""How does what is kept fall from layer to layer: of every network, and of every data set?"""

from collections.abc import Sequence

import numpy as np

from evaluations.charts import nce_over_layers
from evaluations.depth_profile import P_X, Measured, depth_profile
from evaluations.information import Estimate, information_estimate, mean_and_standard_error, relative_nce
from evaluations.report.groups import Group, by_depth, classifier_of, what_is_seen
from evaluations.report.page import Picture, Section
from evaluations.report.tested_runs import InverterRun

NUM_INPUTS = 3  # whose draws are shown


def section(groups: Sequence[Group]) -> Section | None:
    pictures = [picture for group in groups for picture in _profiles(group)] + _relative(groups)
    return Section("From layer to layer", pictures) if pictures else None


def _profiles(group: Group) -> list[Picture]:
    """Nats by depth, of every network of which several layers are inverted.

    Other settings of the same layer and density, as of a sweep, are not shown.
    """
    networks: dict[tuple[str | None, ...], dict[str, dict[str, InverterRun]]] = {}  # by density and layer
    for run in [*group.inverters.values(), *(run for run, _ in group.others)]:
        result = run.result
        if result.layer and result.nce_nats is not None and not result.point_estimate:
            lines = networks.setdefault((*classifier_of(result), *what_is_seen(result)), {})
            lines.setdefault(result.density, {}).setdefault(result.layer, run)
    return [_profile(group, lines) for lines in networks.values() if len(set().union(*lines.values())) > 1]


def _profile(group: Group, lines: dict[str, dict[str, InverterRun]]) -> Picture:
    """Of one network; draws are of the first density that a layer has."""
    first = {layer: run for line in reversed(lines.values()) for layer, run in line.items()}
    first = dict(sorted(first.items(), key=lambda item: by_depth(item[1])))
    p_x, of_p_x = group.p_x, group.unconditional
    measured = {
        density: {
            layer: Measured(
                *mean_and_standard_error(run.log_prob),
                information_estimate(run.log_prob, p_x) if p_x is not None else None,
            )
            for layer, run in line.items()
        }
        for density, line in lines.items()
    }
    inputs = np.empty(0, np.uint8)
    draws: dict[str, np.ndarray] = {}
    for name, run in [*first.items(), *([(P_X, of_p_x)] if of_p_x and p_x is not None else [])]:
        samples = run.samples
        if samples and (not draws or np.array_equal(samples[0][:NUM_INPUTS], inputs)):
            inputs, draws[name] = samples[0][:NUM_INPUTS], samples[1][:NUM_INPUTS, 0]
    result = next(iter(first.values())).result
    seen = f", seen at {result.seen_at}" if result.seen_at else ""
    words = (
        f"Nats by depth: {group.name}, {result.network} ({result.classifier}{seen}). NCE of each layer, in the order "
        f"of execution; bars of one standard error over {result.num_images} test images, whose spread the layers share."
    )
    if p_x is not None:
        words += " Below, NCE less that of p(x), the estimate of I(x; h); bars of one standard error, paired."
    if draws:
        words += (
            f" Beneath, {len(inputs)} inputs and a draw from p(x | h) of every layer, with the same noise"
            f"{'; those of p(x) know nothing of the inputs' if P_X in draws else ''}."
        )
    nce = mean_and_standard_error(p_x) if p_x is not None else None
    return Picture(words, depth_profile(list(first), measured, nce, inputs, draws))


def _relative(groups: Sequence[Group]) -> list[Picture]:
    """NCE relative to that of the first layer (the paper's fig 5a)."""
    relative: dict[str, dict[str, Estimate]] = {}
    depths: dict[str, float] = {}
    references = set()
    for group in groups:
        log_probs, first = group.log_probs, group.first_layer
        if group.one_network and first and len(log_probs) > 1:
            relative[group.name] = {k: relative_nce(values, log_probs[first]) for k, values in log_probs.items()}
            depths |= {label: group.inverters[label].result.depth or 0 for label in log_probs}
            references.add(first)
    if not relative:
        return []
    reference = references.pop() if len(references) == 1 else "the first layer"
    words = f"NCE over layers, relative to that of {reference}; bars are 95 % intervals (the paper's fig 5a)."
    return [Picture(words, nce_over_layers(relative, sorted(depths, key=depths.__getitem__), reference))]
