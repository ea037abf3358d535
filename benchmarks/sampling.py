"""How much faster are the exact samplers than one full pass a pixel, and what do grids cost during training?

python -m benchmarks.sampling [--sizes mnist cifar] [--peer CHECKOUT] [--threads 1] [--json PATH]
python -m benchmarks.sampling --grid inverter_mnist5k_fc3.yaml
"""

import argparse
import statistics
from functools import partial
from typing import Any

import matplotlib.pyplot as plt
import torch

from benchmarks.cost import configured, inverter_step
from benchmarks.measure import Step, flops, gemm_rate, interleaved, options, queued_seconds, ratio, report
from benchmarks.peer import OF_PEER, peer_pixelcnn
from benchmarks.sizes import OF_SIZES, SIZES
from evaluations.figures import sample_grid
from inverters.generators import draw_generator
from inverters.pixelcnn.incremental import incremental_sample


def row(size: str, batch: int, given: argparse.Namespace) -> dict[str, Any]:
    """A full pass is timed once and counted once a pixel; the samplers run to the end."""
    this, device = SIZES[size], given.device
    density = this.density(context_size=256).to(device).eval().requires_grad_(False)
    num_pixels = this.image_shape[1] * this.image_shape[2]
    image, context = this.images(batch).to(device), torch.randn(batch, 256, device=device)
    generators = [draw_generator(index, 0, seed=0) for index in range(batch)]
    functions: dict[str, Step] = {
        "full pass": partial(density, image, context),
        "incremental": partial(incremental_sample, density, context, generators),
    }
    if given.peer:
        peer = peer_pixelcnn(given.peer, image.shape[1], this.likelihood, this.num_filters, 3, 0.5).to(device).eval()
        functions["peer's full pass"] = partial(peer, image.float() / 127.5 - 1)
    with torch.inference_mode():
        times = interleaved(functions, given.repeats, device)
        counted, full_flops = flops(functions["incremental"]), num_pixels * flops(functions["full pass"])
    incremental, full = statistics.median(times["incremental"]), statistics.median(times["full pass"])
    result: dict[str, Any] = {
        "size": size,
        "images": batch,
        "one pass a pixel, s": round(num_pixels * full, 1),
        "incremental, s": round(incremental, 2),
        "ratio": ratio(times["full pass"], times["incremental"], num_pixels),
        "GFLOP, full pass a pixel": float(f"{full_flops / 1e9:.4g}"),
        "incremental GFLOP": float(f"{counted / 1e9:.4g}"),
        "incremental share of GEMM rate": f"{counted / incremental / gemm_rate(device):.0%}",
        "sweeps of equal cost": round(incremental / full, 1),
    }
    if device.type == "cuda":
        result["queued, s"] = round(queued_seconds(functions["incremental"], device), 2)
    if given.peer:
        result["ratio to peer"] = ratio(times["peer's full pass"], times["incremental"], num_pixels)
    return result


def grid_row(config: str, device: torch.device, repeats: int) -> dict[str, Any]:
    """The share of training time that a config's sample grids take."""
    made, image = configured(config, device)
    inverter, grid = made.model, made.config_init["fit"].sample_grid
    inputs = image[:1].expand(grid.num_images, -1, -1, -1)

    def draw() -> None:
        draws = inverter.draws(inputs, range(grid.num_images), grid.num_draws)
        plt.close(sample_grid(inputs, draws, inverter.representation.layer))

    times = interleaved({"step": inverter_step(inverter, image), "grid": draw}, repeats, device)
    return {
        "config": made.name,
        "images in a grid": grid.num_images * grid.num_draws,
        "grid, s": round(statistics.median(times["grid"]), 2),
        "step, s": round(statistics.median(times["step"]), 3),
        "steps between grids": grid.every_n_steps,
        "grid / steps between": ratio(times["grid"], times["step"], 1 / grid.every_n_steps),
    }


def main() -> None:
    given = options(
        __doc__, sizes=OF_SIZES, peer=OF_PEER,
        grid={"metavar": "CONFIG", "help": "measure what this config's sample grids cost instead"},
    )  # fmt: skip
    if given.grid:
        report("sample grids during training", [grid_row(given.grid, given.device, given.repeats)], given)
        return
    table = [row(size, batch, given) for size in given.sizes for batch in SIZES[size].on(given.device).sampling_batches]
    report("exact sampling", table, given)


if __name__ == "__main__":
    main()
