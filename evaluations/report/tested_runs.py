"""Tested runs as they lie on disk: a result each, and the arrays and measurements beside it."""

import io
import json
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from evaluations.difference import NUM_ALIKE
from evaluations.difference_result import PREFIX, DifferenceResult
from evaluations.measurements import ComparisonResult, DistancesResult
from evaluations.rates import RatesResult
from evaluations.report.arrays import checked
from evaluations.results import ClassifierResult, InverterResult, result_from_json
from evaluations.rows import Measurement, Row
from evaluations.run_order import RECORD, in_order

R = TypeVar("R", bound=ClassifierResult | InverterResult, covariant=True)
M = TypeVar("M", bound=Measurement)
T = TypeVar("T", bound=Row)


@dataclass(frozen=True)
class TestedRun(Generic[R]):
    """The latest test of a run: the result in this folder's results.json, and the files beside it.

    What reads one of these raises ValueError where it cannot be read, or is not of this test.
    """

    folder: Path
    result: R

    @property
    def in_folder_of_config(self) -> bool:
        """Whether the results lie beside the runs of their config, where versions up to 0.4 put those of the newest."""
        return self.folder.name == self.result.name and not (self.folder / RECORD).is_file()

    @property
    def config_folder(self) -> Path:
        """The folder of its config's runs."""
        return self.folder if self.in_folder_of_config else self.folder.parent

    @property
    def run_folder(self) -> Path:
        """The folder of the run whose checkpoint was tested: .../<start time or name>/checkpoints/best.ckpt."""
        checkpoint = Path(self.result.checkpoint or "")
        return self.folder / checkpoint.parent.parent.name if self.in_folder_of_config else self.folder

    @property
    def experiment(self) -> tuple[Any, ...]:
        """What it is a test of: of the runs of one config that have the same, the newest counts."""
        its: tuple[str, ...] = (
            "kind", "name", "network", "dataset", "layer", "density", "classifier", "classifier_updates", "course",
            "seen_at", "tokens", "channel",
        )  # fmt: skip
        seen = str(getattr(self.result, "preprocessing", None))
        world = getattr(self.result, "world", None)
        # A world of another information is another, but not where its last digits are another machine's.
        truth = round(world.information_nats, 6) if world and world.information_nats is not None else None
        return *(getattr(self.result, name, None) for name in its), seen, truth

    def array(self, name: str) -> np.ndarray | None:
        """`name`.npy, None where there is none."""
        return _read_file(self.folder / f"{name}.npy", self.result.files, np.load)

    def arrays(self, name: str) -> dict[str, np.ndarray] | None:
        """Those of `name`.npz, None where there is none."""
        return _arrays(self.folder / f"{name}.npz", self.result.files)

    @property
    def index(self) -> np.ndarray:
        """The test images' indices in their data set, [N]."""
        return self._needed("index")

    @property
    def log_prob(self) -> Tensor:
        """log p(x | h) of every test image, float64 [N] nats."""
        return torch.from_numpy(self._needed("log_prob")).double()

    @property
    def log_prob_per_pixel(self) -> np.ndarray | None:
        """Likewise of every pixel, [N, H, W] nats; None where it was not kept."""
        return None if self.array("log_prob_per_pixel") is None else self._needed("log_prob_per_pixel")

    def _needed(self, name: str) -> np.ndarray:
        if (array := self.array(name)) is None:
            raise ValueError(f"{self.folder} has no {name}.npy; test it again")
        return checked({name: array}, self.folder / f"{name}.npy", N=self.result.num_images)[name]

    @property
    def samples(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Inputs uint8 [N, C, H, W] and what was drawn for each, uint8 [N, M, C, H, W]; None where nothing was."""
        arrays = self.arrays("samples")
        if arrays is None:
            return None
        # Version 0.4 had the means of a decoder, one an image, under a name of their own.
        kind = "draws" if "draws" in arrays else "means"
        checked(arrays, self.folder / "samples.npz", ("inputs", kind))
        return arrays["inputs"], arrays["draws"] if kind == "draws" else arrays["means"][:, None]

    @property
    def images(self) -> np.ndarray | None:
        """The first test images, in the order of the test, uint8 [n, C, H, W]; versions up to 0.10 kept few."""
        images = self.array("images")
        if images is not None:
            return checked({"images": images}, self.folder / "images.npy")["images"][: self.result.num_images]
        samples = self.samples
        if samples is None:
            return None
        first = self.arrays("samples") or {}
        known = "index" in first and np.array_equal(first["index"], self.index[: len(samples[0])])
        return samples[0] if known else None

    def rows(self, kind: type[M]) -> list[M]:
        """What a verb measured, nothing where it was not asked."""
        answer = kind.answer()
        return _rows(self._measured(answer) / f"{answer}.json", kind.from_json, f"ask for the {answer} of")

    def nearest(self, found: DistancesResult) -> dict[str, np.ndarray] | None:
        """The nearest images of one of `rows`, None where there are none."""
        return _arrays(self._measured(found.verb) / "nearest.npz", found.files, f"ask for the {found.verb} of")

    def compared(self, found: ComparisonResult | RatesResult) -> dict[str, np.ndarray] | None:
        """The images, and the numbers of each, of one of `rows`; None where there are none."""
        answer = found.answer()
        return _arrays(self._measured(answer) / f"{answer}.npz", found.files, f"ask for the {answer} of")

    def differences(self) -> list[tuple[DifferenceResult, dict[str, np.ndarray] | None]]:
        """How it differs from others, by the verb diff, and the arrays of the pictures, None where there are none."""
        found, again = [], "ask for the diff of"
        for path in sorted(self.run_folder.glob(f"{PREFIX}*.json")):
            for row in _rows(path, DifferenceResult.from_json, again):
                arrays, place = _arrays(path.with_suffix(".npz"), row.files, again), path.with_suffix(".npz")
                if arrays is not None:
                    shared = {"inputs", "draws_a", "draws_b", "pairs_of_a", "pairs_of_b"}
                    checked(arrays, place, shared, K=NUM_ALIKE, P=len(row.pairs_of_a), R=len(row.pairs_of_b))
                found.append((row, arrays))
        return found

    def _measured(self, answer: str) -> Path:
        """The folder of what a verb measured: of a run that version 0.4 tested, it may have been asked since."""
        return self.run_folder if (self.run_folder / f"{answer}.json").is_file() else self.folder

    def measured(self: "TestedRun[InverterResult]", kind: type[M]) -> list[M]:
        """What of `rows` is of the weights that were tested, and not of earlier ones."""
        return [row for row in self.rows(kind) if row.is_of(self.result)]

    def config(self) -> str:
        """The text of the config of the run whose checkpoint was tested; empty where it is not there."""
        path = self.run_folder / "config.yaml"
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


InverterRun = TestedRun[InverterResult]
AnyRun = TestedRun[ClassifierResult | InverterResult]


def runs_under(paths: Iterable[Path]) -> list[AnyRun]:
    """The newest run of every experiment with results in these folders or below them, in the order of their folders.

    Raises FileNotFoundError where there is no such folder, and ValueError where a file of results cannot be read.
    """
    files: dict[Path, Path] = {}
    for path in paths:
        if not path.is_dir():
            raise FileNotFoundError(f"no folder {path}; give runs/ or folders in it")
        files |= {file.parent.resolve(): file for file in path.rglob("results.json") if file.is_file()}
    found = {folder: TestedRun(file.parent, _rows(file, result_from_json)[0]) for folder, file in sorted(files.items())}
    newest = {}
    for folder in sorted(in_order(found), key=lambda folder: not found[folder].in_folder_of_config):
        run = found[folder]
        newest[run.config_folder.resolve(), *run.experiment] = folder
    return [found[folder] for folder in sorted(newest.values())]


def inverters(runs: Iterable[AnyRun]) -> list[InverterRun]:
    return [TestedRun(run.folder, run.result) for run in runs if run.result.kind == "inverter"]


def _rows(path: Path, from_json: Callable[[dict[str, Any]], T], again: str = "test") -> list[T]:
    def read(file: BinaryIO) -> list[T]:
        found = json.load(file)
        rows = found if isinstance(found, list) else [found]
        if not rows or not all(isinstance(row, dict) for row in rows):
            raise ValueError("it holds no rows of results")
        return [from_json(row) for row in rows]

    return _read(path, read, again) or []


def _arrays(path: Path, files: Mapping[str, int], again: str = "test") -> dict[str, np.ndarray] | None:
    def read(file: BinaryIO) -> dict[str, np.ndarray]:
        with zipfile.ZipFile(file) as archive:  # ours are not compressed: one that is may fill the memory
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                raise ValueError("it is compressed")
        return dict(np.load(file))

    return _read_file(path, files, read, again)


def _read_file(path: Path, files: Mapping[str, int], read: Callable[[BinaryIO], Any], again: str = "test") -> Any:
    """A file of a row that gives its files' checksums, if it gives any; None where it has no such file."""

    def verified(file: BinaryIO) -> Any:
        content = file.read()
        if files and zlib.crc32(content) != files[path.name]:
            raise ValueError("its checksum is not the one that is given beside it: it was replaced since, or damaged")
        return read(io.BytesIO(content))

    return None if files and path.name not in files else _read(path, verified, again)


def _read(path: Path, read: Callable[[BinaryIO], Any], again: str = "test") -> Any:
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            return read(file)
    except Exception as error:  # a broken file can raise nearly anything in NumPy's readers
        raise ValueError(f"{path} cannot be read ({error}); delete it and {again} that config again") from error
