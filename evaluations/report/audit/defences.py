"""What does each defence buy: other networks, layers and channels on the same images?"""

import shlex
from collections.abc import Sequence

import numpy as np

from evaluations.difference_figures import figures
from evaluations.figures import layers_grid
from evaluations.measurements import ContrastResult
from evaluations.rates import RatesResult
from evaluations.report import differences
from evaluations.report.audit.audited import Audit, called, command
from evaluations.report.cells import NONE, number, share, with_interval
from evaluations.report.groups import nce_difference
from evaluations.report.page import Grid, Missing, Part, Picture, Section, Table
from evaluations.report.tested_runs import AnyRun, InverterRun
from evaluations.results import ClassifierResult

NUM_INPUTS, NUM_DRAWS, MOST_SHOWN = 4, 2, 5
WORDS = (
    "Every row is attacked by an inverter of its own, which was trained on what that row gives: a defence is not "
    "credited with an attacker who does not know it. Below 0, less is read of the same images than of the audited "
    "layer, on average. That so much less was read does not prove that so much less can be."
)


def section(audit: Audit) -> Section:
    title = "What each defence buys"
    remarks: list[Part] = []
    if audit.elsewhere:
        remarks.append(
            f"Not compared, as they have no likelihood or are of other images: {', '.join(audit.elsewhere)}."
        )
    missing = Missing(
        "another network, layer or channel on the same images. Train an inverter of each, and give its folder after "
        "that of the audited one, with that of its classifier for the accuracy",
        [
            command(audit.run, "fit", "--model.layer", "OTHER", name="other_layer"),
            command(audit.run, "fit", "--classifier", "DEFENDED.ckpt", name="defended"),
            f"python cli.py report --for audit {shlex.quote(str(audit.run.folder))} OTHER_RUN ...",
        ],
    )
    if not audit.others:
        return Section(title, [missing, *remarks])
    names = dict(zip(map(id, audit.others), called(audit.others), strict=True))
    audited = f"{audit.layer}, audited"
    rows = [_row(audited, audit, audit.run)]
    rows += [_row(names[id(run)], audit, run) for run in audit.others]
    header = [
        "run", "layer", "network", "what is sent", "NCE less the audited one's, nats", "I(x; h) at least",
        "accuracy of the network, %",
    ]  # fmt: skip
    parts: list[Part] = [WORDS, Table("Of the same images.", header, rows), *remarks, *_grid(audit, names)]
    if all(row[-1] == NONE for row in rows):
        what = (
            "the accuracy of these networks, which a defence may cost: give the folders of their classifiers' runs too"
        )
        parts.append(Missing(what))
    parts += _told_apart(audit)
    return Section(title, parts)


def _told_apart(audit: Audit) -> list[Part]:
    """Where others differ from the audited one, and which images one tells apart and the other does not."""
    its, parts = (audit.result.network_digest, audit.result.density_digest), list[Part]()
    for one, arrays in differences.of_tests([audit.run, *audit.others]):
        if its in [(side.network_digest, side.density_digest) for side in (one.a, one.b)]:
            made = figures(one, arrays)
            parts += [
                Picture(f"{one.b.called} less {one.a.called}. {words}", figure)
                for words, figure in (made[name] for name in ("map", "pairs") if name in made)
            ]
    commands = [
        f"python cli.py diff {shlex.quote(str(audit.run.folder))} {shlex.quote(str(run.folder))}"
        for run in audit.others[:1]
    ]
    what = "where in the picture they differ, and which images one tells apart and the other does not"
    return parts or [Missing(what, commands)]


def _row(name: str, audit: Audit, run: InverterRun) -> list[str]:
    result = run.result
    difference = None if run is audit.run else nce_difference(run, audit.run)
    bound = next(iter(run.measured(ContrastResult)), None)
    at_least = f"{number(bound.bound_nats, bound.bound_nats_se)} ({bound.num_images} images)" if bound else NONE
    sent = f"{result.channel}, at {result.rate}" if result.channel else "all of h"
    network = f"{result.network} ({result.classifier})"
    accuracy = accuracy_when_sent(run) if result.channel else accuracy_of(result.network_digest, audit.runs)
    return [name, str(result.layer), network, sent, with_interval(difference), at_least, accuracy]


def accuracy_of(network_digest: str | None, runs: Sequence[AnyRun]) -> str:
    """Of the network with these weights, where the test of its classifier was given."""
    for run in runs:
        its = run.result
        if isinstance(its, ClassifierResult) and its.network_digest == network_digest:
            return share(its.accuracy, its.num_images, 1, percent=True)
    return NONE


def accuracy_when_sent(run: InverterRun) -> str:
    """Of the network whose later layers are given what the tested rate sends, where `rates` measured it."""
    for found in run.measured(RatesResult):
        for rate in found.rates:
            if rate.called == run.result.rate:
                return share(rate.accuracy, found.num_images, 1, percent=True)
    return NONE


def _grid(audit: Audit, names: dict[int, str]) -> list[Part]:
    """The same images, and draws of what each gives, with the same noise."""
    samples = audit.run.samples
    if samples is None:
        return []
    inputs = samples[0][:NUM_INPUTS]
    columns = {f"{audit.layer}, audited": samples[1][:NUM_INPUTS, :NUM_DRAWS]}
    for run in audit.others[:MOST_SHOWN]:
        if (its := run.samples) and np.array_equal(its[0][: len(inputs)], inputs):
            columns[f"{names[id(run)]}, {run.result.layer}"] = its[1][: len(inputs), :NUM_DRAWS]
    words = "The same test images, and draws by those who have what each gives; the noise is the same for all."
    return [Grid(words, layers_grid(inputs, columns), inputs, columns)] if len(columns) > 1 else []
