"""IEEE float32, in which every number that is kept is computed."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def exact_float32(device: torch.device) -> Iterator[None]:
    """A block without autocast, and on a GPU without TF32 and without a choice of algorithms by their timing.

    cuDNN's convolutions of float32 keep 10 bits by default. Modules in float64 stay so. Only forward passes belong
    here: backward runs where it is called.
    """
    # By the old names: after the new ones, fp32_precision, torch.get_float32_matmul_precision raises in Lightning.
    cudnn, matmul = torch.backends.cudnn, torch.get_float32_matmul_precision()
    allow_tf32, benchmark = cudnn.allow_tf32, cudnn.benchmark
    try:
        cudnn.allow_tf32, cudnn.benchmark = False, False
        torch.set_float32_matmul_precision("highest")
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        cudnn.allow_tf32, cudnn.benchmark = allow_tf32, benchmark
        torch.set_float32_matmul_precision(matmul)
