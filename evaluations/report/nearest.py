"""Which samples and training images are nearest, and what is the layer blind to?"""

from evaluations.figures import nearest_grid
from evaluations.measurements import DistancesResult
from evaluations.report.arrays import checked
from evaluations.report.groups import Group
from evaluations.report.page import Picture, Section

NEEDED = (
    "inputs", "num_samples", "samples", "training", "blind",
    "sample_distances", "training_distances", "blind_distances",
)  # fmt: skip


def section(group: Group) -> Section | None:
    parts = []
    for label, run in group.inverters.items():
        arrays = next(map(run.nearest, run.measured(DistancesResult)), None)
        if arrays is not None:
            checked(arrays, run.folder / "nearest.npz", NEEDED)
            words = (
                f"{group.name}, {label}: the nearest of {int(arrays['num_samples'])} samples and the nearest training "
                f"images (the paper's fig 2); and of the samples that are as near, to the layer, as the nearest "
                f"training image, those that differ most from the input in pixels: what the layer is most blind to. "
                f"Fewer, or none, where no sample is so near. Below each image is its distance from the input: the "
                f"mean absolute difference per unit of {label}, or per pixel where pixels are compared."
            )
            parts.append(Picture(words, nearest_grid(arrays, label)))
    return Section(f"{group.name}: nearest, and most different", parts) if parts else None
