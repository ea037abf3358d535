"""Tested runs in groups: the inverters of one data set."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from torch import Tensor

from evaluations.information import Estimate, paired_difference
from evaluations.report.tested_runs import AnyRun, InverterRun, inverters
from evaluations.results import InverterResult

Classifier = tuple[str | None, str | None]


def classifier_of(result: InverterResult) -> Classifier:
    """Its name, which may be that of a file of weights, or "untrained", and its network's."""
    return result.classifier, result.network


@dataclass
class Group:
    """The inverters of one data set, from the input to the output, all tested on the same images.

    Attributes:
        name: As results give it.
        inverters: By layer; where there are several networks, by layer and network, or the name of its config; where
            a generator has no likelihood, by its density too; and by what the network sees, where that is not x.
        decoders: Likewise, point estimates of the image.
        unconditional: The model of p(x), where there is one.
        others: Further runs of what has a place above, as those of a sweep, each with the run that has it.
        left_out: Names of runs that were tested on other images.
    """

    name: str
    inverters: dict[str, InverterRun] = field(default_factory=dict)
    decoders: dict[str, InverterRun] = field(default_factory=dict)
    unconditional: InverterRun | None = None
    others: list[tuple[InverterRun, InverterRun]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    @property
    def log_probs(self) -> dict[str, Tensor]:
        """log p(x | h) of every test image, [N] nats, of the inverters that have a likelihood."""
        return {label: run.log_prob for label, run in self.inverters.items() if run.result.nce_nats is not None}

    @property
    def p_x(self) -> Tensor | None:
        """log p(x) of every test image, [N] nats."""
        run = self.unconditional
        return run.log_prob if run and run.result.nce_nats is not None else None

    @property
    def first_layer(self) -> str | None:
        """The label of the layer that NCE is told relative to: the first of the only network, if it is inverted."""
        firsts = [label for label in self.log_probs if self.inverters[label].result.depth == 1]
        return firsts[0] if firsts and len(self.classifiers) == 1 else None

    @property
    def classifiers(self) -> set[Classifier]:
        """Those whose layers are inverted."""
        return {classifier_of(run.result) for run in self.inverters.values()}

    def called(self, run: InverterRun) -> str:
        """The classifier of one of the inverters, by its name; with its network's where one name is of several."""
        name, network = classifier_of(run.result)
        alone = [name for name, _ in self.classifiers].count(name) < 2
        return str(name) if alone else f"{name}, {network}"

    @property
    def digests(self) -> set[str | None]:
        """The digests of their weights."""
        return {run.result.network_digest for run in self.inverters.values()}

    @property
    def one_network(self) -> bool:
        """Whether all layers are of one network, its weights and what it sees."""
        return len({what_is_seen(run.result) for run in self.inverters.values()}) == 1

    @property
    def functions(self) -> list[tuple[str, str]]:
        """Pairs of layers, of those with a likelihood, of which the second is a function of the first."""
        its = self.inverters
        return [(a, b) for a, b in combinations(self.log_probs, 2) if is_function(its[b].result, its[a].result)]

    @property
    def in_branches(self) -> list[str]:
        """The layers that something goes past, so that later ones need not be functions of them."""
        return [label for label in self.log_probs if not self.inverters[label].result.bottleneck]


def is_function(later: InverterResult, earlier: InverterResult) -> bool:
    """Whether a layer is a function of another: of one computation, behind it, and nothing goes past that.

    What is sent of a layer by a channel is one of the layer, but no later layer is a function of what was sent.
    """
    same = what_is_seen(later) == what_is_seen(earlier) and earlier.network_digest is not None
    return same and earlier.channel is None and earlier.bottleneck and (later.depth or 0) > (earlier.depth or 0)


def what_is_seen(result: InverterResult) -> tuple[str, ...]:
    """The weights of a network and what it sees: where they are the same, its layers are those of one computation."""
    return str(result.network_digest), str(result.seen_at), str(result.preprocessing)


def images_of(run: InverterRun) -> tuple[Any, ...]:
    """Which images were tested, in which order, and what they are."""
    return run.result.num_dims, run.result.pictures_digest, tuple(run.index.tolist())


def nce_difference(run: InverterRun, less: InverterRun) -> Estimate | None:
    """NCE of one run less another's, paired, nats; None without a likelihood and where the images were others."""
    if run.result.nce_nats is None or less.result.nce_nats is None or images_of(run) != images_of(less):
        return None
    return paired_difference(run.log_prob, less.log_prob)


def grouped(runs: Iterable[AnyRun]) -> list[Group]:
    """The inverters by data set, without exactly known worlds, those of fig 5b, and those of less than all of h.

    What was tested on other images than most inverters of its data set is left out, for differences are paired. Of
    several runs of the same, as in a sweep, the one in the outermost folder comes first.
    """
    chosen = [
        run for run in inverters(runs)
        if run.result.world is None and run.result.course is None and run.result.channel is None
    ]  # fmt: skip
    names = sorted({run.result.dataset for run in chosen})
    return [_group(name, sorted((run for run in chosen if run.result.dataset == name), key=by_depth)) for name in names]


def by_depth(run: InverterRun) -> tuple[Any, ...]:
    """What runs are sorted by: from the input to the output, the outermost folder first."""
    result = run.result
    return result.depth or 0, str(result.classifier), len(run.config_folder.parts), result.name, str(run.folder)


def _group(name: str, runs: list[InverterRun]) -> Group:
    images = list(map(images_of, runs))
    usual = max(images, key=images.count)
    classifiers = {classifier_of(run.result) for run in runs if run.result.layer}
    names, kinds = ({one[k] for one in classifiers} for k in (0, 1))
    group = Group(name)
    for run in runs:
        result, label = run.result, run.result.layer
        if images_of(run) != usual:
            group.left_out.append(result.name)
            continue
        if label is None:
            first = group.unconditional = group.unconditional or run
        else:
            if len(classifiers) > 1:
                both = f"{result.classifier}, {result.network}"
                different = len(kinds) == len(classifiers), len(names) == len(classifiers)
                label += f" of {result.network if different[0] else result.classifier if different[1] else both}"
            if result.nce_nats is None:
                label += f", {result.density}"
            if result.tokens != "all":
                label += f", tokens {result.tokens}"
            if result.seen_at:
                label += f", seen at {result.seen_at}"
            decodes = result.point_estimate and result.nce_nats is not None
            first = (group.decoders if decodes else group.inverters).setdefault(label, run)
        if run is not first:
            group.others.append((run, first))
    return group
