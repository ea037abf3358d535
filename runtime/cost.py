"""What training an inverter and sampling from it cost, measured on this machine."""

import contextlib
import copy
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from inverters.inverter import Inverter

AutocastContext = Callable[[], AbstractContextManager[Any]]


@dataclass
class Cost:
    """The cost of training an inverter, and of sampling from it.

    Attributes:
        flops: Of a training step, per image and its companions: forward and backward of the density, without h and the
            optimiser.
        images_per_second: In training, on this machine; of one process.
        activation_bytes: Kept for the backward pass, per image.
        fixed_bytes: Weights, before and after their normalisation, gradients, Adam's moments and the averaged weights.
        sample_seconds: For one image.
    """

    flops: int
    images_per_second: float
    activation_bytes: int
    fixed_bytes: int
    sample_seconds: float

    def memory(self, batch_size: int) -> float:
        """Bytes that a process needs for a step, without those of the program itself."""
        # Gradients of activations and scratch space take 0.2 to 0.4 of what is kept (benchmarks.training).
        return 1.4 * batch_size * self.activation_bytes + self.fixed_bytes


def synchronise(device: torch.device) -> None:
    """Wait until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measured_cost(
    inverter: Inverter, image: Tensor, autocast: AutocastContext = contextlib.nullcontext, seen: Tensor | None = None
) -> Cost:
    """Measure what a step and a draw cost, in a few seconds; weights, buffers and random state stay as they are.

    Args:
        inverter: On the device that is to be measured. Where its steps are to be compiled, they are here, for B images.
        image: The images of one process's batch and their companions, uint8 [B, C, H, W]. Fewer are used where a step
            takes over a second and is not compiled.
        autocast: The precision of the run.
        seen: What the network sees of the images, uint8 [B, C, H', W'], where it is not the same.
    """
    seen = image if seen is None else seen
    parameters = [p for p in inverter.density.parameters() if p.requires_grad]
    forked = [image.device.index] if image.device.type == "cuda" else []
    buffers = [(buffer, buffer.clone()) for buffer in inverter.density.buffers()]  # a step may change them

    each = 1 + inverter.density.companions
    num_images = max(1, len(image) // each)

    def step(size: int) -> None:
        with autocast():
            its = {"image": image[: each * size], "context_image": seen[: each * size]}
            loss = inverter.training_step(its, 0)["loss"]
        torch.autograd.grad(loss, parameters, allow_unused=True)
        synchronise(image.device)

    with torch.random.fork_rng(devices=forked):
        context = inverter.context(seen[:1])
        flops, bytes_of_one = _counted(inverter, image[:1], context, autocast)
        _, bytes_of_two = _counted(inverter, torch.cat([image[:1]] * 2), torch.cat([context] * 2), autocast)
        if inverter.steps_are_compiled:
            size = num_images
            step(size)  # is compiled
            step(size)  # records its CUDA graph
            seconds = _seconds(step, size)
        else:
            step(1)
            size = min(num_images, max(1, round(1 / _seconds(step, 1))))
            step(size)
            seconds = _seconds(step, size)
        seconds_of_all = seconds * num_images / size + _update_seconds(inverter)
        sample_seconds = _seconds(inverter.draws, seen[:1], [0], 1)
    for buffer, before in buffers:
        buffer.copy_(before)
    activation_bytes = bytes_of_two - bytes_of_one
    return Cost(
        flops=flops,
        images_per_second=num_images / seconds_of_all,
        activation_bytes=activation_bytes,
        fixed_bytes=5 * sum(p.nbytes for p in parameters) + bytes_of_one - activation_bytes,
        sample_seconds=sample_seconds,
    )


def training_flop(inverter: Inverter, image: Tensor, seen: Tensor) -> int:
    """`Cost.flops` alone, wherever it is asked; weights and random state stay as they are.

    Args:
        inverter: On any device.
        image: Of one image at least, uint8 [B, C, H, W], on the same device.
        seen: What the network sees of it, uint8 [B, C, H', W'].
    """
    forked = [image.device.index] if image.device.type == "cuda" else []
    with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices=forked):
        context = inverter.context(seen[:1].clone())
        return _counted(inverter, image[:1].clone(), context, contextlib.nullcontext)[0]


def _update_seconds(inverter: Inverter) -> float:
    """Of the optimiser and the moving average, on copies of the parameters."""
    optimizer = copy.deepcopy(inverter.optimizer())  # and its parameters
    copies: list[Tensor] = [p for group in optimizer.param_groups for p in group["params"]]
    average = [p.detach().clone() for p in copies]
    for copied in copies:
        copied.grad = torch.zeros_like(copied)

    @torch.no_grad()
    def update() -> None:
        optimizer.step()
        torch._foreach_lerp_(average, copies, 0.5)
        synchronise(copies[0].device)

    update()
    return _seconds(update)


def _counted(inverter: Inverter, image: Tensor, context: Tensor, autocast: AutocastContext) -> tuple[int, int]:
    """FLOPs of a step, and bytes kept for its backward pass."""
    # A copy, which no hook of a distributed run listens to.
    density = copy.deepcopy(inverter.density)
    own = {p.untyped_storage().data_ptr() for p in density.parameters()}
    saved: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with FlopCounterMode(display=False) as counter:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), autocast():
            loss = density.loss(image, context).mean()
            if density.companions:
                its = (x.repeat_interleave(density.companions, dim=0) for x in (image, context))
                loss = loss + density.guess_loss(*its).mean()
        num_bytes = sum(t.untyped_storage().nbytes() for address, t in saved.items() if address not in own)
        loss.backward()
    return counter.get_total_flops(), num_bytes


def _seconds(function: Callable[..., Any], *arguments: Any) -> float:
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def duration(seconds: float) -> str:
    """Seconds as people say them: 40 s, 7 min, 3.2 h, 12 days."""
    for limit, unit, text in ((100, 1, "{:.0f} s"), (6000, 60, "{:.0f} min"), (360_000, 3600, "{:.1f} h")):
        if seconds < limit:
            return text.format(seconds / unit)
    return f"{seconds / 86_400:.0f} days"
