"""The run's metrics as CSV."""

import csv
import io
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only

from runtime.files import replacing


class MetricsCSV(Logger):
    """`metrics.csv` in the run's folder; a resumed run adds to it.

    All rows are kept, some thousands in a long run, so that the file is replaced whole at every save. Lightning saves
    whenever it has logged, so no checkpoint is ahead of the file.

    Args:
        folder: The run's.
        first_step: The steps that the checkpoint of a resumed run has done; rows of later ones will be written again.
    """

    name, version = "", ""

    def __init__(self, folder: Path, first_step: int = 0) -> None:
        super().__init__()
        self.path = folder / "metrics.csv"
        self.rows: list[dict[str, Any]] = []
        if self.path.is_file():
            with self.path.open(newline="") as file:
                rows = [row for row in csv.DictReader(file) if int(row["step"]) < first_step]
            self.rows = [{key: text for key, text in row.items() if text != ""} for row in rows]

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: the run's config.yaml has them."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """One row."""
        self.rows.append({**metrics, "step": step})

    @rank_zero_only
    def save(self) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, fieldnames=sorted(set().union(*self.rows)))
        writer.writeheader()
        writer.writerows(self.rows)
        with replacing(self.path) as file:
            file.write(text.getvalue().encode())
