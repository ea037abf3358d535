"""Work in the largest parts that fit into memory."""

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Parts:
    """Halves its parts where an accelerator's memory ends, and remembers what fits.

    Attributes:
        largest: As far as it is known.
    """

    def __init__(self) -> None:
        self.largest = sys.maxsize

    def of(self, items: Sequence[Item], size: int, ask: Callable[[Sequence[Item]], Answer]) -> Iterator[Answer]:
        """What is answered about each part in turn, of at most `size` items.

        Raises:
            torch.OutOfMemoryError: One item does not fit.
        """
        while len(items):
            part = items[: min(size, self.largest)]
            try:
                found = ask(part)
            except torch.OutOfMemoryError:
                if len(part) == 1:
                    raise
                self.largest = (len(part) + 1) // 2
                continue
            yield found
            items = items[len(part) :]
