"""A file that is replaced whole or not at all."""

import errno
import io
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from matplotlib.figure import Figure

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the disk, one's share of it, or the largest file allowed


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A binary file to write; it takes the place of `path` when the block ends without an error.

    Raises:
        OSError: There is no room, with the path and the remedy; or any other, as it is.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in FULL:
            kept = "; the file that was there is kept" if path.exists() else ""
            raise OSError(f"no room to write {path} ({os.strerror(error.errno)}){kept}; make room there") from error
        raise


def write_json(path: Path, value: Any) -> None:
    """A value as JSON, whole or not at all."""
    with replacing(path) as file:
        file.write((json.dumps(value, indent=2) + "\n").encode())


def write_array(path: Path, array: np.ndarray) -> None:
    """An array as .npy, whole or not at all."""
    content = io.BytesIO()  # into a file NumPy writes past Python, and does not say why it could not
    np.save(content, array)
    with replacing(path) as file:
        file.write(content.getbuffer())


def write_figure(path: Path, figure: Figure) -> None:
    """A figure as PNG, whole or not at all."""
    with replacing(path) as file:
        figure.savefig(file, dpi=150, format="png")


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Named arrays as .npz, whole or not at all."""
    with replacing(path) as file:
        np.savez(file, **arrays)
