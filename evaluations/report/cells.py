"""Results as cells of a table and as sentences, for people."""

import math
from collections.abc import Iterable

from evaluations.information import Estimate, wilson_interval
from evaluations.results import InverterResult, TestResult

NONE = "\N{EN DASH}"  # where there is no value


def number(value: float | None, error: float | None = None, digits: int = 2) -> str:
    """A number, with its standard error where there is one."""
    if value is None:
        return NONE
    return f"{value:.{digits}f}" + ("" if error is None or math.isnan(error) else f" ± {error:.{digits}f}")


def share(value: float | None, num_trials: int, digits: int = 2, percent: bool = False) -> str:
    """A share of so many independent trials, with its 95 % Wilson interval."""
    if value is None or math.isnan(value) or not num_trials:
        return NONE
    scale = 100 if percent else 1
    low, high = (scale * bound for bound in wilson_interval(value, num_trials))
    return f"{scale * value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def nce(result: InverterResult, digits: int = 2) -> str:
    """NCE in nats, with its standard error."""
    return number(result.nce_nats, result.nce_nats_se, digits)


def with_interval(value: Estimate | None) -> str:
    """An estimate with its standard error and its interval."""
    if value is None:
        return NONE
    return f"{number(value.mean, value.standard_error)} [{value.low:.2f}, {value.high:.2f}]"


def notes(results: Iterable[TestResult]) -> list[str]:
    """What a reader must know of their data sets, each once."""
    return list(dict.fromkeys(result.dataset_note for result in results if result.dataset_note))
