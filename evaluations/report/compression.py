"""How few bytes are images, given h?"""

from collections.abc import Sequence

from evaluations.measurements import CompressionResult
from evaluations.report.cells import number
from evaluations.report.groups import Group
from evaluations.report.kept import NOTHING
from evaluations.report.page import Section, Table


def section(groups: Sequence[Group]) -> Section | None:
    found = [
        (f"{group.name}, {label}", result)
        for group in groups
        for label, run in [*group.inverters.items(), *([(NOTHING, group.unconditional)] if group.unconditional else [])]
        for result in run.measured(CompressionResult)
    ]
    if not found:
        return None
    formats = list(dict.fromkeys(name for _, result in found for name in result.alone_bytes))
    rows = []
    for label, result in found:
        each = [result.num_bytes / result.num_images, result.ideal_bytes / result.num_images, result.given_bytes]
        row = [label, str(result.num_images), *map(number, each)]
        row += [f"{100 * (result.num_bytes / result.ideal_bytes - 1):.3f}"]
        row += [number(result.bits_per_dim(result.num_bytes), digits=4)]
        for sizes in (result.alone_bytes, result.mosaic_bytes):
            row += [number(sizes[name] / result.num_images if name in sizes else None) for name in formats]
        rows.append(row)
    header = ["layer", "images", "file", "-log2 p / 8", "h", "file longer by, %", "file, bits/dim"]
    header += [*(f"{name}, each" for name in formats), *(f"{name}, mosaic" for name in formats)]
    words = (
        "An entropy coder that p(x | h) drives has written test images as one file, from which they come back bit for "
        "bit, given h: log p(x | h) is not only a number. h is no part of the file; behind a channel its size is "
        "that of the bits that are sent of it. -log2 p is of full passes of the network, the file of the sampler's, "
        "pixel by pixel. Beside it are general formats, which see no h and are not trained on such images: a file for "
        "each image, where headers weigh most, and one mosaic of them all."
    )
    return Section("In bytes", [words, Table("Bytes an image.", header, rows)])
