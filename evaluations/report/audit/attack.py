"""Who could read so much: what the attacker is taken to have, and what not."""

from evaluations.measurements import CompressionResult
from evaluations.report.audit.audited import Audit
from evaluations.report.page import Facts, Section


def section(audit: Audit) -> Section:
    result = audit.result
    seen = {
        "x": "the network's own h of the picture that is to be read",
        "original": f"h of the picture at {result.seen_at}, while what is read is the smaller {_shape(audit)} one",
        "partner": "h of another picture, a partner, which shares something with the one that is to be read",
    }[result.sees]
    tokens = "" if result.tokens == "all" else f" (tokens {result.tokens})"
    images = "not recorded" if result.training_images is None else f"{result.training_images:,}"
    compute = "not recorded" if result.training_flop is None else f"{result.training_flop:.2g}"
    exactly = f"sent by {result.channel}, at {result.rate}" if result.channel else "every number exactly as computed"
    coded = next(iter(audit.run.measured(CompressionResult)), None)
    size = f", {coded.given_bytes:,.0f} bytes" if coded else ""
    has = [
        ("h of one picture", f"{audit.layer}{tokens} of {audit.network}, {exactly}{size}: {seen}."),
        (
            "Pictures of the kind",
            f"the training images of {result.dataset}, as the attacker's own collection, with h of each. Training saw "
            f"{images}, counting each as often as it was seen.",
        ),
        (
            "The network",
            "as something to ask: it gives h of the attacker's own pictures. Its weights, gradients and labels are not "
            "used.",
        ),
        (
            "Compute",
            f"{compute} FLOP, the forward and backward passes of one {result.density} ({result.name}), trained once.",
        ),
        (
            "Knowledge of the defence",
            "all of it: an inverter is trained on what the network, and whatever lies behind its layer, really gives.",
        ),
    ]
    has_not = [
        ("These pictures", f"none of the {result.num_images} test images, nor anything else about them."),
        ("More of the same", "h of one picture once; no second view of it, and no h of other layers."),
        ("More effort", "no larger model, longer training, or better idea than this one."),
    ]
    return Section(
        "The attack", ["The attacker is taken to have", Facts(has), "and is taken not to have", Facts(has_not)]
    )


def _shape(audit: Audit) -> str:
    shape = audit.result.image_shape
    return f"{shape[1]}x{shape[2]}" if shape else "modelled"
