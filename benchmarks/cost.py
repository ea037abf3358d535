"""What will a config cost, in hours, memory and sampling time, on this machine or at a given FLOP rate?

python -m benchmarks.cost --config inverter_mnist_fc3.yaml inverter_mnist_conv1.yaml [--flop_rate 4e13] [--json PATH]
"""

import sys
from typing import Any

import torch
from torch import Tensor

from benchmarks.measure import Step, gemm_rate, options, report, seconds, training_step
from commands.parser import ParsedCommand
from inverters.inverter import Inverter
from runtime.cost import duration, measured_cost


def configured(config: str, device: torch.device) -> tuple[ParsedCommand, Tensor]:
    """The model of a config, on the device, with its data module, and a batch of noise, uint8 [B, C, H, W].

    Raises:
        ValueError: The config is not an inverter's.
    """
    made = ParsedCommand(["fit", "--config", config])
    if not isinstance(made.model, Inverter):
        raise ValueError(f"{config} trains a {type(made.model).__name__}; this takes an inverter's config")
    made.model.to(device).train()
    shape = (made.datamodule.batch_size, *made.datamodule.image_shape)
    return made, torch.randint(256, shape, dtype=torch.uint8, device=device)


def inverter_step(inverter: Inverter, image: Tensor) -> Step:
    """A step of an inverter's training."""
    optimizer = inverter.optimizer()
    return training_step(lambda: inverter.training_step({"image": image}, 0)["loss"], optimizer)


def row(config: str, device: torch.device, flop_rate: float | None) -> dict[str, Any]:
    """What one config costs."""
    made, image = configured(config, device)
    inverter, steps = made.model, made.settings.trainer.max_steps
    shape = (len(image), *made.datamodule.seen_shape)
    seen = torch.randint(256, shape, dtype=torch.uint8, device=device) if shape != image.shape else image
    cost = measured_cost(inverter, image, seen=seen)
    many, images = inverter.draws_at_once(device), steps * len(image)
    many_seconds = seconds(lambda: inverter.draws(seen[:1], [0], num_draws=many), device)
    return {
        "config": made.name,
        "steps": steps,
        "batch": len(image),
        "GFLOP an image": round(cost.flops / 1e9, 2),
        "images/s here": round(cost.images_per_second, 2),
        "share of GEMM rate": f"{cost.flops * cost.images_per_second / gemm_rate(device):.0%}",
        "training here": duration(images / cost.images_per_second),
        "GiB": round(cost.memory(len(image)) / 2**30, 2),
        "1 sample, s": round(cost.sample_seconds, 2),
        f"{many} samples, s": round(many_seconds, 2),
        **({f"training at {flop_rate:.2g} FLOP/s": duration(images * cost.flops / flop_rate)} if flop_rate else {}),
    }


def main() -> None:
    given = options(
        __doc__,
        threads=[torch.get_num_threads()],
        config={"nargs": "+", "required": True},
        flop_rate={"type": float, "help": "achieved FLOP/s of another machine"},
    )
    try:
        table = [row(config, given.device, given.flop_rate) for config in given.config]
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    report("cost of training and sampling", table, given)


if __name__ == "__main__":
    main()
