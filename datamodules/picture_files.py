"""Which files of a folder or a zip are pictures, of which class and split; none of them is opened."""

import heapq
import json
import os
import stat
import zipfile
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from datamodules.pictures import EXTENSIONS, check_regular, printable

FEWEST = 10  # images of which 10 % can be kept for validation
# Of folders above classes.
ROLES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
UNLABELLED = "unlabelled"  # the one class of pictures that do not all lie in class folders
Parts = tuple[str, ...]  # of a file's path, or of a folder's with an empty one behind it


class Found(NamedTuple):
    """What is in a folder or a zip: files and folders with their sizes, and what is not looked at."""

    sizes: dict[Parts, int]
    skipped: list[str]


class Layout(NamedTuple):
    """Which pictures are of which class and split.

    Attributes:
        class_names: Sorted.
        files: Sorted (name, label) of "train", and of "val" and "test" where they have a folder.
        digest: Of all files' names and sizes, which is the same where one more folder wraps them.
        loose: Those that lie in no class folder, where others do.
    """

    class_names: list[str]
    files: dict[str, list[tuple[str, int]]]
    digest: str
    loose: list[str]


def is_image(parts: Parts) -> bool:
    return parts[-1].lower().endswith(EXTENSIONS)


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def found_in_folder(path: str) -> Found:
    """Links are followed, and what has several names is taken once: by that of fewest links, of those the shortest."""
    found, seen = Found({}, []), set()
    waiting: list[tuple[int, int, Parts, str]] = [
        (0, 0, (), os.path.realpath(path))
    ]  # links, depth, name, what is there
    while waiting:
        num_links, depth, parts, real = heapq.heappop(waiting)
        if real in seen:
            found.skipped.append("/".join(parts))
            continue
        seen.add(real)
        try:
            status = os.stat(real)
            if not stat.S_ISDIR(status.st_mode):
                found.sizes[parts] = status.st_size
                continue
        except OSError:  # a link to nowhere, for one, is named where it is an image that is read
            found.sizes[parts] = -1
            continue
        found.sizes[*parts, ""] = 0
        try:
            entries = list(os.scandir(real))
        except OSError as error:
            raise OSError(f"cannot read the folder {real} ({error.strerror}); allow it or take it out") from error
        for entry in entries:
            inner = (*parts, entry.name)
            if _is_hidden(entry.name):
                found.skipped.append("/".join(inner))
            elif entry.is_symlink():
                heapq.heappush(waiting, (num_links + 1, depth + 1, inner, os.path.realpath(entry.path)))
            else:
                heapq.heappush(waiting, (num_links, depth + 1, inner, entry.path))
    return found


def found_in_zip(path: str) -> Found:
    """From a zip's directory."""
    found = Found({}, [])
    try:
        check_regular(path)
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no {path}; give a folder or a .zip") from None
    except Exception as error:  # zipfile promises no list of what a broken file raises
        raise OSError(f"cannot read {path} ({type(error).__name__}: {error}); give a folder or a whole .zip") from error
    for member in members:
        parts = tuple(member.filename.split("/"))
        if not any(map(_is_hidden, parts)):
            found.sizes[parts] = member.file_size
        elif parts[-1]:
            found.skipped.append(member.filename)
    return found


def found_in(path: str) -> Found:
    """In a folder or a zip."""
    return found_in_folder(path) if Path(path).is_dir() else found_in_zip(path)


def pictures_in(path: str, sizes: Mapping[Parts, int]) -> list[Parts]:
    """Sorted. Raises ValueError where there is none."""
    files = sorted(parts for parts in sizes if is_image(parts))
    if not files:
        raise ValueError(f"{path} holds no image; those with the extensions {', '.join(EXTENSIONS)} are read")
    return files


def layout(path: str, sizes: Mapping[Parts, int]) -> Layout:
    """The layout of what is found in a folder or a zip.

    A picture's class is the folder that it lies in, one in the folder itself or in that of a split. Where a picture
    lies in none, folders are not for classes, and all pictures are of one.
    """
    files = pictures_in(path, sizes)
    start = int(len({parts[0] for parts in files}) == 1 and min(map(len, files)) > 2)  # one folder wraps all
    tops = sorted({parts[start] for parts in files})
    level = start + _are_splits(path, tops)  # of the class folders
    loose = [parts for parts in files if len(parts) < level + 2]
    inside = {parts[: level + 1] for parts in sizes if len(parts) > level + 1 and parts[:start] == files[0][:start]}
    for parts in () if loose else sorted(inside - {parts[: level + 1] for parts in files}):
        raise ValueError(f"the class folder {'/'.join(parts)} in {path} holds no image; fill it or take it out")
    found: dict[str, list[Parts]] = {"train": [], "val": [], "test": []}
    for parts in files:
        found[ROLES[parts[start].lower()] if level > start else "train"].append(parts)
    if len(found["train"]) < FEWEST:
        raise ValueError(f"{path} holds {len(found['train'])} images to train with; at least {FEWEST} are needed")
    of = {parts: UNLABELLED if loose else parts[level] for parts in files}
    classes = sorted({of[parts] for parts in found["train"]})
    for parts in (*found["val"], *found["test"]):
        if of[parts] not in classes:
            raise ValueError(f"the class folder {'/'.join(parts[: level + 1])} in {path} has none of its name in train")
    number = {name: k for k, name in enumerate(classes)}
    labelled = {name: [("/".join(parts), number[of[parts]]) for parts in x] for name, x in found.items()}
    digest = sha256(json.dumps([(parts[start:], sizes[parts]) for parts in files]).encode()).hexdigest()[:16]
    mixed = ["/".join(parts) for parts in loose] if len(loose) < len(files) else []
    return Layout(list(map(printable, classes)), labelled, digest, mixed)


def _are_splits(path: str, tops: Sequence[str]) -> bool:
    """Whether these are folders of splits, of which one is for training; a class may have one of their names.

    Raises:
        ValueError: There are others beside them, or two for the same.
    """
    splits = [top for name in ROLES for top in tops if top.lower() == name]
    if len(splits) < 2:
        return False
    roles, listed = {ROLES[top.lower()] for top in splits}, ", ".join(splits)
    if len(roles) < len(splits):
        raise ValueError(f"{path} holds {listed}, of which two say the same; take one out")
    if "train" not in roles:
        raise ValueError(f"{path} holds {listed}, and no folder train; put one beside them")
    if others := [top for top in tops if top not in splits]:
        raise ValueError(
            f"{path} holds {', '.join(others)} beside {listed}, which would not be read; take it out, or put its "
            f"images into one of those"
        )
    return True
