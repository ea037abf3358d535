"""A command on a GPU of its own: python one_gpu.py COMMAND, on the first one that no other such command has.

It chooses among those that CUDA_VISIBLE_DEVICES names, else among all; one, as a cluster gives it, is left as it is.
Where all are taken it waits. Started by the Snakefile, and without imports that take long.
"""

import fcntl
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def visible_gpus() -> list[str]:
    """Those of this machine that may be used, as CUDA names them; none where there is no driver."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is None:
        try:
            call = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
            given = ",".join(subprocess.run(call, capture_output=True, text=True, check=True).stdout.split())
        except (OSError, subprocess.CalledProcessError):
            return []
    return [name.strip() for name in given.split(",") if name.strip()]


def taken_gpu(gpus: list[str]) -> str:
    """The first one that is free; this process, and what it becomes, has it until its end."""
    while True:
        for gpu in gpus:
            path = Path(tempfile.gettempdir(), f"inverters_{os.getuid()}_{gpu}.lock")
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(handle)
                continue
            os.set_inheritable(handle, True)
            return gpu
        time.sleep(0.5)


if __name__ == "__main__":
    gpus = visible_gpus()
    if len(gpus) > 1:
        os.environ["CUDA_VISIBLE_DEVICES"] = taken_gpu(gpus)
    os.execvp(sys.argv[1], sys.argv[1:])
