"""How long does a search for nearest neighbours take, in what memory, and is there a faster way?

python -m benchmarks.nearest [--num_queries 500] [--num_rows 50000] [--num_units 4608] [--threads 1] [--json PATH]
"""

import argparse
import statistics
import tempfile
import threading
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors

from benchmarks.measure import Step, interleaved, options, ratio, report, seconds, status_bytes
from evaluations.distances import nearest

PART = 1000  # rows that the others are tried on


def watched(step: Step) -> int:
    """The bytes of its own that the process has at most while it does this, above those at the start. Linux only.

    Pages of a memory-mapped file are left out: the system keeps them as long as nobody needs the room.
    """
    found, over = [status_bytes("RssAnon")], threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            found.append(status_bytes("RssAnon"))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        step()
    finally:
        over.set()
        thread.join()
    return max(found) - found[0]


def row(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The whole search, over rows on disk; then its speed beside others', on some rows in memory."""
    queries = torch.rand(given.num_queries, given.num_units)
    rows = np.lib.format.open_memmap(folder / "h.npy", "w+", "float32", (given.num_rows, given.num_units))
    for some in np.array_split(rows, 1 + given.num_rows // PART):
        some[:] = torch.rand(*some.shape)
    rows.flush()
    search = partial(nearest, queries, rows, 6)
    memory, whole = watched(search), seconds(search, given.device)
    part = torch.from_numpy(np.array(rows[:PART]))
    fitted = NearestNeighbors(metric="manhattan", algorithm="brute").fit(part)
    functions: dict[str, Step] = {
        "nearest": partial(nearest, queries, part, 6),
        "torch.cdist": partial(torch.cdist, queries, part, p=1),
        "scikit-learn": partial(fitted.kneighbors, queries),
    }
    times = interleaved(functions, given.repeats, given.device)
    return {
        "queries x rows x units": f"{given.num_queries} x {given.num_rows} x {given.num_units}",
        "GB on disk": round(rows.nbytes / 1e9, 2),
        "s": round(whole, 1),
        "MiB": round(memory / 2**20),
        "s, from the part": round(statistics.median(times["nearest"]) * given.num_rows / len(part), 1),
        **{f"{name} / nearest": ratio(times[name], times["nearest"]) for name in times if name != "nearest"},
    }


def main() -> None:
    given = options(
        __doc__, num_queries={"type": int, "default": 500}, num_rows={"type": int, "default": 50_000},
        num_units={"type": int, "default": 4608, "help": "default: of conv1 of MNIST"},
    )  # fmt: skip
    given.device = torch.device("cpu")
    with tempfile.TemporaryDirectory() as folder:
        report("Nearest neighbours by L1", [row(given, Path(folder))], given)


if __name__ == "__main__":
    main()
