"""Had the trainings ended? That is the condition for what a bound is taken to mean."""

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from evaluations.charts import learning_curves
from evaluations.information import mean_and_standard_error
from evaluations.report.budgets import P_X
from evaluations.report.cells import NONE
from evaluations.report.groups import Group
from evaluations.report.page import Picture, Section, Table
from evaluations.report.tested_runs import InverterRun

IMPROVING, WORSE = "still improving", "getting worse"
SHARE = 0.25  # of the steps, at the end, over which the change is told
WORDS = (
    "NCE of the validation images as each training went. A training is called settled where that changed, over about "
    "the last quarter of its steps, by less than the standard error of what is told of it: of the estimate of I(x; h), "
    "or of NCE where there is no p(x); else it was still improving, or getting worse. This is a mark of the length, "
    "not a proof: a curve also flattens because the learning rate falls towards its end. Whether a longer training "
    "would find more is told by the same experiment at several budgets alone."
)


@dataclass(frozen=True)
class Course:
    """NCE of the validation images, nats, by the number of steps done, and the standard error it is judged by."""

    points: Sequence[tuple[int, float]]
    error: float

    @property
    def last(self) -> tuple[int, float] | None:
        """About the last quarter: how many steps, and by how much NCE rose over them; None where that is not known."""
        if len(self.points) < 2:
            return None
        end, value = self.points[-1]
        steps, before = min(self.points[:-1], key=lambda point: abs(point[0] - (1 - SHARE) * end))
        return end - steps, value - before

    @property
    def verdict(self) -> str:
        if self.last is None or not math.isfinite(self.error):
            return "not known"
        change = self.last[1]
        return "settled" if abs(change) < self.error else IMPROVING if change > 0 else WORSE


def courses_of(group: Group) -> dict[str, Course]:
    """Of every inverter, and of p(x), whose training left its curve."""
    p_x, log_probs = group.p_x, group.log_probs
    errors = {
        label: mean_and_standard_error(values - p_x if p_x is not None else values)[1]
        for label, values in log_probs.items()
    }
    runs = {label: (group.inverters[label], error) for label, error in errors.items()}
    if group.unconditional and p_x is not None:
        least = min(errors.values(), default=mean_and_standard_error(p_x)[1])
        runs[P_X] = group.unconditional, least
    found = {label: Course(_points(run), error) for label, (run, error) in runs.items()}
    return {label: course for label, course in found.items() if course.points}


def _points(run: InverterRun) -> list[tuple[int, float]]:
    """By metrics.csv in the run's folder; none where it is not there, is no such file, or tells no validation."""
    path = run.run_folder / "metrics.csv"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            points = {
                int(row["step"]) + 1: float(row["val/nce_nats"])
                for row in csv.DictReader(file) if row.get("val/nce_nats") and row.get("step")
            }  # fmt: skip
    except (OSError, ValueError, csv.Error):
        return []
    return sorted((step, value) for step, value in points.items() if math.isfinite(value))


def section(group: Group) -> Section | None:
    courses = courses_of(group)
    if not courses:
        return None
    rows = [
        [label, str(course.points[-1][0]), f"{course.points[-1][1]:.2f}", *_change(course), course.verdict]
        for label, course in courses.items()
    ]
    header = [
        "layer",
        "steps",
        "validation NCE, nats",
        "over the last steps",
        "it rose by, nats",
        "error, nats",
        "verdict",
    ]
    words = f"{group.name}: NCE of the validation images against the steps of training."
    moving = _named(courses.items(), IMPROVING)
    worse = _named(courses.items(), WORSE)
    sentences = [
        *([f"Still improving when it ended: {moving}. The bound of these is of this training, not of the layer."]
          if moving else ["No validation NCE was still rising by more than its error when its training ended."]),
        *([f"Getting worse at the end: {worse}; what was tested is the best checkpoint, not the last."]
          if worse else []),
    ]  # fmt: skip
    curves = {label: course.points for label, course in courses.items()}
    chart = Picture(words, learning_curves(curves))
    return Section(
        f"{group.name}: had training ended?", [*sentences, chart, Table("Of trainings.", header, rows), WORDS]
    )


def _change(course: Course) -> list[str]:
    error = f"{course.error:.2f}" if math.isfinite(course.error) else NONE
    return [str(course.last[0]), f"{course.last[1]:+.2f}", error] if course.last else [NONE, NONE, error]


def _named(courses: Iterable[tuple[str, Course]], verdict: str) -> str:
    return ", ".join(label for label, course in courses if course.verdict == verdict)
