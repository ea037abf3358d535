"""How does NCE fall from layer to layer, on every data set?"""

from collections.abc import Sequence

from evaluations.charts import nce_over_layers
from evaluations.information import Estimate, relative_nce
from evaluations.report.groups import Group
from evaluations.report.page import Picture, Section


def section(groups: Sequence[Group]) -> Section | None:
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
        return None
    reference = references.pop() if len(references) == 1 else "the first layer"
    words = f"NCE over layers, relative to that of {reference}; bars are 95 % intervals (the paper's fig 5a)."
    chart = nce_over_layers(relative, sorted(depths, key=depths.__getitem__), reference)
    return Section("From layer to layer", [Picture(words, chart)])
