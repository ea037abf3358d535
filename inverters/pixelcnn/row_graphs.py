"""The cells of a row as CUDA graphs."""

import math
from collections.abc import Callable

import torch


class RowGraphs:
    """Draws the cells of a row; on a GPU by a CUDA graph, because launching one by one takes longer than computing.

    Rows differ in how many resolutions have a cell in them, one, two or three: of each kind one is captured, and then
    stands for all. One that cannot be captured is an error.

    Args:
        draw: Draws the cells of row r, from and to tensors that stay where they are, without a wait for the device.
        device: Where it does.
    """

    def __init__(self, draw: Callable[[int], None], device: torch.device) -> None:
        self.draw = draw
        self.pool = torch.cuda.graph_pool_handle() if device.type == "cuda" else None
        self.graphs: dict[int, torch.cuda.CUDAGraph] = {}

    def __call__(self, r: int) -> None:
        if self.pool is None or r == 0:  # which is of all three resolutions: everything is loaded before a capture
            self.draw(r)
            return
        kind = math.gcd(r, 4)
        if kind not in self.graphs:
            graph = torch.cuda.CUDAGraph()
            # "thread_local": a loader's thread that pins memory, or NCCL's, may do what a capture must not.
            with torch.cuda.graph(graph, pool=self.pool, capture_error_mode="thread_local"):
                self.draw(r)  # is only written down
            self.graphs[kind] = graph
        self.graphs[kind].replay()
