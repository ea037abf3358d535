"""What else was asked of the layer: whose h it is, attributes, rates, and the proof in bytes."""

from evaluations.measurements import CompressionResult, ContrastResult, LedgerResult
from evaluations.rates import RatesResult
from evaluations.report import compression, ledgers, rates
from evaluations.report.audit.audited import Audit, called, command, same_h
from evaluations.report.kept import reidentified
from evaluations.report.page import Missing, Part, Section


def whose(audit: Audit) -> Section:
    """Re-identification, of unseen images and of unseen classes."""
    found = {audit.layer: audit.contrast} if audit.contrast else {}
    missing: list[Part] = []
    if not found:
        missing = [audit.missing(ContrastResult, "how often h gives away whose it is", "--num_images", "256")]
    for run, name in zip(audit.without_classes, called(audit.without_classes), strict=True):
        found[f"{audit.layer}, by {name}"] = run.measured(ContrastResult)[0]
    parts = [*reidentified(found), *missing]
    if not any(one.unseen for contrast in found.values() for one in contrast.reidentified):
        without = "--data.left_out_classes", "[0]"
        what = (
            "the same of classes that training never saw, by an inverter that was trained without them, as here the "
            "first; give its folder after that of the audited one"
        )
        commands = [command(audit.run, verb, *without, name="without_0") for verb in ("fit", "contrast")]
        parts.append(Missing(what, commands))
    return Section("Whose is it?", parts)


def attributes(audit: Audit) -> Section:
    both = [audit.run, *([audit.prior] if audit.prior else [])]
    found = ledgers.section(both)
    what = "the nats that h keeps of each attribute that the data set knows of its images"
    return Section("What it tells, by attribute", found.parts if found else [audit.missing(LedgerResult, what)])


def sent(audit: Audit) -> Section:
    """The curves of inverters with a channel behind this very layer."""
    its = audit.result
    behind = [
        run for run in (audit.run, *audit.others)
        if run.result.channel and same_h(run.result, its)
    ]  # fmt: skip
    found = rates.section(behind)
    if found and any(run.measured(RatesResult) for run in behind):
        return Section("If less of h is sent", found.parts)
    what = "how much can be read if h is rounded to fewer bits, and how much of that the network needs"
    if behind:
        return Section("If less of h is sent", [Missing(what, [command(behind[0], "rates")])])
    channel = ("--model.channel", "UniformQuantiser", "--model.channel.bits", "[1, 2, 4, 8]")
    commands = [command(audit.run, verb, *channel, name="at_rates") for verb in ("fit", "rates")]
    return Section("If less of h is sent", [Missing(what, commands)])


def in_bytes(audit: Audit) -> Section:
    found = compression.section([audit.group])
    what = "files of test images from which they come back bit for bit, given h, as proof that log p is no mere number"
    asked = command(audit.run, "compress", "--num_images", "500")
    parts: list[Part] = [*found.parts] if found else [Missing(what, [asked])]
    if found and not audit.run.measured(CompressionResult):
        parts.append(Missing(f"{what} (above is p(x) alone)", [asked]))
    return Section("The proof in bytes", parts)
