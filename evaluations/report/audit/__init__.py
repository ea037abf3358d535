"""A report of one layer for someone who must decide: what can be read of it, by whom, and what is not known."""

from collections.abc import Sequence

from evaluations.regions import Region
from evaluations.report.audit import asked, attack, defences, proof, readable
from evaluations.report.audit.audited import Audit, audit_of
from evaluations.report.page import Section

__all__ = ["Audit", "audit_of", "sections"]


def sections(audit: Audit, boxes: Sequence[Region] = ()) -> list[Section]:
    """All of them, always: what was not measured is named, with the command that does it."""
    return [
        readable.verdict(audit),
        attack.section(audit),
        readable.nats(audit),
        readable.pictures(audit),
        readable.regions(audit, boxes),
        asked.whose(audit),
        asked.attributes(audit),
        asked.sent(audit),
        defences.section(audit),
        asked.in_bytes(audit),
        proof.digests(audit),
        proof.limits(audit),
    ]
