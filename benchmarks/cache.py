"""Does it pay to keep h on disk, layer by layer, and what does float16 cost in NCE?

python -m benchmarks.cache [--config CONFIG ...] [--num_images 50000] [--threads 1] [--json PATH]
python -m benchmarks.cache --nce runs/inverter_mnist5k_fc3/TIME/checkpoints/best.ckpt --config inverter_mnist5k_fc3.yaml
"""

import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from benchmarks.cost import configured
from benchmarks.measure import interleaved, parser, ratio, report, seconds
from evaluations.information import mean_and_standard_error
from runtime.activations import Precision, Rows, cached_activations
from runtime.checkpoints import load_checkpoint
from runtime.silence import silence_lightning

OFTEN = 50  # batches of h in a measurement, which takes long enough so
LAYERS = ("conv1", "conv2", "fc3", "logits")


def row(config: str, num_images: int, folder: Path, device: torch.device, repeats: int) -> dict[str, Any]:
    """h of a batch computed and read, beside the step that takes it. The file is in memory where it fits."""
    made = configured(config)
    inverter, batch = made.model.to(device).train(), made.datamodule.batch_size
    representation = inverter.representation
    images = torch.randint(256, (num_images, *made.datamodule.image_shape), dtype=torch.uint8)
    image = images[:batch].to(device)
    optimizer = inverter.configure_optimizers()["optimizer"]

    def step() -> None:
        optimizer.zero_grad()
        inverter.training_step({"image": image}, 0)["loss"].backward()
        optimizer.step()

    def read(rows: Rows) -> Callable[[], Tensor]:
        return lambda: rows[torch.randint(num_images, (batch,)).tolist()].to(device).float()

    def opened(dtype: Precision) -> np.memmap:
        return cached_activations(representation, images, "train", folder, dtype, batch)

    functions: dict[str, Callable[[], Any]] = {"step": step, "network": lambda: representation(image)}
    spent: dict[str, float] = {}
    for dtype in get_args(Precision):
        for use in ("first", "later"):  # the second finds it and verifies it
            spent[f"{dtype} {use}"] = seconds(partial(opened, dtype), device)
        functions[dtype] = read(Rows(opened(dtype)))
    many = {name: f if name == "step" else _often(f) for name, f in functions.items()}
    times = interleaved(many, repeats, device)
    median = {name: statistics.median(t) / (1 if name == "step" else OFTEN) for name, t in times.items()}
    saved = (median["network"] - median["float32"]) / batch
    extra = spent["float32 first"] + spent["float32 later"]
    return {
        "config": made.name,
        "h": "x".join(map(str, representation.shape(made.datamodule.image_shape))),
        "GB in float32": round(num_images * representation(image[:1]).nbytes / 1e9, 2),
        "network, images/s": round(batch / median["network"]),
        "float32, images/s": round(batch / median["float32"]),
        "float16, images/s": round(batch / median["float16"]),
        "network / step": ratio(times["network"], times["step"], 1 / OFTEN),
        "float32 / step": ratio(times["float32"], times["step"], 1 / OFTEN),
        "making it, s": round(spent["float32 first"], 1),
        "verifying it, s": round(spent["float32 later"], 2),
        "pays after epochs": round(extra / (saved * num_images), 1) if saved > 0 else "never",
    }


def _often(function: Callable[[], Any]) -> Callable[[], None]:
    def many() -> None:
        for _ in range(OFTEN):
            function()

    return many


@torch.no_grad()
def nce_row(config: str, checkpoint: Path, device: torch.device) -> dict[str, Any]:
    """The test NCE of a trained inverter with h in float32 and rounded to float16, image by image."""
    made = configured(config)
    made.model.load_state_dict(load_checkpoint(checkpoint)["state_dict"])
    inverter, data = made.model.to(device).eval(), made.datamodule
    data.prepare_data()
    data.setup("test")
    log_probs: dict[str, list[Tensor]] = {"float32": [], "float16": []}
    for batch in data.test_dataloader():
        image = batch["image"].to(device)
        h = inverter.representation(image)
        for dtype, values in log_probs.items():
            values.append(inverter.log_prob_in_parts({"image": image, "h": h.to(getattr(torch, dtype))}))
    plain, rounded = (torch.cat(values).double() for values in log_probs.values())
    difference, error = mean_and_standard_error(rounded - plain)
    return {
        "config": made.name,
        "test images": len(plain),
        "NCE, float32": round(plain.mean().item(), 4),
        "NCE, float16": round(rounded.mean().item(), 4),
        "difference, nats": f"{difference:.1e} (standard error {error:.1e})",
        "largest of an image": f"{(rounded - plain).abs().max().item():.1e}",
    }


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--config", nargs="+", default=[f"inverter_mnist5k_{layer}.yaml" for layer in LAYERS])
    arguments.add_argument("--num_images", type=int, default=50_000, help="in the split (default 50 000)")
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--nce", type=Path, nargs="+", help="a trained checkpoint of every config; measure its NCE")
    options = arguments.parse_args()
    silence_lightning()
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    if options.nce:
        pairs = zip(options.config, options.nce, strict=True)
        report("NCE with h in float16", [nce_row(config, path, device) for config, path in pairs], options)
        return
    with tempfile.TemporaryDirectory() as folder:
        table = [row(c, options.num_images, Path(folder), device, options.repeats) for c in options.config]
    report(f"h from disk, {options.num_images} images, {options.threads} threads", table, options)


if __name__ == "__main__":
    main()
