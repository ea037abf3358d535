"""Measurements that can be compared: interleaved in one run, reported as ratios with the machine that gave them."""

import argparse
import datetime
import json
import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from runtime.cost import synchronise
from runtime.silence import silence_lightning

Step = Callable[[], Any]


def options(description: str | None, threads: Sequence[int] = (1,), **more: dict[str, Any]) -> argparse.Namespace:
    """The command line of a benchmark, which then begins as all do: seeded, silent, on the first number of threads.

    Args:
        description: What it measures.
        threads: The default.
        more: What `add_argument` takes for each option of its own, by name.
    """
    result = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--json", type=Path, help="also write the figures to this file")
    result.add_argument("--device", type=torch.device, default="cuda" if torch.cuda.is_available() else "cpu")
    result.add_argument("--repeats", type=int, default=5, help="of every measurement (default 5)")
    result.add_argument("--threads", type=int, nargs="+", default=threads)
    for name, arguments in more.items():
        result.add_argument(f"--{name}", **arguments)
    given = result.parse_args()
    silence_lightning()
    torch.manual_seed(0)
    torch.set_num_threads(given.threads[0])
    return given


def training_step(loss: Callable[[], Tensor], optimizer: torch.optim.Optimizer) -> Step:
    """Forward, backward and the optimiser's step."""

    def step() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return step


def seconds(function: Step, device: torch.device, wall: bool = False) -> float:
    """Seconds of a call: on one CPU thread of the processor, which other programs disturb least, else on the wall."""
    alone = device.type == "cpu" and torch.get_num_threads() == 1 and not wall
    clock = time.process_time if alone else time.perf_counter
    synchronise(device)
    start = clock()
    function()
    synchronise(device)
    return clock() - start


def interleaved(functions: dict[str, Step], repeats: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of each function, called in turn so that a change of the machine's speed meets all alike."""
    for function in functions.values():
        function()
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in tqdm(range(repeats), ", ".join(functions), leave=False, delay=5):
        for name, function in functions.items():
            times[name].append(seconds(function, device))
    return times


def ratio(slow: Sequence[float], fast: Sequence[float], scale: float = 1) -> dict[str, float]:
    """Median, smallest and largest of the ratios of measurements that were made one after the other."""
    ratios = [scale * a / b for a, b in zip(slow, fast, strict=True)]
    return {"median": statistics.median(ratios), "low": min(ratios), "high": max(ratios)}


def as_text(ratio: dict[str, float]) -> str:
    """A ratio for a table: median (smallest-largest)."""
    return f"{ratio['median']:.3g} ({ratio['low']:.3g}-{ratio['high']:.3g})"


def flops(function: Step) -> int:
    """FLOPs of one call, as torch counts them: two for a multiplication with its addition; matrix products alone."""
    with FlopCounterMode(display=False) as counter:
        function()
    return int(counter.get_total_flops())


def gemm_rate(device: torch.device, size: int | None = None, dtype: torch.dtype | None = None) -> float:
    """The machine's FLOP/s in a large square matrix product, the best of seven.

    By default of 2048 x 2048 matrices in float32, and on a GPU of 8192 x 8192 in bfloat16.
    """
    gpu = device.type != "cpu"
    size, dtype = size or (8192 if gpu else 2048), dtype or (torch.bfloat16 if gpu else torch.float32)
    a, b = torch.randn(2, size, size, device=device).to(dtype)
    torch.mm(a, b)
    return 2 * size**3 / min(seconds(lambda: torch.mm(a, b), device) for _ in range(7))


def queued_seconds(function: Step, device: torch.device) -> float:
    """Seconds until the CPU has given a call to the device, which need not have done it."""
    synchronise(device)
    start = time.perf_counter()
    function()
    found = time.perf_counter() - start
    synchronise(device)
    return found


def kernels(function: Step, device: torch.device) -> tuple[int, float]:
    """How many kernels a call runs on a GPU, and the seconds that they take together."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        function()
        synchronise(device)
    events = [event for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    return len(events), sum(event.device_time for event in events) / 1e6


def status_bytes(key: str) -> int:
    """What Linux says of this process's memory, as RssAnon or VmHWM."""
    (kilobytes,) = re.findall(rf"^{key}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    return 1024 * int(kilobytes)


def machine(device: torch.device) -> dict[str, Any]:
    """Where and when: what makes a figure mean something."""
    return {
        "date": datetime.date.today().isoformat(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _cpu() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    name = re.search(r"^model name\s*: (.+)$", cpuinfo.read_text() if cpuinfo.is_file() else "", re.MULTILINE)
    return f"{name[1] if name else platform.machine()} ({torch.backends.cpu.get_cpu_capability()})"


def report(title: str, rows: list[dict[str, Any]], arguments: argparse.Namespace) -> None:
    """Print rows as a Markdown table, with ratios as text, under the machine; write them to --json."""
    about = machine(arguments.device)
    print(f"\n{title}\n{', '.join(f'{key} {value}' for key, value in about.items())}\n")
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = [[as_text(v) if isinstance(v := row.get(c, ""), dict) else str(v) for c in columns] for row in rows]
    widths = [max(map(len, cells)) for cells in zip(columns, *text, strict=True)]
    for line in (columns, ["-" * width for width in widths], *text):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |")
    if arguments.json:
        arguments.json.write_text(json.dumps({"title": title, "machine": about, "rows": rows}, indent=2) + "\n")
