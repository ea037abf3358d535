"""How to read a report, and what it leaves out."""

from collections.abc import Sequence

from evaluations.measurements import (
    ComparisonResult,
    CompressionResult,
    ContrastResult,
    DistancesResult,
    EstimatorResult,
    LedgerResult,
)
from evaluations.rates import RatesResult
from evaluations.report.page import Section
from evaluations.report.tested_runs import AnyRun, inverters
from evaluations.rows import Measurement

HOW_TO_READ = (
    "NCE is the mean of log p(x | h) over the test images, in nats per image: the negative of a cross-entropy. It "
    "bounds the information that the layer keeps, I(x; h), from below, up to the constant H(x), the entropy of the "
    "images: a better density model only raises it. It is minus an upper bound of H(x | h): it proves that so much "
    "can be read of h, and never that no more can. Differences of NCE between layers are differences of these bounds.",
    "Less the NCE of an unconditional model p(x) it is an estimate of I(x; h), not a bound: a poor unconditional model "
    "inflates it.",
    "A deterministic network in floating point loses hardly any information in principle, short of exact collisions. "
    "What NCE measures is the information that a model of this family, trained like this, can use (Xu et al. 2020). A "
    "lower number for a later layer says that what was there has become harder to use, not that it cannot be there.",
    "Bits/dim is -NCE per pixel and channel, in bits. With other images' h, NCE must be lower: else the model does not "
    "listen to h. Class agreement is the share of samples that the classifier gives the class that it gives the input. "
    "NCE of an MSE decoder is that of a spherical Gaussian around its mean, discretised like pixels.",
    "Errors after a ± are standard errors over test images; those of differences are paired over the same images, and "
    "brackets are 95 % intervals, by the bootstrap, and Wilson's of accuracy and class agreement. They say nothing of "
    "the spread over trainings; each was done once.",
)


def section(runs: Sequence[AnyRun]) -> Section:
    parts = list(HOW_TO_READ)
    if any(run.result.bound for run in inverters(runs)):
        parts.append(
            "Some networks see the pictures at a side of their own, not the smaller x that is modelled: their h is no "
            "function of x. NCE still bounds I(x; h) from below, up to H(x): what the layer tells about the small "
            "picture. What it tells of details that x does not have is not in the number."
        )
    kinds: tuple[type[Measurement], ...] = (
        ComparisonResult, CompressionResult, ContrastResult, DistancesResult, EstimatorResult, LedgerResult,
        RatesResult,
    )  # fmt: skip
    for kind in kinds:
        stale = [run.result.name for run in inverters(runs) if len(run.measured(kind)) < len(run.rows(kind))]
        if stale:
            parts.append(
                f"The {kind.answer()} of {', '.join(stale)} are left out, for they are of other weights than the test: "
                f"python cli.py test and {kind.verb} measure both anew."
            )
    return Section("How to read this", parts)
