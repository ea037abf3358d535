"""A process that another one has started ends with it. Without imports that take long, as it may be gone by then."""

import os
import sys
import threading

STARTER = "INVERTERS_STARTED_BY"  # in the environment of processes of one run: the id of the one that started them
done = threading.Event()  # when this process's work is


def end_with(starter: int, seconds: float = 1.0) -> None:
    """End this process soon after the one that started it, however that one has ended.

    Nothing else does: until the processes have met, and on GPUs after that too, this one would wait for half an hour.

    Args:
        starter: Its process id.
        seconds: Between two looks.
    """

    def watch() -> None:
        while os.getppid() == starter:
            if done.wait(seconds):
                return
        if not done.wait(5 * seconds):  # in which this process may end by itself
            said = "error: the process that started this one has ended; if it does not say why above, it was killed"
            print(said, file=sys.stderr, flush=True)
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
