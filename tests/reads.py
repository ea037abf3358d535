"""Counts what Python asks of tensors' values, for which a GPU would be waited for."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class Reads(TorchDispatchMode):
    """A block in which .item(), int(), float(), bool() and .tolist() are counted, of tensors on any device."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))
