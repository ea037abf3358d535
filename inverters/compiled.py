"""What a step of training and one of validation ask of a generator, as it is or compiled."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from inverters.generators import ConditionalGenerator

# Of a generator, images [B, C, H, W] and h [B, ...]: tensors [B, ...] by name.
Question = Callable[[ConditionalGenerator, Tensor, Tensor], dict[str, Tensor]]


def loss(generator: ConditionalGenerator, image: Tensor, context: Tensor) -> dict[str, Tensor]:
    """What training minimises, and its parts."""
    return generator.losses(image, context)


def evaluation(generator: ConditionalGenerator, image: Tensor, context: Tensor) -> dict[str, Tensor]:
    """What validation keeps of each image."""
    return generator.evaluation(image, context)


def of_compiler(error: BaseException) -> bool:
    """Whether torch.compile has failed; its classes would take seconds to import."""
    return any(base.__name__ == "TorchDynamoException" for base in type(error).__mro__)


class Compiled:
    """One of these, compiled by torch.compile, network and likelihood in one graph, for one number of images.

    Fewer, as at the end of an epoch, are filled up with the last of them, and cut off again: another number would be
    another graph, and minutes.

    Args:
        question: To compile.
        device_type: Where it will be asked.
        backend: torch.compile's.
    """

    def __init__(self, question: Question, device_type: str, backend: str | Callable[..., Any] = "inductor") -> None:
        options: dict[str, str | int | bool | Callable[..., Any]] | None = None
        if device_type == "cuda" and backend == "inductor":
            # Inductor would keep NCHW, as some convolutions here have half as many outputs as inputs, and cuDNN would
            # change the layout around every one of them. The second: one launch a graph in place of one a kernel.
            options = {
                "force_layout_optimization": True,
                "triton.cudagraphs": True,
                "deterministic": torch.are_deterministic_algorithms_enabled(),  # no choice by timing
            }
        # One graph in several processes too: torch would cut it where their gradients are exchanged.
        torch._dynamo.config.optimize_ddp = False
        self.question = torch.compile(question, dynamic=False, backend=backend, options=options)
        self.size = 0

    def __call__(self, generator: ConditionalGenerator, image: Tensor, context: Tensor) -> dict[str, Tensor]:
        num_images = len(image)
        self.size = max(self.size, num_images)
        if num_images < self.size:
            rows = torch.arange(self.size, device=image.device).clamp_(max=num_images - 1)
            image, context = image[rows], context[rows]
        if image.is_cuda:
            torch.compiler.cudagraph_mark_step_begin()
        try:
            found = self.question(generator, image, context)
        except torch.OutOfMemoryError:
            self.size = 0  # whoever asks tries fewer
            raise
        # The next replay of a CUDA graph overwrites what this one gave.
        return {name: values[:num_images].clone() for name, values in found.items()}
