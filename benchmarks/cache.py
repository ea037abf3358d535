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

from benchmarks.cost import configured, inverter_step
from benchmarks.measure import Step, interleaved, options, ratio, report, seconds
from evaluations.information import mean_and_standard_error
from runtime.activations import Precision, Rows, cached_activations
from runtime.checkpoints import load_checkpoint

OFTEN = 50  # batches of h in a measurement, which takes long enough so
LAYERS = ("conv1", "conv2", "fc3", "logits")


def row(config: str, num_images: int, folder: Path, device: torch.device, repeats: int) -> dict[str, Any]:
    """h of a batch computed and read, beside the step that takes it. The file is in memory where it fits."""
    made, image = configured(config, device)
    representation, batch = made.model.representation, len(image)
    images = torch.randint(256, (num_images, *image.shape[1:]), dtype=torch.uint8)

    def opened(dtype: Precision) -> np.memmap:
        return cached_activations(representation, images, "train", folder, dtype, batch)

    def read(rows: Rows) -> Tensor:
        return rows[torch.randint(num_images, (batch,)).tolist()].to(device).float()

    def often(function: Callable[[], Tensor]) -> Step:
        return lambda: [function() for _ in range(OFTEN)]

    functions: dict[str, Step] = {
        "step": inverter_step(made.model, image),
        "network": often(lambda: representation(image)),
    }
    making, verifying = (seconds(partial(opened, "float32"), device) for _ in range(2))  # the second finds it
    for dtype in get_args(Precision):
        functions[dtype] = often(partial(read, Rows(opened(dtype))))
    times = interleaved(functions, repeats, device)
    median = {name: statistics.median(times[name]) / OFTEN for name in ("network", *get_args(Precision))}
    saved = (median["network"] - median["float32"]) / batch
    return {
        "config": made.name,
        "h": "x".join(map(str, representation.shape(made.datamodule.image_shape))),
        "GB in float32": round(num_images * representation(image[:1]).nbytes / 1e9, 2),
        "network, images/s": round(batch / median["network"]),
        "float32, images/s": round(batch / median["float32"]),
        "float16, images/s": round(batch / median["float16"]),
        "network / step": ratio(times["network"], times["step"], 1 / OFTEN),
        "float32 / step": ratio(times["float32"], times["step"], 1 / OFTEN),
        "making it, s": round(making, 1),
        "verifying it, s": round(verifying, 2),
        "pays after epochs": round((making + verifying) / (saved * num_images), 1) if saved > 0 else "never",
    }


@torch.no_grad()
def nce_row(config: str, checkpoint: Path, device: torch.device) -> dict[str, Any]:
    """The test NCE of a trained inverter with h in float32 and rounded to float16, image by image."""
    made, _ = configured(config, device)
    inverter, data = made.model.eval(), made.datamodule
    inverter.load_state_dict(load_checkpoint(checkpoint)["state_dict"])
    data.prepare_data()
    data.setup("test")

    def log_prob(image: Tensor, dtype: torch.dtype) -> Tensor:
        return inverter.log_prob_in_parts({"image": image, "h": inverter.representation(image).to(dtype)})

    images = [batch["image"].to(device) for batch in data.test_dataloader()]
    plain, rounded = (torch.cat([log_prob(x, dtype) for x in images]) for dtype in (torch.float32, torch.float16))
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
    given = options(
        __doc__,
        config={"nargs": "+", "default": [f"inverter_mnist5k_{layer}.yaml" for layer in LAYERS]},
        num_images={"type": int, "default": 50_000, "help": "in the split (default 50 000)"},
        nce={"type": Path, "nargs": "+", "help": "a trained checkpoint of every config; measure its NCE"},
    )
    if given.nce:
        pairs = zip(given.config, given.nce, strict=True)
        report("NCE with h in float16", [nce_row(config, path, given.device) for config, path in pairs], given)
        return
    with tempfile.TemporaryDirectory() as folder:
        table = [row(c, given.num_images, Path(folder), given.device, given.repeats) for c in given.config]
    report(f"h from disk, {given.num_images} images", table, given)


if __name__ == "__main__":
    main()
