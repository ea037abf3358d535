"""Tested runs as they lie on disk: a row of results each, and the arrays beside it."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np


@dataclass(frozen=True)
class Run:
    """The newest test of one config.

    Args:
        folder: That holds results.json.
        row: What is in it.
    """

    folder: Path
    row: dict[str, Any]

    def array(self, name: str) -> np.ndarray | None:
        """`name`.npy, None where there is none. Raises ValueError where it cannot be read."""
        found = _read(self.folder / f"{name}.npy", lambda file: np.load(file, allow_pickle=False))
        assert found is None or isinstance(found, np.ndarray)
        return found

    def arrays(self, name: str) -> dict[str, np.ndarray] | None:
        """Those of `name`.npz, None where there is none. Raises ValueError where it cannot be read."""
        found = _read(self.folder / f"{name}.npz", lambda file: dict(np.load(file, allow_pickle=False)))
        assert found is None or isinstance(found, dict)
        return found

    def rows(self, name: str) -> list[dict[str, Any]]:
        """Those of `name`.json, none where there is no file. Raises ValueError where it cannot be read."""
        path = self.folder / f"{name}.json"
        found = _read(path, json.load)
        rows = [] if found is None else found if isinstance(found, list) else [found]
        if not all(isinstance(row, dict) for row in rows):
            raise ValueError(f"{path} holds no rows of results; delete it and ask that config again")
        return rows

    def measured(self, name: str) -> list[dict[str, Any]]:
        """Of these rows, those that are of the weights that were tested, and not of earlier ones. Raises as `rows`."""
        return [row for row in self.rows(name) if self._is_of(row)]

    def _is_of(self, row: Mapping[str, Any]) -> bool:
        digests = {key: value for key, value in row.items() if key.endswith("_digest")}
        return bool(digests) and all(self.row.get(key) == value for key, value in digests.items())

    def config(self) -> str:
        """The text of the config of the run whose checkpoint was tested; empty where it is not in this folder."""
        checkpoint = Path(self.row.get("checkpoint") or "")  # .../<start time>/checkpoints/best.ckpt
        path = self.folder / checkpoint.parent.parent.name / "config.yaml"
        return path.read_text(encoding="utf-8") if path.is_file() else ""


def runs_under(paths: Iterable[Path]) -> list[Run]:
    """Every run with results in these folders or below them, each once, in the order of their folders.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: A file of results cannot be read.
    """
    found: dict[Path, Run] = {}
    for path in paths:
        if not path.is_dir():
            raise FileNotFoundError(f"no folder {path}; give runs/ or folders in it")
        for file in path.rglob("results.json"):
            row = _read(file, json.load)
            if not isinstance(row, dict):
                raise ValueError(f"{file} holds no row of results; delete it and test that config again")
            found[file.parent.resolve()] = Run(file.parent, row)
    return [found[folder] for folder in sorted(found)]


def _read(path: Path, read: Callable[[BinaryIO], Any]) -> Any:
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            return read(file)
    except Exception as error:  # a broken file can raise nearly anything in NumPy's readers
        raise ValueError(f"{path} cannot be read ({error}); delete it and test that config again") from error
