"""How fast is a training step, how much memory does it take, and what do the keys gain?

python -m benchmarks.training [--sizes mnist cifar] [--peer CHECKOUT] [--threads 1 2] [--keys] [--json PATH]
"""

import argparse
import contextlib
import multiprocessing
import statistics
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.measure import (
    Step,
    flops,
    gemm_rate,
    interleaved,
    kernels,
    options,
    queued_seconds,
    ratio,
    report,
    status_bytes,
    training_step,
)
from benchmarks.peer import OF_PEER, peer_pixelcnn
from benchmarks.sizes import OF_SIZES, SIZES, Size
from inverters.compiled import Compiled
from inverters.compiled import loss as asked


def our_step(size: Size, dropout: float, device: torch.device, key: str = "") -> Step:
    """Forward, backward and Adam of the unconditional model; the key is bf16, compile or both."""
    density = size.density(context_size=0, dropout=dropout).to(device)
    question = Compiled(asked, device.type) if "compile" in key else asked
    image = size.images(size.training_batch).to(device)
    context = torch.empty(len(image), 0, device=device)
    autocast = torch.autocast(device.type, torch.bfloat16) if "bf16" in key else contextlib.nullcontext()

    def loss() -> Tensor:
        with autocast:
            return question(density, image, context)["loss"].mean()

    return training_step(loss, torch.optim.Adam(density.parameters(), fused=True))


def peer_step(size: Size, dropout: float, device: torch.device, checkout: Path) -> Step:
    """The same of the peer, with our likelihood on its parameters, and torch's default Adam as it uses."""
    channels = size.image_shape[0]
    network = peer_pixelcnn(checkout, channels, size.likelihood, size.num_filters, 3, dropout).to(device)
    image = size.images(size.training_batch).to(device)

    def loss() -> Tensor:
        return -size.likelihood.log_prob(network(image.float() / 127.5 - 1), image).sum(dim=(1, 2)).mean()

    return training_step(loss, torch.optim.Adam(network.parameters()))


def peak_memory(size: str, dropout: float, device: torch.device, checkout: Path | None) -> int:
    """Bytes that two steps add to the process that makes them; run in a fresh one."""
    warnings.filterwarnings("ignore")
    this = SIZES[size].on(device)
    step = peer_step(this, dropout, device, checkout) if checkout else our_step(this, dropout, device)
    # Not getrusage's, which on Linux begins with that of the process that started it.
    most = torch.cuda.max_memory_allocated if device.type == "cuda" else partial(status_bytes, "VmHWM")
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    before = most()
    step()
    step()
    return most() - before


def peer_row(size: str, threads: int, given: argparse.Namespace) -> dict[str, Any]:
    """Ours, and where --peer is given the peer's, at one number of threads."""
    torch.set_num_threads(threads)
    device, this = given.device, SIZES[size].on(given.device)
    rate = gemm_rate(device)
    functions = {"ours": our_step(this, given.dropout, device)}
    if given.peer:
        functions["peer"] = peer_step(this, given.dropout, device, given.peer)
    times = interleaved(functions, given.repeats, device)
    counted = flops(our_step(this, 0, device))  # the peer computes the same; the surplus of either is not counted
    row: dict[str, Any] = {"size": size, "batch": this.training_batch, "threads": threads}
    for name, measured in times.items():
        median = statistics.median(measured)
        row[f"{name}, images/s"] = round(this.training_batch / median, 2)
        row[f"{name}, share of GEMM rate"] = f"{counted / median / rate:.0%}"
        checkout = given.peer if name == "peer" else None
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            memory = pool.apply(peak_memory, (size, given.dropout, device, checkout))
        row[f"{name}, MiB"] = round(memory / 2**20)
    row["GFLOP a step"] = round(counted / 1e9)
    if device.type == "cuda":
        row["queued, ms"] = round(1e3 * queued_seconds(functions["ours"], device), 1)
        row["kernels"], _ = kernels(functions["ours"], device)
    if given.peer:
        row["speed ratio"] = ratio(times["peer"], times["ours"])
        row["memory ratio"] = round(row["ours, MiB"] / row["peer, MiB"], 2)
    return row


def key_rows(size: str, given: argparse.Namespace) -> list[dict[str, Any]]:
    """What bf16 and compile gain. One compilation: another takes as many minutes again."""
    device, this = given.device, SIZES[size].on(given.device)
    functions = {key or "fp32": our_step(this, given.dropout, device, key) for key in ("", "bf16", "bf16 compile")}
    times = interleaved(functions, given.repeats, device)
    return [
        {
            "size": size,
            "keys": key,
            "images/s": round(this.training_batch / statistics.median(measured), 2),
            "speed ratio to fp32": ratio(times["fp32"], measured),
        }
        for key, measured in times.items()
    ]


def main() -> None:
    given = options(
        __doc__, threads=[1, 2], sizes=OF_SIZES, peer=OF_PEER, dropout={"type": float, "default": 0.5},
        keys={"action": "store_true", "help": "compare float32, bf16 and bf16 compiled instead"},
    )  # fmt: skip
    if given.keys:
        table = [row for size in given.sizes for row in key_rows(size, given)]
    else:
        threads = given.threads if given.device.type == "cpu" else given.threads[:1]
        table = [peer_row(size, number, given) for size in given.sizes for number in threads]
    report(f"training, unconditional, dropout {given.dropout}", table, given)


if __name__ == "__main__":
    main()
