"""The run's metrics as CSV."""

import csv
import io
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only

from runtime.files import replacing

IMAGES_PER_SECOND = "train/images_per_second"  # the one number that two equal runs do not have in common


class MetricsCSV(Logger):
    """`metrics.csv` in the run's folder; a resumed run adds to it.

    Of the same run it is the same file bit for bit: what a clock says goes to W&B alone.

    All rows are kept, some thousands in a long run, so that the file is replaced whole at every save. Lightning saves
    whenever it has logged, so no checkpoint is ahead of the file.

    Args:
        folder: The run's.
        first_step: The steps that the checkpoint of a resumed run has done; rows of later ones will be written again.

    Raises:
        ValueError: The file was damaged.
    """

    name, version = "", ""

    def __init__(self, folder: Path, first_step: int = 0) -> None:
        super().__init__()
        self.path = folder / "metrics.csv"
        self.rows: list[dict[str, Any]] = []
        if self.path.is_file():
            self.rows = [row for row in saved_rows(self.path) if int(row["step"]) < first_step]

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: the run's config.yaml has them."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """One row."""
        kept = {name: value for name, value in metrics.items() if name != IMAGES_PER_SECOND}
        self.rows.append({**kept, "step": step})

    @rank_zero_only
    def save(self) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, fieldnames=sorted(set().union(*self.rows)))
        writer.writeheader()
        writer.writerows(self.rows)
        with replacing(self.path) as file:
            file.write(text.getvalue().encode())


def saved_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a `metrics.csv`, as texts. Raises ValueError where one is no row of numbers with a step."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, strict=True)
            rows = [{key: text for key, text in row.items() if text != ""} for row in reader]
        for row in rows:
            int(row["step"])
            for text in row.values():
                float(text)
    except (ValueError, TypeError, KeyError, csv.Error) as error:
        raise ValueError(f"{path} was damaged ({error}); mend it, or move it away to go on without its rows") from error
    return rows
