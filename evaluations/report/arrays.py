"""The form of the arrays that a report reads, as someone may have changed them."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

# The kinds of numbers, and the axes: N images, the first I of them, Q inputs, M or K of each, S maps, P and R pairs, 2
# of what has two, channels, height, width.
FORMS = {
    "index": ("iu", "N"),
    "log_prob": ("f", "N"),
    "log_prob_per_pixel": ("f", "NHW"),
    "images": ("u", "ICHW"),
    "inputs": ("u", "QCHW"),
    "draws": ("u", "QMCHW"),
    "means": ("u", "QCHW"),
    "nearest": ("u", "QCHW"),
    "num_samples": ("iu", ""),
    **dict.fromkeys(("draws_a", "draws_b"), ("u", "QMCHW")),
    "mean_map": ("f", "HW"),
    "maps": ("f", "SHW"),
    "pairs_of_a": ("u", "P2CHW"),
    "pairs_of_b": ("u", "R2CHW"),
    **dict.fromkeys(("alike_a", "alike_b"), ("u", "QKCHW")),
    **dict.fromkeys(("alike_a_far", "alike_b_far"), ("f", "QK2")),
    **dict.fromkeys(("samples", "training", "blind"), ("u", "QKCHW")),
    **{f"{name}_distances": ("f", "QK") for name in ("sample", "training", "blind")},
}


def checked(
    arrays: dict[str, np.ndarray], place: Path, needed: Iterable[str] = (), **sizes: int
) -> dict[str, np.ndarray]:
    """The same arrays.

    Args:
        arrays: By name; those of other names are not looked at.
        place: Where they lie, for the message.
        needed: Names that must be there.
        sizes: Of axes that are known.

    Raises:
        ValueError: One is missing, has another form, or does not belong to the others.
    """
    for name in needed:
        if name not in arrays:
            raise ValueError(f"{place} has no {name}; delete it and test again")
    sizes["2"] = 2
    for name in (name for name in arrays if name in FORMS):
        array, (kinds, axes) = arrays[name], FORMS[name]
        some = array.size > 0 or name.startswith("pairs_of")
        fits = array.dtype.kind in kinds and array.ndim == len(axes) and some
        if not fits or any(sizes.setdefault(axis, n) != n for axis, n in zip(axes, array.shape, strict=True)):
            raise ValueError(f"{place}: {name} cannot be {array.dtype} {list(array.shape)}; delete it and test again")
        if name != "index" and "K" not in axes and np.isnan(array).any():
            raise ValueError(f"{place}: {name} holds NaN; delete it and test again")
    if sizes.get("C", 1) not in (1, 3):
        raise ValueError(f"{place}: its images have {sizes['C']} channels; delete it and test again")
    return arrays
