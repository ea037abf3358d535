"""What does a step take on this device, where does the time go, and what would its own rates allow?

python -m benchmarks.gpu_time [--sizes mnist affnist cifar] [--device cuda] [--compile] [--json PATH]

First the device's rates, in copying and in matrix products. Then a training step of each size, with h a vector and
dropout: milliseconds on the wall, and until the CPU has queued it; kernels, and the time that they take together; the
share of the rate in bfloat16. Then the average of the weights; and draws, with the time of their noise. Last a step of
`fit` itself at MNIST's size, with all that it does beside the bare step, on a GPU with its preset. An error of one is a
row too, and every row is printed when it is known. `aim` is what one H100 should take.
"""

import copy
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from benchmarks.measure import Step, flops, gemm_rate, kernels, options, queued_seconds, report, seconds, training_step
from benchmarks.sizes import SIZES
from commands.command import Command
from inverters.compiled import Compiled, Question, loss
from inverters.exact_float32 import exact_float32
from inverters.generators import draw_generator
from inverters.pixelcnn import PixelCNN
from inverters.pixelcnn.incremental import incremental_sample
from runtime.cost import synchronise
from runtime.wandb_run import finish_wandb

Row = dict[str, Any]
STEP_AIMS = {"mnist": 10, "affnist": 16, "cifar": 60}  # ms, of a batch of 128
DRAW_AIMS = {("mnist", 1024): 400, ("cifar", 256): 600}  # ms
Compiler = Callable[[Question, str], Question]  # for a type of device


def by_inductor(question: Question, device_type: str, **options: bool) -> Question:
    compiled: Question = torch.compile(question, dynamic=False, options=dict(options))
    return compiled


VARIANTS: dict[str, tuple[bool, Compiler | None]] = {  # autocast, and who compiles
    "float32, TF32": (False, None),
    "bf16": (True, None),
    "bf16, compiled": (True, by_inductor),
    "bf16, compiled, NHWC": (True, partial(by_inductor, force_layout_optimization=True)),
    "bf16, --compile": (True, Compiled),  # with CUDA graphs
}


def rates(device: torch.device) -> tuple[list[Row], float]:
    """Of copies, read and written bytes together, and of matrix products in three precisions; FLOP/s of the last."""
    large = device.type == "cuda"
    a = torch.randn(2**29 if large else 2**22, device=device)
    b = torch.empty_like(a)
    copied = min(seconds(lambda: b.copy_(a), device) for _ in range(7))
    rows: list[Row] = [{"what": "copy", "rate": f"{2 * a.nbytes / copied / 1e12:.2g} TB/s"}]
    for name, dtype, precision in (
        ("float32", torch.float32, "highest"),
        ("TF32", torch.float32, "high"),
        ("bf16", torch.bfloat16, "high"),
    ):
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision(precision)
        rate = gemm_rate(device, 8192 if large else 256, dtype)
        torch.set_float32_matmul_precision(before)
        rows.append({"what": f"product, {name}", "rate": f"{rate / 1e12:.3g} TFLOP/s"})
    return rows, rate


def step_of(density: PixelCNN, image: Tensor, bf16: bool, compiler: Compiler | None) -> Step:
    """A step of training; compiled where there is a compiler."""
    question = compiler(loss, image.device.type) if compiler else loss
    context = torch.randn(len(image), 256, device=image.device)

    def mean_loss() -> Tensor:
        with torch.autocast(image.device.type, torch.bfloat16, enabled=bf16):
            return question(density, image, context)["loss"].mean()

    return training_step(mean_loss, torch.optim.Adam(density.parameters(), fused=True))


def training_rows(name: str, device: torch.device, repeats: int, compiled: bool, peak: float) -> Iterator[Row]:
    """One row for each variant."""
    size = SIZES[name].on(device)
    image = size.images(size.training_batch).to(device)
    counted = None
    for label, (bf16, compiler) in VARIANTS.items():
        if compiler and not compiled:
            continue
        row: Row = {"size": name, "what": f"step, {label}", "images": len(image)}
        torch._dynamo.reset()
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        try:
            density = size.density(context_size=256, dropout=0.5).to(device).train()
            if counted is None:
                counted = flops(step_of(copy.deepcopy(density), image[:2], False, None)) / 2
            step = step_of(density, image, bf16, compiler)
            first = seconds(step, device, wall=True)
            step()
            step()  # the second and the third record a CUDA graph
            wall = statistics.median(seconds(step, device, wall=True) for _ in range(repeats))
            row["ms"] = round(1e3 * wall, 2)
            row["aim, ms"] = STEP_AIMS.get(name, "") if device.type == "cuda" else ""
            row["queued, ms"] = round(1e3 * statistics.median(queued_seconds(step, device) for _ in range(repeats)), 2)
            row["images/s"] = round(len(image) / wall)
            row["TFLOP/s"] = float(f"{counted * len(image) / wall / 1e12:.3g}")
            row["share of bf16's rate"] = f"{counted * len(image) / wall / peak:.0%}"
            row["first, s"] = round(first, 1)
            if device.type == "cuda":
                row["GiB"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
                number, busy = kernels(step, device)
                row |= {"kernels": number, "busy, ms": round(1e3 * busy, 2)}
        except Exception as error:  # the others are still to be known
            row["error"] = f"{type(error).__name__}: {' '.join(str(error).split())[:150]}"
        yield row


def averaging_row(name: str, device: torch.device, repeats: int) -> Row:
    """What the moving average adds to a step."""
    current = [p.detach() for p in SIZES[name].density(context_size=256).to(device).parameters()]
    averaged = [p.clone() for p in current]
    update = partial(torch._foreach_lerp_, averaged, current, 0.5)
    update()
    wall = statistics.median(seconds(update, device, wall=True) for _ in range(repeats))
    return {"size": name, "what": "average of the weights", "ms": round(1e3 * wall, 3)}


def sampling_rows(name: str, device: torch.device, repeats: int) -> Iterator[Row]:
    """Draws as they are made, in IEEE float32."""
    size = SIZES[name].on(device)
    density = size.density(context_size=256).to(device).eval().requires_grad_(False)
    for batch in size.sampling_batches:
        context = torch.randn(batch, 256, device=device)
        generators = [draw_generator(index, 0, seed=0) for index in range(batch)]
        row: Row = {"size": name, "what": "draws", "images": batch}
        try:
            with exact_float32(device):
                incremental_sample(density, context[:2], generators[:2])
                noise = seconds(partial(density.noise, context, generators), device, wall=True)
                draw = partial(incremental_sample, density, context, generators)
                wall = statistics.median(seconds(draw, device, wall=True) for _ in range(min(repeats, 3)))
                row |= {
                    "ms": round(1e3 * wall, 1),
                    "aim, ms": DRAW_AIMS.get((name, batch), ""),
                    "noise, ms": round(1e3 * noise, 2),
                }
                row["images/s"] = round(batch / wall)
        except Exception as error:
            row["error"] = f"{type(error).__name__}: {' '.join(str(error).split())[:150]}"
        yield row


class StepsOfFit(Callback):
    """Seconds of a step of a fit on the wall, the mean from one step to another."""

    def __init__(self, first: int, last: int) -> None:
        self.first, self.last = first, last
        self.seconds = 0.0

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if trainer.global_step in (self.first, self.last):
            synchronise(pl_module.device)
            sign = 1 if trainer.global_step == self.last else -1
            self.seconds += sign * time.perf_counter() / (self.last - self.first)


def product_row(device: torch.device) -> Row:
    """A step of `cli.py fit`, of the published density on a GPU and of a tiny one on a CPU."""
    gpu = device.type == "cuda"
    last, batch, filters = (300, 128, 64) if gpu else (8, 2, 8)
    times = {"class_path": "benchmarks.gpu_time.StepsOfFit", "init_args": {"first": last // 4, "last": last - 1}}
    row: Row = {"size": "mnist" if gpu else "tiny", "what": "step of fit", "images": batch}
    os.environ["WANDB_MODE"] = "offline"
    with tempfile.TemporaryDirectory() as folder:
        command = Command([
            "fit", "--config=unconditional_mnist5k", *(["--config=presets/gpu.yaml"] if gpu else []),
            f"--model.density.num_filters={filters}", "--model.density.num_layers=3", "--model.density.dropout=0.5",
            f"--data.batch_size={batch}", f"--trainer.max_steps={last}", f"--trainer.val_check_interval={last}",
            "--trainer.limit_val_batches=1", "--test_after_fit=false", "--sample_grid.num_images=0",
            f"--trainer.accelerator={device.type}", f"--trainer.default_root_dir={folder}",
            f"--trainer.callbacks=[{json.dumps(times)}]",
        ])  # fmt: skip
        try:
            command.run()
        except Exception as error:
            return {**row, "error": f"{type(error).__name__}: {' '.join(str(error).split())[:150]}"}
        finally:
            finish_wandb()
    (found,) = command.config_init["fit"].trainer.callbacks
    return {**row, "ms": round(1e3 * found.seconds, 2), "aim, ms": STEP_AIMS["mnist"] + 2 if gpu else ""}


def main() -> None:
    started = time.perf_counter()
    given = options(
        __doc__,
        sizes={"nargs": "+", "choices": SIZES, "default": list(STEP_AIMS)},
        compile={"action": "store_true", "help": "on a CPU too: minutes"},
    )
    device, repeats, gpu = given.device, given.repeats, given.device.type == "cuda"
    torch.backends.cudnn.benchmark = gpu  # as in presets/gpu.yaml
    table, peak = rates(device)
    for name in given.sizes:
        rows = (
            training_rows(name, device, repeats, given.compile or gpu, peak),
            [averaging_row(name, device, repeats)],
            sampling_rows(name, device, repeats),
        )
        for row in chain(*rows):
            print(row, file=sys.stderr, flush=True)  # whoever ends it before its end has these
            table.append(row)
    table.append(product_row(device))
    report(f"where the time goes, measured in {time.perf_counter() - started:.0f} s", table, given)


if __name__ == "__main__":
    main()
