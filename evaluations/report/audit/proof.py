"""Of which weights and data, how to make it again, and what it does not say."""

import hashlib
import shlex
from collections.abc import Sequence

from evaluations.measurements import CompressionResult, ContrastResult, LedgerResult
from evaluations.rates import RatesResult
from evaluations.report import differences, made
from evaluations.report.audit.audited import Audit
from evaluations.report.audit.readable import not_ended
from evaluations.report.page import Code, Facts, Part, Section
from evaluations.report.tested_runs import InverterRun

AGAIN = "again"  # the name of runs that repeat those of the page


def digests(audit: Audit) -> Section:
    result, prior = audit.result, audit.prior
    index = audit.run.index
    which = hashlib.sha256(index.astype("<i8").tobytes()).hexdigest()
    rows = [
        ("Network", f"{audit.network}, up to {audit.layer}: weights {result.network_digest}"),
        ("Inverter", f"{result.density}, {result.name}: weights {result.density_digest}"),
    ]
    if prior:
        rows.append(("p(x)", f"{prior.result.density}, {prior.result.name}: weights {prior.result.density_digest}"))
    pictures = result.pictures_digest or "those of the data set of this name, which the code verifies as it reads them"
    rows += [
        ("Data", f"{result.dataset}, {result.split} images; pictures: {pictures}"),
        ("Images", f"{result.num_images}, the first {index[:5].tolist()} by their index; all, in order: {which}"),
    ]
    first = audit.run.array("images")
    if first is not None:
        pixels = hashlib.sha256(first.tobytes()).hexdigest()
        rows.append(("Their pixels", f"of the first {len(first)}, in order: {pixels}"))
    rows += [
        ("Checkpoint", str(result.checkpoint)),
        ("Results", f"{audit.run.folder}, commit {result.commit or 'not known'}"),
    ]
    runs = [run for run in audit.runs if run.folder in {audit.run.folder, *([prior.folder] if prior else [])}]
    parts: list[Part] = [
        "Digests of weights and of the order of images are SHA-256.",
        Facts(rows),
        *made.section(runs).parts,
    ]
    return Section("Weights, data and machine", [*parts, "To make it again:", Code(_again(audit))])


def _again(audit: Audit) -> list[str]:
    """From the training on; the config of a run has all of its arguments."""
    runs = [audit.run, *audit.without_classes, *audit.others]
    trained = [*([audit.prior] if audit.prior else []), *runs]
    lines = [_line(run, "fit") for run in trained]
    for run in runs:
        for one in run.measured(ContrastResult)[:1]:
            classes = next((one.classes for one in one.reidentified if one.classes and not one.unseen), None)
            of = ["--classes", str(list(classes))] if classes else []
            lines.append(_line(run, one.verb, "--num_images", str(one.num_images), *of))
        if ledger := run.measured(LedgerResult):
            layers = str([*dict.fromkeys(one.layer for one in ledger)])
            images = "--num_images", str(ledger[0].num_images), "--num_train", str(ledger[0].num_train)
            lines.append(_line(run, "ledger", *images, "--layers", layers))
        lines += [
            _line(run, its.verb, "--num_images", str(its.num_images)) for its in run.measured(CompressionResult)[:1]
        ]
        lines += [_line(run, its.verb, "--num_images", str(its.num_images)) for its in run.measured(RatesResult)[:1]]
    beside = [audit.run, *audit.others]
    for difference, _ in differences.of_tests(beside):
        pair = [next(run for run in beside if is_it(run.result)) for is_it in (difference.is_from, difference.is_of)]
        lines.append(f"python cli.py diff {_folders(pair)}")
    return [
        *lines,
        f"python cli.py report --for audit {_folders([audit.run, *(r for r in trained if r != audit.run)])}",
    ]


def _line(run: InverterRun, verb: str, *more: str) -> str:
    """That asks a verb of a run of the same config."""
    return shlex.join(
        ["python", "cli.py", verb, "--config", str(run.run_folder / "config.yaml"), "--name", AGAIN, *more]
    )


def _folders(runs: Sequence[InverterRun]) -> str:
    """Of those that were made again."""
    return shlex.join(str(run.config_folder / AGAIN) for run in runs)


def limits(audit: Audit) -> Section:
    result = audit.result
    certified = "This page certifies that at least so much can be read. " if audit.proven else ""
    note = f" {result.dataset_note}" if result.dataset_note else ""
    rows = [
        ("A leak, never safety", f"{certified}Nothing on it says that the rest cannot be read: NCE is minus an upper "
         "bound of H(x | h), and what was not found may be there."),
        ("A better attacker", "A larger model, a longer training, one who has the weights and compares h exactly, or "
         "who has more than one h of a picture, may read more. A deterministic network loses hardly any information "
         "in principle: what is told is what this attacker can use."),
        ("The estimate", "The lower bound holds for any model. The estimate of I(x; h), its map and its regions do not "
         "bound anything, and a poor p(x) makes them too large."),
        ("Training", " ".join(not_ended(audit)) or "By the validation images it had ended, as far as that can be seen: "
         "NCE rose by less than its error, or its course is not known."),
        ("Of whom", f"These are means over {result.num_images} {result.split} images of {result.dataset}, and hold for "
         f"pictures like these alone.{note} Single pictures can leak far more, and pictures of another kind are not "
         f"known."),
        ("Errors", "are of the choice of test images, 95 % intervals among them, and not of other trainings: each was "
         "done once."),
    ]  # fmt: skip
    if result.bound:
        rows.append(("Details", f"{result.bound}. What h tells of details that it does not have is not counted."))
    return Section("What this page does not say", [Facts(rows)])
