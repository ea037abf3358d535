"""Tested runs as they lie on disk: a row of results each, and the arrays beside it."""

import json
from collections.abc import Callable, Iterable
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

    def json(self, name: str) -> Any:
        """What `name`.json holds, None where there is none. Raises ValueError where it cannot be read."""
        return _read(self.folder / f"{name}.json", json.load)

    def config(self) -> str:
        """The text of the newest run's config; empty where there is none."""
        paths = sorted(self.folder.glob("*/config.yaml"))
        return paths[-1].read_text(encoding="utf-8") if paths else ""


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
