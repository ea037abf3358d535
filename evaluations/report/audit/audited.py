"""Which run is audited, and what stands beside it."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from evaluations.information import Estimate, information_estimate
from evaluations.measurements import ContrastResult
from evaluations.report.groups import Group, images_of, what_is_seen
from evaluations.report.page import Missing
from evaluations.report.tested_runs import AnyRun, InverterRun, inverters, runs_under
from evaluations.results import InverterResult
from evaluations.rows import Measurement
from evaluations.run_order import record_of


@dataclass(frozen=True)
class Audit:
    """One layer of one network, by the inverter that attacks it.

    Attributes:
        run: That inverter.
        prior: p(x) of the same images; None where there is none.
        others: Further inverters with a likelihood, tested on the same images: defences, other layers and networks.
        without_classes: Those of the same h that never saw some classes, and were asked whose h of these is.
        elsewhere: Names of those of other images, which cannot be compared.
        runs: All that were given.
    """

    run: InverterRun
    prior: InverterRun | None
    others: Sequence[InverterRun]
    without_classes: Sequence[InverterRun]
    elsewhere: Sequence[str]
    runs: Sequence[AnyRun]

    @property
    def result(self) -> InverterResult:
        return self.run.result

    @property
    def layer(self) -> str:
        return str(self.result.layer)

    @property
    def source(self) -> str:
        """What the attacker has: the layer, or what is sent of it."""
        return self.layer if self.result.channel is None else f"{self.layer} sent at {self.result.rate}"

    @property
    def proven(self) -> bool:
        """Whether the lower bound is above 0 with its whole interval."""
        return self.contrast is not None and self.contrast.bound_nats_low > 0

    @property
    def network(self) -> str:
        """For people: its kind, and whose weights."""
        return f"{self.result.network} ({self.result.classifier})"

    @cached_property
    def gain(self) -> Estimate | None:
        """The estimate of I(x; h); None without p(x)."""
        return None if self.prior is None else information_estimate(self.run.log_prob, self.prior.log_prob)

    @cached_property
    def contrast(self) -> ContrastResult | None:
        """The guaranteed lower bound; None where it was not measured."""
        return next(iter(self.run.measured(ContrastResult)), None)

    @property
    def group(self) -> Group:
        """As other sections of a report take it, without the others."""
        return Group(self.result.dataset, {self.layer: self.run}, unconditional=self.prior)

    def missing(self, kind: type[Measurement], what: str, *more: str) -> Missing:
        """Of what a verb measures."""
        if self.run.rows(kind):
            what += "; there is one of other weights than those that were tested, which does not count"
        return Missing(what, [command(self.run, kind.verb, *more)])


def command(run: AnyRun, verb: str, *more: str, name: str | None = None) -> str:
    """That asks a verb of a run, or of another run of its config, which is called so."""
    record, root = record_of(run.run_folder), run.config_folder.parent
    name = name or (run.run_folder.name if record and record.named else None)
    words = ["python", "cli.py", verb, "--config", run.result.name, *(["--name", name] if name else [])]
    words += [] if root == Path("runs") else ["--trainer.default_root_dir", str(root)]
    return shlex.join([*words, *more])


def audit_of(places: Sequence[Path]) -> Audit:
    """The first inverter in these folders, in the order in which they are given, is audited.

    Raises:
        FileNotFoundError: A folder is missing.
        ValueError: There is nothing in them to audit.
    """
    runs = {run.folder.resolve(): run for place in places for run in runs_under([place])}
    found = inverters(runs.values())
    chosen = next((run for run in found if _why_not(run.result) is None), None)
    if chosen is None:
        where = ", ".join(map(str, places))
        why = f"{found[0].result.name}: {_why_not(found[0].result)}" if found else "no tested inverter"
        raise ValueError(
            f"nothing to audit in {where} ({why}); give the folder of a tested inverter with a likelihood, as "
            f"runs/inverter_mnist5k_fc3"
        )
    its, of = images_of(chosen), chosen.result
    alike = [run for run in found if run.result.dataset == of.dataset and run.result.nce_nats is not None]
    same = [run for run in alike if images_of(run) == its and run is not chosen]
    priors = [run for run in same if run.result.layer is None]
    unseen = [run for run in same if of_unseen_classes(run) and same_h(run.result, of)]
    return Audit(
        run=chosen,
        prior=max(priors, key=lambda run: float(run.log_prob.mean()), default=None),
        others=[
            run for run in same if run.result.layer is not None and not run.result.point_estimate and run not in unseen
        ],
        without_classes=unseen,
        elsewhere=[run.result.name for run in found if run is not chosen and run not in same],
        runs=list(runs.values()),
    )


def called(runs: Sequence[InverterRun]) -> list[str]:
    """By config, and by folder where several are of one."""
    names = [run.result.name for run in runs]
    return [
        name if names.count(name) < 2 else f"{name}, {run.run_folder.name}"
        for name, run in zip(names, runs, strict=True)
    ]


def same_h(a: InverterResult, b: InverterResult) -> bool:
    """Whether it is what one layer gives of the same pictures, whatever of it is sent."""
    return (a.layer, what_is_seen(a), a.tokens) == (b.layer, what_is_seen(b), b.tokens)


def of_unseen_classes(run: InverterRun) -> bool:
    """Whether it was asked whose h is, of images of classes that it was not trained on."""
    return any(one.unseen for found in run.measured(ContrastResult) for one in found.reidentified)


def _why_not(result: InverterResult) -> str | None:
    """A run cannot be audited; None where it can."""
    if result.layer is None:
        return "an unconditional model, which has no h that could leak"
    if result.nce_nats is None:
        return f"{result.density} has no log p(x | h), and so no nats"
    return "a point estimate, which draws no pictures" if result.point_estimate else None
