"""Where in the image does the information sit?"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from evaluations.figures import information_maps
from evaluations.information import information_map, mean_and_standard_error, rows_below, selected_by_row
from evaluations.report.cells import NONE, number
from evaluations.report.groups import Group
from evaluations.report.page import Explorer, Part, Picture, Section, Table, base64_of
from evaluations.report.tested_runs import InverterRun

NUM_MAPS = 4  # single images whose maps are shown on paper
MOST_BYTES = 4_000_000  # of all maps of a data set that can be explored, before base64
FINEST = 0.001  # nats, that a pixel's are rounded to
WORDS = (
    "log p(x_i | x_<i, h) less log p(x_i | x_<i), in nats: what h adds at each pixel to the pixels before it, row "
    "by row. The mean map's sum is the estimate of I(x; h) exactly, by the chain rule; that of a single image's is "
    "what h adds to the log-probability of that image, which may be below 0, as any of its pixels may, even for an "
    "exact model. A mean below 0, beyond its error, is an inverter's weakness. The maps show where information "
    "enters in that order, not all that h knows of a pixel."
)

SELECTED = (
    "Rows are counted from 0. In the last two columns each row of an image is p(x | h)'s or p(x)'s, whichever is "
    "better on average over the other half of the images, those with even or with odd numbers: a density of x given h "
    "like any other. A row of which the halves say different things may still be below 0. It mends rows where p(x | h) "
    "is the worse model and none where p(x) is, so that it lies a little above the plain estimate even where h tells "
    "nothing, and its error takes the choice as given."
)


def section(group: Group) -> Section | None:
    without = group.unconditional.log_prob_per_pixel if group.unconditional else None
    if without is None:
        return None
    maps, still = {}, []
    for label, run in group.inverters.items():
        given, samples = run.log_prob_per_pixel, run.samples
        if given is None or given.shape != without.shape:
            continue
        found = maps[label] = information_map(torch.from_numpy(given), torch.from_numpy(without)).numpy()
        if samples is not None:
            images, mean = samples[0][:NUM_MAPS], found.mean(0)
            words = (
                f"{group.name}, {label}: mean over {len(found)} images, {mean.sum():.2f} nats in all; single images."
            )
            still.append(Picture(words, information_maps(mean, images, found[: len(images)], label)))
    if not maps:
        return None
    runs = [*group.inverters.values(), *([group.unconditional] if group.unconditional else [])]
    explorer = Explorer(explorable(maps, pictures(runs), next(iter(group.inverters.values())).index), still)
    return Section(f"{group.name}: where the information sits", [WORDS, explorer, *_rows(maps)])


def _rows(maps: Mapping[str, np.ndarray]) -> list[Part]:
    """In which rows p(x | h) is worse than p(x), and what each row's better one says."""
    rows = []
    for label, found in maps.items():
        its = torch.from_numpy(found)
        if len(its) > 1:
            rows.append([label, *_estimate_and_rows(its), *_estimate_and_rows(selected_by_row(its))])
    words = "Rows of pixels in which p(x | h) is worse than p(x) by more than two standard errors, with their nats."
    header = [
        "layer",
        "estimate of I(x; h), nats",
        "such rows",
        "with the better of the two in each row",
        "such rows then",
    ]
    return [Table(words, header, rows), SELECTED] if rows else []


def _estimate_and_rows(maps: torch.Tensor) -> tuple[str, str]:
    """Their cells of the table."""
    below = ", ".join(f"{row} ({number(mean)})" for row, mean in rows_below(maps).items())
    return number(*mean_and_standard_error(maps.sum((1, 2)))), below or NONE


def pictures(runs: Sequence[InverterRun]) -> np.ndarray | None:
    """The first test images, uint8 [n, C, H, W], as many as any run has kept; they are the same for all."""
    kept = [run.images for run in runs]
    return max((images for images in kept if images is not None), key=len, default=None)


def explorable(
    maps: dict[str, np.ndarray], images: np.ndarray | None, index: np.ndarray,
    red_and_blue: str = "Red is where h helps and blue where it misleads", most_bytes: int = MOST_BYTES,
) -> dict[str, Any]:  # fmt: skip
    """The maps [N, H, W] nats of every layer, as explorer.js reads them: of the first images, as many as have room.

    Values of pixels are whole numbers of 16 bits, times a step in nats; sums and means are those of the exact values.
    """
    total, height, width = next(iter(maps.values())).shape
    channels = images.shape[1] if images is not None else 0
    count = max(1, min(total, most_bytes // (height * width * (2 * len(maps) + channels))))
    layers: list[dict[str, Any]] = []
    for name, values in maps.items():
        step = max(FINEST, float(abs(values[:count]).max()) / 32767)
        layers.append({
            "name": name, "nats": round(float(values.mean(0).sum()), 4), "step": step,
            "sums": [round(float(nats), 4) for nats in values[:count].sum((1, 2))],
            "map": base64_of(np.rint(values[:count] / step).astype(np.int16)),
            "mean": base64_of(values.mean(0).astype(np.float32)),
        })  # fmt: skip
    coarsest = max(layer["step"] for layer in layers)
    shown = images[:count] if images is not None else None
    which = f"the first {count} of {total}" if count < total else f"all {total}"
    told = (
        f"{red_and_blue}; 99.5 % of a layer's pixels lie within the ends of its scale, and one scale for all layers is "
        f"the widest. Of {which} test images; a pixel's nats are rounded to "
        f"{coarsest:.2g}, sums are exact."
    )
    if shown is not None and len(shown) < count:
        told += f" The pictures of the first {len(shown)} were kept."
    return {
        "height": height, "width": width, "count": count, "total": total, "channels": channels, "layers": layers,
        "index": index[:count].tolist(), "pictures": len(shown) if shown is not None else 0,
        "images": base64_of(shown) if shown is not None else None, "told": told,
    }  # fmt: skip
