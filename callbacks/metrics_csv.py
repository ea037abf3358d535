"""The run's metrics as CSV."""

import csv
import io
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter
from pytorch_lightning.loggers.logger import rank_zero_experiment

from callbacks.atomic import replacing


class _WholeFileWriter(ExperimentWriter):
    """Keeps all rows, which are some thousands in a long run, so that the file is replaced whole at every save.

    Lightning saves whenever it has logged, so no checkpoint is ahead of the file.

    Args:
        folder: The run's.
        first_step: Rows of the file from this step on are dropped: a resumed run will write them again.
    """

    def __init__(self, folder: str, first_step: int) -> None:
        self.first_step = first_step
        super().__init__(folder)

    def _check_log_dir_exists(self) -> None:
        # Lightning's writer deletes the file of the run that is resumed.
        path = Path(self.metrics_file_path)
        if path.is_file():
            with path.open(newline="") as file:
                rows = [row for row in csv.DictReader(file) if int(row["step"]) < self.first_step]
            self.metrics = [{k: v for k, v in row.items() if v != ""} for row in rows]  # type: ignore[misc] # as text

    def save(self) -> None:
        keys = sorted(set().union(*self.metrics))
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, fieldnames=keys)
        writer.writeheader()
        writer.writerows(self.metrics)
        with replacing(Path(self.metrics_file_path)) as file:
            file.write(text.getvalue().encode())


class MetricsCSV(CSVLogger):
    """`metrics.csv` in the run's folder; a resumed run adds to it.

    Args:
        folder: The run's.
        first_step: The steps that the checkpoint of a resumed run has done.
    """

    def __init__(self, folder: Path, first_step: int = 0) -> None:
        super().__init__(save_dir=folder, name="", version="")
        self.first_step = first_step

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        if self._experiment is None:
            self._experiment = _WholeFileWriter(self.log_dir, self.first_step)
        return self._experiment
