"""Files that are replaced whole or not at all, and locks."""

import errno
import fcntl
import io
import json
import math
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the disk, one's share of it, or the largest file allowed
NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)  # as Lustre says where it is mounted without flock, or NFS
WITHOUT_LOCKS: set[int] = set()  # the file systems of which that was said


@contextmanager
def locked(path: Path, wait: bool = True, announcement: str = "", needed: bool = False) -> Iterator[int]:
    """A block in which no other process is at the same time; the lock file's descriptor, which a child can hold too.

    The kernel frees the lock when the last process that has the descriptor ends, however it ends. Whoever is in the
    block may delete the file.

    Args:
        path: The lock file's.
        wait: For the end of the other one's block.
        announcement: What is said where that takes time.
        needed: Where the file system has no locks, this is an error, and not said and passed over.

    Raises:
        BlockingIOError: Another process is in it, and this one is not to wait.
        OSError: The file cannot be made.
    """
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:
            if path.is_symlink():
                raise
            continue  # whoever was in the block has removed the folder
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not wait:
                    raise
                if announcement:
                    print(announcement, flush=True)
                fcntl.flock(handle, fcntl.LOCK_EX)
            except OSError as error:
                if needed or error.errno not in NO_LOCKS:
                    raise
                if (device := os.fstat(handle).st_dev) not in WITHOUT_LOCKS:
                    WITHOUT_LOCKS.add(device)
                    words = f"the file system of {path} has no locks; start no two commands of one run at a time"
                    print(words, flush=True)
            if os.fstat(handle).st_nlink:  # else whoever held it has deleted it
                yield handle
                return
        finally:
            os.close(handle)


@contextmanager
def _beside(path: Path) -> Iterator[tuple[BinaryIO, str]]:
    """A new file in the folder of a path, and its name; gone at the end of the block, unless it has been renamed.

    It is locked in the block: what nobody holds was left by a process that was killed (`remove_temporaries`).

    Raises:
        OSError: As `replacing`.
    """
    temporary = None
    if path.exists() and not path.is_file():
        raise FileExistsError(f"{path} is there and is no file; give another place to write to")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
            with suppress(OSError):  # a file system without locks
                fcntl.flock(handle, fcntl.LOCK_SH)
            if os.fstat(handle).st_nlink:
                break
            os.close(handle)  # it was taken for left over before it was locked
        with os.fdopen(handle, "wb") as file:
            os.chmod(temporary, 0o644)
            yield file, temporary
    except BaseException as error:
        if isinstance(error, OSError) and error.errno in FULL:
            kept = "; the file that was there is kept" if path.exists() else ""
            raise OSError(f"no room to write {path} ({os.strerror(error.errno)}){kept}; make room there") from error
        if isinstance(error, FileExistsError | NotADirectoryError | PermissionError) and not temporary:
            raise OSError(f"cannot write {path} ({error.strerror}); give another place to write to") from error
        raise
    finally:
        if temporary:
            Path(temporary).unlink(missing_ok=True)


def _put_in_place(temporaries: Mapping[Path, str]) -> None:
    """Rename files that are on the disk, the first one last, and have their folders say so on the disk too."""
    for path in reversed(list(temporaries)):
        os.replace(temporaries[path], path)
    for folder in {path.parent for path in temporaries}:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        except OSError as error:
            if error.errno != errno.EINVAL:  # of a file system that syncs no folders
                raise
        finally:
            os.close(handle)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A binary file to write; it takes the place of `path` when the block ends without an error.

    Raises:
        OSError: There is no room, or no file can be there, with the path and the remedy; or any other, as it is.
    """
    with _beside(path) as (file, temporary):
        yield file
        _sync(file)
        _put_in_place({path: temporary})


def write_all(contents: Mapping[Path, bytes | memoryview]) -> None:
    """Several files, which are replaced when all are on the disk, the first one last: a full disk changes none."""
    with ExitStack() as stack:
        temporaries = {}
        for path, content in contents.items():
            file, temporaries[path] = stack.enter_context(_beside(path))
            file.write(content)
            _sync(file)
        _put_in_place(temporaries)


def remove_temporaries(folder: Path) -> None:
    """What processes that were killed while they wrote have left in a folder; what one writes now is locked."""
    for path in folder.glob(".*.????????"):
        if path.is_file():
            with suppress(OSError), path.open("rb+") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()


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


def png_bytes(figure: Figure) -> memoryview:
    """A figure as PNG."""
    content = io.BytesIO()
    figure.savefig(content, dpi=150, format="png")
    return content.getbuffer()


def write_figure(path: Path, figure: Figure) -> None:
    """A figure as PNG, whole or not at all."""
    write_all({path: png_bytes(figure)})


def write_npy(
    path: Path, dtype: np.dtype, shape: tuple[int, ...], parts: Iterable[tuple[int, Any]], what: str, note: str = "",
    remedy: str = "make room there", made_of: bytes | None = None,
) -> None:  # fmt: skip
    """A large array, part by part, whole or not at all; it is announced, and has a bar where it takes long.

    Args:
        parts: The position of a part's first row, and its rows.
        what: The announcement, before the size.
        note: The announcement, behind it.
        remedy: What to do where there is no room.
        made_of: A checksum of this and of all that is written, in order, is put behind the array: 4 bytes.

    Raises:
        OSError: The disk has no room for it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    num_bytes, free = math.prod(shape) * dtype.itemsize, shutil.disk_usage(path.parent).free
    if free < num_bytes:
        takes, has = size_for_people(num_bytes), size_for_people(free)
        raise OSError(f"{path.name} takes {takes}, and the disk of {path.parent} has {has} free; {remedy}")
    print(f"{what}, {size_for_people(num_bytes)}, once{note}", flush=True)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": dtype.str, "fortran_order": False, "shape": shape})
    with replacing(path) as file, tqdm(total=shape[0], desc=path.name, unit=" rows", delay=5, leave=False) as progress:
        file.write(header.getbuffer())
        checksum = zlib.crc32(header.getbuffer(), zlib.crc32(made_of or b""))
        for first, rows in parts:
            content = np.asarray(rows, dtype).tobytes()
            file.seek(header.tell() + first * (len(content) // len(rows)))
            file.write(content)
            checksum = zlib.crc32(content, checksum)
            progress.update(len(rows))
        if made_of is not None:
            file.write(checksum.to_bytes(4))


def size_for_people(num_bytes: float) -> str:
    """In GB, or in MB below one."""
    return f"{num_bytes / 1e9:.2f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.1f} MB"


def free_memory() -> int:
    """Bytes: what Linux says that it can give, and elsewhere all that there is."""
    try:
        return 1024 * int(Path("/proc/meminfo").read_text().split("MemAvailable:")[1].split()[0])
    except (OSError, LookupError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
