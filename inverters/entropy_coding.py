"""Images as bytes, by an entropy coder (constriction, Bamler 2022) that p(x | h) drives.

Whoever decodes must have every probability to the last bit. So both ways are one walk through the images, of the same
operations on tensors of the same shapes: the incremental sampler's, 64 images at once, on the CPU, on one thread. That
is the same on one machine with one PyTorch; other processors, or batches, round in another way.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy

import constriction
import numpy as np
import torch
from torch import Tensor

from inverters.exact_float32 import exact_float32
from inverters.generators import AutoregressiveDensity, Choice

AT_ONCE = 64  # images; another number is another format
# Probabilities are in units of 2^-24, and every level has one: that loses 2e-5 bits a value.
MODEL = constriction.stream.model.Categorical(perfect=False)


def encoded(density: AutoregressiveDensity, image: Tensor, context: Tensor) -> bytes:
    """The code of uint8 images [N, C, H, W], given h as the density takes it, [N, ...].

    Raises:
        ValueError: The density cannot be coded by, or rules an image out.
    """
    encoder = constriction.stream.queue.RangeEncoder()

    def choice(first: int) -> Choice:
        def choose(probs: Tensor, channel: int, r: int, c: int) -> Tensor:
            step = 256 // probs.shape[1]
            value = image[first : first + len(probs), channel, r, c].long()
            if (value % step).any():
                raise ValueError(
                    f"an image has the value {int(value[value % step > 0][0])}, which p(x | h) rules out: it has 0, "
                    f"{step}, {2 * step}, ...; give images of these"
                )
            encoder.encode((value // step).numpy().astype(np.int32), MODEL, _checked(probs))
            return value // step

        return choose

    _walk(density, context, choice)
    return bytes(encoder.get_compressed().astype("<u4").tobytes())


def decoded(density: AutoregressiveDensity, code: bytes, context: Tensor) -> Tensor:
    """The images of a code, uint8 [N, C, H, W]; other ones where anything is not as it was when they were encoded."""
    decoder = constriction.stream.queue.RangeDecoder(np.frombuffer(code, "<u4").astype(np.uint32))

    def choose(probs: Tensor, channel: int, r: int, c: int) -> Tensor:
        return torch.from_numpy(decoder.decode(MODEL, _checked(probs))).long()

    return _walk(density, context, lambda first: choose).clone()  # no tensor of inference mode


def _checked(probs: Tensor) -> np.ndarray:
    """float64 [B, L]. Raises ValueError where they are none."""
    if not probs.isfinite().all():
        raise ValueError("p(x | h) of an image is NaN: h, or the model, is not the right one, or has diverged")
    return probs.numpy()


@torch.inference_mode()
def _walk(density: AutoregressiveDensity, context: Tensor, choice: Callable[[int], Choice]) -> Tensor:
    """All images, part by part; `choice` is told which is the first of a part."""
    if next(density.parameters()).device.type != "cpu":
        density = deepcopy(density).cpu()
    with one_thread(), exact_float32(torch.device("cpu")):
        parts = enumerate(context.cpu().split(AT_ONCE))
        return torch.cat([density.in_order(part, choice(i * AT_ONCE)) for i, part in parts])


@contextmanager
def one_thread() -> Iterator[None]:
    """A block in which PyTorch has one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
