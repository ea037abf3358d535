"""Where in the image does the information sit?"""

import torch

from evaluations.figures import information_maps
from evaluations.information import information_map
from evaluations.report.groups import Group
from evaluations.report.page import Part, Picture, Section

NUM_MAPS = 4  # single images whose maps are shown


def section(group: Group) -> Section | None:
    without = group.unconditional.log_prob_per_pixel if group.unconditional else None
    if without is None:
        return None
    parts: list[Part] = [
        "log p(x_i | x_<i, h) less log p(x_i | x_<i), in nats: what h adds at each pixel to the pixels before it, row "
        "by row. The mean map's sum is the estimate of I(x; h) exactly, by the chain rule; that of a single image's is "
        "what h adds to the log-probability of that image, which may be below 0, as any of its pixels may, even for an "
        "exact model. A mean below 0, beyond its error, is an inverter's weakness. The maps show where information "
        "enters in that order, not all that h knows of a pixel."
    ]
    for label, run in group.inverters.items():
        given, samples = run.log_prob_per_pixel, run.samples
        if given is None or samples is None or given.shape != without.shape:
            continue
        found = information_map(torch.from_numpy(given), torch.from_numpy(without)).numpy()
        images, mean = samples[0][:NUM_MAPS], found.mean(0)
        words = f"{group.name}, {label}: mean over {len(found)} images, {mean.sum():.2f} nats in all; single images."
        parts.append(Picture(words, information_maps(mean, images, found[: len(images)], label)))
    return Section(f"{group.name}: where the information sits", parts) if len(parts) > 1 else None
