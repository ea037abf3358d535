"""How many threads, and should they wait passively, where others compute on the same cores?

python -m benchmarks.threads [--config inverter_mnist5k_fc3.yaml] [--busy 0 1 2 4] [--threads 1 2] [--json PATH]

Seconds of a training step on the wall, median (smallest-largest), beside so many other programs that multiply matrices
without end on the most threads. Each setting is a process of its own, which is stopped while it is not its turn.
"""

import os
import signal
import statistics
import subprocess
import sys
import time
from typing import Any

import torch

from benchmarks.cost import configured, inverter_step
from benchmarks.measure import options, report
from runtime.silence import silence_lightning

POLICIES = ("", "passive", "active")  # OMP_WAIT_POLICY: by default a thread spins for some milliseconds, then sleeps
BUSY = "import torch; a = torch.rand(1000, 1000); print(flush=True)\nwhile True: a @ a"
TURN = 4  # seconds, or one step


def program(arguments: list[str], threads: int, policy: str) -> "subprocess.Popen[str]":
    """A program with so many threads, in a session of its own, as the scheduler shares cores among sessions."""
    rest = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    env = rest | {"OMP_NUM_THREADS": str(threads)} | ({"OMP_WAIT_POLICY": policy} if policy else {})
    pipe = subprocess.PIPE
    found = subprocess.Popen(
        [sys.executable, *arguments], env=env, stdin=pipe, stdout=pipe, text=True, start_new_session=True
    )
    assert found.stdout
    found.stdout.readline()  # it is ready
    return found


def work(config: str, threads: int) -> None:
    """Take steps for a turn whenever a line comes, and answer with the seconds of each."""
    silence_lightning()
    torch.set_num_threads(threads)
    made, image = configured(config, torch.device("cpu"))
    step = inverter_step(made.model, image)
    step()
    print(flush=True)
    for _ in sys.stdin:
        times: list[float] = []
        end = time.monotonic() + TURN
        while not times or time.monotonic() < end:
            start = time.perf_counter()
            step()
            times.append(time.perf_counter() - start)
        print(*times, flush=True)


def turn(worker: "subprocess.Popen[str]") -> list[float]:
    """The seconds of each step of a turn."""
    assert worker.stdin
    assert worker.stdout
    worker.send_signal(signal.SIGCONT)
    print(file=worker.stdin, flush=True)
    times = [float(word) for word in worker.stdout.readline().split()]
    worker.send_signal(signal.SIGSTOP)
    return times


def main() -> None:
    if sys.argv[1:2] == ["--work"]:
        work(sys.argv[2], int(sys.argv[3]))
        return
    given = options(
        __doc__, threads=[1, 2], config={"default": "inverter_mnist5k_fc3.yaml"},
        busy={"type": int, "nargs": "+", "default": [0, 1, 2, 4]},
    )  # fmt: skip
    settings = [(n, policy) for n in given.threads for policy in (POLICIES if n > 1 else ("",))]
    workers: dict[str, subprocess.Popen[str]] = {}
    others: list[subprocess.Popen[str]] = []
    table: list[dict[str, Any]] = []
    try:
        for n, policy in settings:
            worker = program(["-m", "benchmarks.threads", "--work", given.config, str(n)], n, policy)
            worker.send_signal(signal.SIGSTOP)
            workers[f"{n} threads {policy}".strip().replace("1 threads", "1 thread")] = worker
        for busy in sorted(given.busy):
            others += [program(["-c", BUSY], max(given.threads), "") for _ in range(busy - len(others))]
            found: dict[str, list[float]] = {name: [] for name in workers}
            for _ in range(given.repeats):
                for name, worker in workers.items():
                    found[name] += turn(worker)
            cells = {name: f"{statistics.median(t):.2g} ({min(t):.2g}-{max(t):.2g})" for name, t in found.items()}
            table.append({"busy programs": busy, "load": round(os.getloadavg()[0], 1), **cells})
    finally:
        for each in (*workers.values(), *others):
            each.kill()
            each.communicate()  # closes its pipes
    report(f"seconds of a training step of {given.config} beside other programs", table, given)


if __name__ == "__main__":
    main()
