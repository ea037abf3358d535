"""Numbers as cells of a table, for people."""

from evaluations.information import Estimate

NONE = "\N{EN DASH}"  # where there is no value


def number(value: float | None, error: float | None = None, digits: int = 2) -> str:
    """A number with its standard error, for people."""
    if value is None:
        return NONE
    return f"{value:.{digits}f}" + (f" ± {error:.{digits}f}" if error is not None else "")


def percent(share: float, error: float | None) -> str:
    """A share and its standard error in per cent, without the sign."""
    return number(100 * share, None if error is None else 100 * error)


def estimate(value: Estimate, digits: int = 2) -> str:
    """With its standard error and interval."""
    interval = f" [{value.low:.{digits}f}, {value.high:.{digits}f}]"
    return number(value.mean, value.standard_error, digits) + interval
