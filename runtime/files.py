"""A file that is replaced whole or not at all."""

import errno
import io
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from matplotlib.figure import Figure

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the disk, one's share of it, or the largest file allowed


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A binary file to write; it takes the place of `path` when the block ends without an error.

    Raises:
        OSError: There is no room, or no file can be there, with the path and the remedy; or any other, as it is.
    """
    temporary = None
    if path.exists() and not path.is_file():
        raise FileExistsError(f"{path} is there and is no file; give another place to write to")
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
        if isinstance(error, FileExistsError | NotADirectoryError | PermissionError) and not temporary:
            raise OSError(f"cannot write {path} ({error.strerror}); give another place to write to") from error
        raise


def remove_temporaries(folder: Path) -> None:
    """What a process that was killed while it wrote has left in a folder, where no other process writes now."""
    for path in folder.glob(".*.????????"):
        if path.is_file():
            path.unlink()


def write_all(contents: Mapping[Path, bytes | memoryview]) -> None:
    """Several files, which are replaced when all are on the disk, the first one last: a full disk changes none."""
    with ExitStack() as stack:
        for path, content in contents.items():
            file = stack.enter_context(replacing(path))
            file.write(content)
            file.flush()
            os.fsync(file.fileno())


def json_bytes(value: Any) -> bytes:
    """A value as JSON."""
    return (json.dumps(value, indent=2) + "\n").encode()


def npy_bytes(array: np.ndarray) -> memoryview:
    """An array as .npy. Into a file NumPy would write past Python, and not say why it could not."""
    content = io.BytesIO()
    np.save(content, array)
    return content.getbuffer()


def npz_bytes(arrays: Mapping[str, Any]) -> memoryview:
    """Named arrays as .npz."""
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getbuffer()


def write_figure(path: Path, figure: Figure) -> None:
    """A figure as PNG, whole or not at all."""
    with replacing(path) as file:
        figure.savefig(file, dpi=150, format="png")
