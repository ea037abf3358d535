"""How long does a search for nearest neighbours take, in what memory, and is there a faster way?

python -m benchmarks.nearest [--num_queries 500] [--num_rows 50000] [--num_units 4608] [--threads 1] [--json PATH]
"""

import argparse
import statistics
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from benchmarks.measure import Step, interleaved, parser, ratio, report, seconds, status_bytes
from evaluations.distances import nearest

PART = 1000  # rows that the others are tried on


@contextmanager
def watched_memory() -> Iterator[list[int]]:
    """How much memory of its own the process has while this is entered, from the start on, in bytes. Linux only.

    Pages of a memory-mapped file are left out: the system keeps them as long as nobody needs the room.
    """
    found, over = [status_bytes("RssAnon")], threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            found.append(status_bytes("RssAnon"))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()


def float32_loop(queries: Tensor, rows: Tensor) -> Tensor:
    """[M, D], [N, D] -> [M, N] distances, query by query."""
    difference, distances = torch.empty_like(rows), torch.empty(len(queries), len(rows))
    for query, out in zip(queries, distances, strict=True):
        torch.sub(rows, query, out=difference)
        torch.mean(difference.abs_(), 1, out=out)
    return distances


def row(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The whole search once, over rows on disk; then its speed beside others', on some rows in memory."""
    queries = torch.rand(options.num_queries, options.num_units)
    rows = np.lib.format.open_memmap(folder / "h.npy", "w+", "float32", (options.num_rows, options.num_units))
    for some in np.array_split(rows, 1 + options.num_rows // PART):
        some[:] = torch.rand(*some.shape)
    rows.flush()
    with watched_memory() as memory:
        whole = seconds(partial(nearest, queries, rows, 6), options.device)
    part = torch.from_numpy(np.array(rows[:PART]))
    fitted = NearestNeighbors(metric="manhattan", algorithm="brute").fit(part)
    functions: dict[str, Step] = {
        "nearest": partial(nearest, queries, part, 6),
        "torch.cdist": partial(torch.cdist, queries, part, p=1),
        "scikit-learn": partial(fitted.kneighbors, queries),
        "float32 loop": lambda: [float32_loop(queries, some) for some in part.split(100)],
    }
    times = interleaved(functions, options.repeats, options.device)
    return {
        "queries x rows x units": f"{options.num_queries} x {options.num_rows} x {options.num_units}",
        "GB on disk": round(rows.nbytes / 1e9, 2),
        "s": round(whole, 1),
        "MiB": round((max(memory) - memory[0]) / 2**20),
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
