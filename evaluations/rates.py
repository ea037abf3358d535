"""How much of the picture is in what is sent of h, at each rate, and how much of that the task does not need."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from evaluations.information import Estimate, mean_and_standard_error, paired_difference
from evaluations.rows import MeasurementOfDensity, Number, Row, RowWithFiles


@dataclass(frozen=True, kw_only=True)
class AloneResult(Row):
    """Another inverter, trained at one rate alone, beside the one of all rates.

    Attributes:
        run: Its folder.
        less_nats: Its NCE less that of the inverter of all rates, paired, nats.
    """

    run: str
    nce_nats: Number
    nce_nats_se: Number
    less_nats: Number
    less_nats_se: Number


@dataclass(frozen=True, kw_only=True)
class RateResult(Row):
    """What is read of the picture at one rate, in nats, and what the network makes of what is sent.

    Attributes:
        rate: As the config gives it; called is how it is told.
        bits: That are sent of an image; `RatesResult.counted` says what they are.
        nominal_bits: That take no look at any h.
        gain_nats: NCE less that at the rate before, paired over images; None at the first, as is its error.
        below_last_nats: NCE at the last rate less this one, paired.
        accuracy: Of the network whose later layers are given what is sent, on the test images; None where it gives no
            classes or something goes past the layer, as are the next three.
        agreement: The share of images to which it then gives the class that it gives them with all of h.
        accuracy_lost: Its accuracy with all of h less this one, paired over images.
    """

    rate: float
    called: str
    bits: Number
    nominal_bits: Number
    nce_nats: Number
    nce_nats_se: Number
    gain_nats: float | None
    gain_nats_se: float | None
    below_last_nats: Number
    below_last_nats_se: Number
    accuracy: float | None
    agreement: float | None
    accuracy_lost: float | None
    accuracy_lost_se: float | None
    alone: AloneResult | None = None


@dataclass(frozen=True, kw_only=True)
class RatesResult(MeasurementOfDensity, RowWithFiles):
    """The curve of NCE, and of accuracy, against the bits of h that are sent, from the least to the most.

    Attributes:
        channel: What it is that sends less.
        accuracy: Of the network with all of h; None where it has none.
        needed: The number of the rate from which on the network loses no accuracy beyond two paired standard errors, as
            far as these images show; None where there is none.
        settled: Likewise from which on NCE is that at the last rate.
        spare_nats: NCE at the last rate less that at `needed`, paired; None without that.
        prior: The run of p(x), to which no bit is sent; None without one, as are the other three.
        gain_of_first_nats: NCE at the first rate less that of p(x), paired.
    """

    verb = "rates"
    name: str
    layer: str
    channel: str
    counted: str
    num_images: int
    accuracy: float | None
    needed: int | None
    settled: int
    spare_nats: float | None
    spare_nats_se: float | None
    prior: str | None
    prior_nce_nats: float | None
    prior_nce_nats_se: float | None
    gain_of_first_nats: float | None
    gain_of_first_nats_se: float | None
    rates: tuple[RateResult, ...]

    @property
    def sentence(self) -> str:
        """What of the stream the task does not need."""
        if self.accuracy is None:
            return "The network gives no classes, or something goes past the layer: there is no task to compare with."
        if self.needed is None or self.spare_nats is None:
            last = self.rates[-1]
            return (
                f"At the most that was sent, {_bits(last.bits)} bits, the network still loses accuracy: it is right on "
                f"{_share(last.accuracy)}, of {_share(self.accuracy)} with all of h."
            )
        at, last, full = self.rates[self.needed], self.rates[-1], self.rates[self.settled]
        reached = (
            f"From {_bits(at.bits)} bits on ({at.called}) these {self.num_images} images show no loss of accuracy "
            f"({_share(at.accuracy)} of {_share(self.accuracy)})"
        )
        if self.needed == len(self.rates) - 1:
            return f"{reached}, the most that was sent."
        if self.settled <= self.needed:
            return f"{reached}; beyond that no more of the picture is read, up to {_bits(last.bits)} bits."
        return (
            f"{reached}; what is read of the picture goes on rising, by {self.spare_nats:.1f} ± "
            f"{self.spare_nats_se:.1f} nats up to {_bits(full.bits)} bits ({full.called}): so much of it is in the "
            f"stream, and the task does not need it, as far as these images show."
        )


class Measured(NamedTuple):
    """What was measured at one rate, of each test image.

    Attributes:
        log_prob: log p(x | h'), float64 [N] nats.
        correct: Whether the network gives h' the image's class, bool [N]; None where it has none, as is the next.
        agrees: Whether that is the class that it gives h.
    """

    log_prob: Tensor
    correct: Tensor | None
    agrees: Tensor | None


class Curve(NamedTuple):
    """What several rates are, without their names: fields of RateResult, and of RatesResult."""

    rates: list[dict[str, float | None]]
    whole: dict[str, float | int | None]


def curve(measured: Sequence[Measured], correct: Tensor | None, prior: Tensor | None) -> Curve:
    """The numbers of a curve, all differences paired over images.

    Args:
        measured: At each rate, from the one that tells least.
        correct: Of the network with all of h, bool [N].
        prior: log p(x) of the same images, float64 [N] nats.

    Raises:
        ValueError: A log-probability is not finite.
    """
    wrong = [k for k, one in enumerate(measured) if not one.log_prob.isfinite().all()]
    if wrong or (prior is not None and not prior.isfinite().all()):
        where = f"at rate {wrong[0] + 1} of {len(measured)}" if wrong else "of p(x)"
        raise ValueError(f"log p of some test images is not finite {where}, so that there is no NCE; train for longer")
    last = measured[-1].log_prob
    behind = [paired_difference(last, one.log_prob) for one in measured]
    rates: list[dict[str, float | None]] = []
    lost: list[Estimate | None] = []
    for k, one in enumerate(measured):
        nce, error = mean_and_standard_error(one.log_prob)
        gain = paired_difference(one.log_prob, measured[k - 1].log_prob) if k else None
        its = None
        if correct is not None and one.correct is not None:
            its = paired_difference(correct, one.correct)
        lost.append(its)
        rates.append({
            "nce_nats": nce, "nce_nats_se": error,
            "gain_nats": gain and gain.mean, "gain_nats_se": gain and gain.standard_error,
            "below_last_nats": behind[k].mean, "below_last_nats_se": behind[k].standard_error,
            "accuracy": _mean(one.correct), "agreement": _mean(one.agrees),
            "accuracy_lost": its and its.mean, "accuracy_lost_se": its and its.standard_error,
        })  # fmt: skip
    needed, settled = _from_which_on(lost), _from_which_on(behind)
    first = None if prior is None else paired_difference(measured[0].log_prob, prior)
    spare = None if needed is None else behind[needed]
    its_nce, its_error = (None, None) if prior is None else mean_and_standard_error(prior)
    return Curve(rates, {
        "accuracy": _mean(correct), "needed": needed, "settled": len(measured) - 1 if settled is None else settled,
        "spare_nats": spare and spare.mean, "spare_nats_se": spare and spare.standard_error,
        "prior_nce_nats": its_nce, "prior_nce_nats_se": its_error,
        "gain_of_first_nats": first and first.mean, "gain_of_first_nats_se": first and first.standard_error,
    })  # fmt: skip


def of_alone(run: str, log_prob: Tensor, together: Tensor) -> AloneResult:
    """An inverter of one rate beside the one of all: log p(x | h') of the same images, float64 [N] nats each."""
    (nce, error), less = mean_and_standard_error(log_prob), paired_difference(log_prob, together)
    return AloneResult(run=run, nce_nats=nce, nce_nats_se=error, less_nats=less.mean, less_nats_se=less.standard_error)


def _from_which_on(behind: Sequence[Estimate | None]) -> int | None:
    """The first from which on none is above 0 by more than two standard errors; None where the last is."""
    found = None
    for k in reversed(range(len(behind))):
        one = behind[k]
        if one is None or one.mean > 2 * (0.0 if math.isnan(one.standard_error) else one.standard_error):
            break
        found = k
    return found


def _mean(values: Tensor | None) -> float | None:
    return None if values is None else float(values.double().mean())


def _share(value: float | None) -> str:
    return "none" if value is None else f"{value:.1%}"


def _bits(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def points_of(result: RatesResult) -> Mapping[str, list[tuple[float, float, float]]]:
    """The curves of NCE as (bits, nats, error): of one inverter, and of those of one rate each.

    What images have in common cancels: errors are those of differences, to the last rate and to the one inverter.
    """
    found = {"one inverter of all rates": [(r.bits, r.nce_nats, r.below_last_nats_se) for r in result.rates]}
    alone = [(r.bits, r.alone.nce_nats, r.alone.less_nats_se) for r in result.rates if r.alone]
    return found | ({"trained at one rate alone": alone} if alone else {})
