"""The form of the arrays that a report reads, as someone may have changed them."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

# The kinds of numbers, and the axes: N images, the first I of them, Q inputs, M or K of each, channels, height, width.
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
    for name in (name for name in arrays if name in FORMS):
        array, (kinds, axes) = arrays[name], FORMS[name]
        fits = array.dtype.kind in kinds and array.ndim == len(axes) and array.size > 0
        if not fits or any(sizes.setdefault(axis, n) != n for axis, n in zip(axes, array.shape, strict=True)):
            raise ValueError(f"{place}: {name} cannot be {array.dtype} {list(array.shape)}; delete it and test again")
        if name != "index" and "K" not in axes and np.isnan(array).any():
            raise ValueError(f"{place}: {name} holds NaN; delete it and test again")
    if sizes.get("C", 1) not in (1, 3):
        raise ValueError(f"{place}: its images have {sizes['C']} channels; delete it and test again")
    return arrays
