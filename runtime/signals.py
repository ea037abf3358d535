"""Signals that end a run in order."""

import os
import signal
import stat
from collections.abc import Callable
from contextlib import suppress
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
    """What is said from now on goes nowhere: in a closed terminal, or to a pipe there, every word would be an error."""
    for stream in (1, 2):
        with suppress(OSError):  # it was closed before
            mode = os.fstat(stream).st_mode
            if stat.S_ISCHR(mode) or stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, stream)
                os.close(nowhere)
