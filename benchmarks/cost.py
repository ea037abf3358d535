"""What will a config cost, in hours, memory and sampling time, on this machine or at a given FLOP rate?

python -m benchmarks.cost --config inverter_mnist_fc3.yaml inverter_mnist_conv1.yaml [--flop_rate 4e13] [--json PATH]
"""

import sys
from typing import Any

import torch

from benchmarks.measure import gemm_rate, parser, report, seconds
from commands.parser import ParsedCommand
from inverters.inverter import Inverter
from runtime.cost import duration, measured_cost
from runtime.silence import silence_lightning


def configured(config: str) -> ParsedCommand:
    """The model and the data module of a config. Raises ValueError for one without an inverter."""
    made = ParsedCommand(["fit", "--config", config])
    if not isinstance(made.model, Inverter):
        raise ValueError(f"{config} trains a {type(made.model).__name__}; this takes an inverter's config")
    return made


def row(config: str, device: torch.device, flop_rate: float | None) -> dict[str, Any]:
    """What one config costs."""
    made = configured(config)
    inverter = made.model.to(device).train()
    batch, steps = made.datamodule.batch_size, made.settings.trainer.max_steps
    image = torch.randint(256, (batch, *made.datamodule.image_shape), dtype=torch.uint8, device=device)
    cost = measured_cost(inverter, image)
    many = inverter.sample_batch_size
    many_seconds = seconds(lambda: inverter.draws(image[:1], [0], num_draws=many), device)
    images = steps * batch
    result = {
        "config": made.name,
        "steps": steps,
        "batch": batch,
        "GFLOP an image": round(cost.flops / 1e9, 2),
        "images/s here": round(cost.images_per_second, 2),
        "share of GEMM rate": f"{cost.flops * cost.images_per_second / gemm_rate(device):.0%}",
        "training here": duration(images / cost.images_per_second),
        "GiB": round(cost.memory(batch) / 2**30, 2),
        "1 sample, s": round(cost.sample_seconds, 2),
        f"{many} samples, s": round(many_seconds, 2),
    }
    if flop_rate:
        result[f"training at {flop_rate:.2g} FLOP/s"] = duration(images * cost.flops / flop_rate)
    return result


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--config", nargs="+", required=True)
    arguments.add_argument("--flop_rate", type=float, help="achieved FLOP/s of another machine")
    options = arguments.parse_args()
    silence_lightning()
    torch.manual_seed(0)
    try:
        table = [row(config, torch.device(options.device), options.flop_rate) for config in options.config]
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    report("cost of training and sampling", table, options)


if __name__ == "__main__":
    main()
