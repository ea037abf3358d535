"""The run's metrics as CSV."""

import csv
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter


class _AppendingWriter(ExperimentWriter):
    def _check_log_dir_exists(self) -> None:
        # Lightning's writer deletes the file of the run that is resumed.
        path = Path(self.metrics_file_path)
        if path.is_file():
            with path.open(newline="") as file:
                self.metrics_keys = next(csv.reader(file), [])


class MetricsCSV(CSVLogger):
    """`metrics.csv` in the run's folder; a resumed run adds to it.

    Args:
        folder: The run's.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(save_dir=folder, name="", version="")

    @property
    def experiment(self) -> Any:
        if self._experiment is None:
            self._experiment = _AppendingWriter(log_dir=self.log_dir)
        return self._experiment
