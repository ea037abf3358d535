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
from torch import Tensor

from benchmarks.measure import interleaved, parser, ratio, report, seconds
from evaluations.distances import nearest

PART = 1000  # rows that the others are tried on


class PeakMemory:
    """The most memory of its own that the process has while this is entered, over what it had, in bytes. Linux only.

    Pages of a memory-mapped file are left out: the system keeps them as long as nobody needs the room.
    """

    def __enter__(self) -> "PeakMemory":
        self.before = self.most = _own_bytes()
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def _watch(self) -> None:
        while not self.over.wait(0.02):
            self.most = max(self.most, _own_bytes())

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()


def _own_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def float32_loop(queries: Tensor, rows: Tensor) -> Tensor:
    """[M, D], [N, D] -> [M, N] distances, query by query."""
    difference, distances = torch.empty_like(rows), torch.empty(len(queries), len(rows))
    for query, out in zip(queries, distances, strict=True):
        torch.sub(rows, query, out=difference)
        torch.mean(difference.abs_(), 1, out=out)
    return distances


def row(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The whole search once, over rows on disk; then its speed beside others', on some rows in memory."""
    device = torch.device("cpu")
    queries = torch.rand(options.num_queries, options.num_units)
    shape = (options.num_rows, options.num_units)
    written = np.lib.format.open_memmap(folder / "h.npy", "w+", "float32", shape)
    for start in range(0, options.num_rows, PART):
        written[start : start + PART] = torch.rand(len(written[start : start + PART]), options.num_units)
    rows = np.load(folder / "h.npy", mmap_mode="r")
    with PeakMemory() as memory:
        whole = seconds(partial(nearest, queries, rows, 6), device)
    part = torch.from_numpy(np.array(rows[:PART]))
    times = interleaved(
        {
            "nearest": partial(nearest, queries, part, 6),
            "torch.cdist": partial(torch.cdist, queries, part, p=1),
            "scikit-learn": partial(
                NearestNeighbors(metric="manhattan", algorithm="brute").fit(part).kneighbors, queries
            ),
            "float32 loop": lambda: [float32_loop(queries, some) for some in part.split(100)],
        },
        options.repeats,
        device,
    )
    return {
        "queries x rows x units": f"{options.num_queries} x {options.num_rows} x {options.num_units}",
        "GB on disk": round(rows.nbytes / 1e9, 2),
        "s": round(whole, 1),
        "MiB": round((memory.most - memory.before) / 2**20),
        "s, from the part": round(statistics.median(times["nearest"]) * options.num_rows / len(part), 1),
        **{f"{name} / nearest": ratio(times[name], times["nearest"]) for name in times if name != "nearest"},
    }


def main() -> None:
    arguments = parser(__doc__)
    arguments.set_defaults(device="cpu")
    arguments.add_argument("--num_queries", type=int, default=500)
    arguments.add_argument("--num_rows", type=int, default=50_000)
    arguments.add_argument("--num_units", type=int, default=4608, help="default: of conv1 of MNIST")
    arguments.add_argument("--threads", type=int, default=1)
    options = arguments.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        table = [row(options, Path(folder))]
    report(f"Nearest neighbours by L1, {options.threads} threads", table, options)


if __name__ == "__main__":
    main()
