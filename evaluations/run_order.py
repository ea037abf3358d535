"""The order of a config's runs: each has a number, one more than the highest there was when it began."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluations.rows import Row

RECORD = "run.json"  # in a run's folder


@dataclass(frozen=True, kw_only=True)
class RunRecord(Row):
    """What is known of a run from its beginning on, and of its training, once that has ended by itself.

    Attributes:
        number: Among the runs of its config, from 1.
        folder: The name that its folder was given: of a copy it is another.
        named: By the user, and not by the time.
        images: That the training saw, each as often as it did: all steps, and a whole batch in each.
        recipe: A digest of all that decides the training but its length; None where that changed on the way, or the
            training ended before its last step.
        max_steps: That were asked for.
        machine: Which it began on: system, processor and accelerator. This and the next are None up to 0.10.
        versions: Of Python and of what computes, by their names.
    """

    number: int
    folder: str
    named: bool
    images: int | None = None
    recipe: str | None = None
    max_steps: int | None = None
    machine: str | None = None
    versions: dict[str, str] | None = None


def in_order(folders: Iterable[Path]) -> list[Path]:
    """Folders of one config's runs, from the oldest to the newest.

    A copy comes before its original, whose number it has. Versions up to 0.4 gave no numbers: their runs come first,
    by the numbers in their names, as _9 before _12.
    """
    return sorted(folders, key=_place)


def record_of(folder: Path) -> RunRecord | None:
    """None where there is none. Raises ValueError where it cannot be read."""
    path = folder / RECORD
    if not path.is_file():
        return None
    try:
        return RunRecord.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, RecursionError) as error:
        remedy = "delete it, and the run counts as older than all others"
        raise ValueError(f"{path} cannot be read ({error}); {remedy}") from error


def _place(folder: Path) -> tuple[Any, ...]:
    record = record_of(folder)
    name = [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", folder.name)]
    return (record.number, record.folder == folder.name, name) if record else (0, False, name)
