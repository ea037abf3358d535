"""Signals that end a run in order."""

import os
import signal
import stat
from collections.abc import Callable
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)


def answer(number: signal.Signals, handler: Callable[[int, FrameType | None], Any]) -> None:
    """Have a signal answered; SIGHUP stays ignored where `nohup` has it so."""
    if number != signal.SIGHUP:
        signal.signal(number, handler)
    elif signal.getsignal(number) != signal.SIG_IGN:

        def hung_up(number: int, frame: FrameType | None) -> None:
            leave_terminal()
            handler(number, frame)

        signal.signal(number, hung_up)


def leave_terminal() -> None:
    """What is said from now on goes nowhere: in a terminal that is closed every word would be an error."""
    for stream in (1, 2):
        if stat.S_ISCHR(os.fstat(stream).st_mode):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream)
            os.close(nowhere)
