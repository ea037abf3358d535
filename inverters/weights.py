"""Weights of a network that was trained elsewhere, from a file: plain tensors, and nothing in it is executed."""

import argparse
import importlib.util
import os
import pickletools
import re
import zipfile
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from io import BytesIO
from itertools import takewhile
from pickle import UnpicklingError
from typing import Any, BinaryIO

import safetensors.torch
import torch
from torch import Tensor, nn

from inverters.archive import pickle_of_archive

ENDINGS = (".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".pth.tar")
SAVE = "where it can be trusted, save the weights alone, by torch.save(network.state_dict(), 'weights.pth')"
LONGEST_PICKLE = 2**24  # bytes; a tensor and its optimiser's numbers take some 500. Reading it takes seconds.
PLAIN = re.compile(  # what tensors, numbers, texts and the arguments of a script ask for by name
    r"collections (OrderedDict|Counter)|argparse Namespace|(__builtin__|builtins) set|"
    r"torch\._utils (_rebuild_tensor(_v[23])?|_rebuild_parameter)|torch\.nn\.parameter Parameter|"
    r"torch\.storage UntypedStorage|torch(\.cuda)? [A-Z][A-Za-z0-9]*Storage|torch (Size|device|bool)|"
    r"torch (b?float|complex|u?int)\d+\w*"
)
WRAPPERS = re.compile(r"(?<![^.])(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")  # torch's own


def weights_of_file(place: str) -> dict[str, Tensor]:
    """All tensors of a file by name; in nested dictionaries the keys come before it, as in `model.conv1.bias`.

    Args:
        place: `FILE`, or `package:FILE` for one inside an installed package, which is not imported. It ends in
            .safetensors, or in .pth, .pt, .ckpt or .bin, as torch.save writes it. `#PREFIX` may follow (`fitted`).

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It has no tensors, is damaged, or holds more than tensors, which is not loaded.
    """
    path = _path(_file_and_prefix(place)[0])
    try:
        loaded = _loaded(path)
        weights = _tensors(loaded)
        _check_numbers(weights, os.path.getsize(path))
    except PermissionError:
        raise
    except _MoreError as error:
        raise ValueError(f"{path} holds more than tensors, which is not loaded: {error}; {SAVE}") from error
    except Exception as error:  # neither zipfile, torch nor safetensors promises a list of what a broken file raises
        reason = "no pickle of tensors" if isinstance(error, UnpicklingError) else str(error).partition("\n")[0]
        raise ValueError(
            f"{path} is not a whole file of weights ({reason.rstrip('.') or type(error).__name__}); give another one"
        ) from error
    if not weights:
        raise ValueError(f"{path} has no tensors with names; give a file with the state_dict of a network")
    return weights


def fitted(weights: Mapping[str, Tensor], network: nn.Module, needed: Collection[str], place: str) -> dict[str, Tensor]:
    """A file's weights by the names that a network has for them, in its types.

    They may be under any prefix, such as `module.` or `state_dict.backbone.`: it is the one under which all that is
    needed is there. A network that wraps another one takes the other's weights too.

    Args:
        weights: As `weights_of_file` gives them.
        network: Is not changed.
        needed: Names of its state_dict, on which h depends. Batch norm's num_batches_tracked may be missing.
        place: Of the weights, as it was given: `FILE#PREFIX` chooses where several networks are in it.

    Returns:
        What is needed, and of the rest of the network what the file has in the right shape.

    Raises:
        ValueError: Something that is needed is not there, has another shape, or is no finite number; or it is there
            under several prefixes, with different values.
    """
    own = {name: value for name, value in network.state_dict().items() if isinstance(value, Tensor)}
    strict = [name for name in own if name in needed and not name.endswith("num_batches_tracked")]
    file, chosen = _file_and_prefix(place)
    found = [_chosen(_places(weights, names), chosen) for names in _names(own)]
    whole: dict[str, dict[str, str]] = {}
    for places in found:
        for prefix, there in places.items():
            fits = {name: in_file for name, in_file in there.items() if _fits(weights[in_file], own[name])}
            if fits.keys() >= set(strict) and fits not in whole.values():
                whole[prefix] = fits
        if whole:
            break
    if own and not whole:
        nearest = max(
            (there for places in found for there in places.values()),
            key=lambda there: sum(name in there for name in strict),
            default={},
        )
        raise ValueError(_misfit(weights, own, strict, nearest, place))
    best = max(whole.values(), key=len, default={})
    # Another copy of the network has most of what the best one has; a layer that has the right names by chance has not.
    rivals = [prefix for prefix, there in whole.items() if 2 * len(there) > len(best)]
    others = [whole[prefix] for prefix in rivals if whole[prefix] is not best]
    if any(not torch.equal(weights[there[name]], weights[best[name]]) for there in others for name in strict):
        words = " or ".join(f"{file}#{prefix}" for prefix in rivals)
        raise ValueError(f"{file} has several networks that fit, with different weights; choose one by giving {words}")
    return {name: _finite(weights[in_file], own[name], f"{in_file} of {file}") for name, in_file in best.items()}


class _MoreError(ValueError):
    """A file asks for more than tensors."""


def _file_and_prefix(place: str) -> tuple[str, str | None]:
    """Where a file is, and which of the networks in it is meant, if that is said."""
    if "#" not in place or os.path.exists(place):
        return place, None
    file, _, prefix = place.rpartition("#")
    return file, prefix.strip(".")


def _path(file: str) -> str:
    """The path of a file, which may be inside an installed package; that is not imported."""
    paths = [os.path.expanduser(file)]
    package, colon, inside = file.partition(":")
    if colon and not os.path.exists(paths[0]) and not inside.startswith("//"):
        top, *folders = package.split(".")
        spec = importlib.util.find_spec(top) if top.isidentifier() and top != "__main__" else None
        if spec is None or not spec.submodule_search_locations:
            raise FileNotFoundError(
                f"no file {file}, and no package {package!r} is installed; install it, or give a file"
            )
        paths = [os.path.join(location, *folders, inside) for location in spec.submodule_search_locations]
    path = next(filter(os.path.exists, paths), paths[0])
    if os.path.isdir(path):
        raise ValueError(f"{path} is a folder; give a file of weights in it")
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"no file of weights {path}; give one that is here (nothing is fetched), package:FILE for one inside an "
            f"installed package, or untrained for a random network"
        )
    if not path.lower().endswith(ENDINGS):
        raise ValueError(
            f"{path} ends in none of {', '.join(ENDINGS)}; save the network's state_dict by torch.save or safetensors"
        )
    return path


def _loaded(path: str) -> Any:
    """What a file holds.

    Raises:
        _MoreError: Than tensors, numbers, texts and the arguments of a script.
        Exception: It is damaged.
    """
    if path.lower().endswith(".safetensors"):
        return safetensors.torch.load_file(path)
    with open(path, "rb") as file:
        if file.read(4) == b"PK\x03\x04":
            with zipfile.ZipFile(path) as archive:
                if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                    raise _MoreError("it is a TorchScript archive, which is a program")
            _check_pickle(BytesIO(pickle_of_archive(path, LONGEST_PICKLE)))
        else:  # as torch.save wrote before version 1.6: a number, the version, the machine, the object, its storages
            file.seek(0)
            for _ in range(5):
                _check_pickle(file)
    # The arguments of a training script, which many keep beside the weights, are an object without any code.
    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(path, map_location="cpu", weights_only=True)


def _check_pickle(file: BinaryIO) -> None:
    """Raises _MoreError where the next pickle of a file asks for more than `PLAIN`, ValueError where it is too long."""
    start = file.tell()
    for opcode, argument, position in pickletools.genops(file):
        if opcode.name == "PROTO" and argument != 2:
            raise _MoreError(f"it is a pickle of protocol {argument}, which torch.save did not write")
        if opcode.name == "STACK_GLOBAL":  # of later protocols
            raise ValueError("no pickle of torch.save")
        if opcode.name in ("GLOBAL", "INST") and not PLAIN.fullmatch(str(argument)):
            raise _MoreError(f"it asks for {str(argument).replace(' ', '.')}")
        if position is not None and position - start > LONGEST_PICKLE:
            raise ValueError(f"it has more than {LONGEST_PICKLE} bytes beside its tensors")


def _tensors(loaded: Any) -> dict[str, Tensor]:
    """The tensors of nested dictionaries and lists, by their keys and names, joined by dots."""
    found: dict[str, Tensor] = {}
    seen, left = set(), [("", loaded, 0)]
    while left:
        name, value, depth = left.pop()
        if isinstance(value, Tensor):
            if name in found and not torch.equal(found[name], value):
                raise ValueError(f"two of its tensors are named {name}")
            found[name] = value.detach()
        elif id(value) not in seen:
            seen.add(id(value))
            if depth > 20:
                raise ValueError("it holds parts in each other without an end")
            items = value.items() if isinstance(value, dict) else enumerate(value)
            inner = [(key, item) for key, item in items if isinstance(item, Tensor | dict | list | tuple)]
            left += [(f"{name}.{key}" if name else str(key), item, depth + 1) for key, item in reversed(inner)]
    return {name: value for name, value in found.items() if name}


def _check_numbers(weights: Mapping[str, Tensor], num_bytes: int) -> None:
    """Raises ValueError where tensors have more numbers than their file has bytes for."""
    storages = {value.untyped_storage().data_ptr(): value.untyped_storage().nbytes() for value in weights.values()}
    larger = [name for name, value in weights.items() if value.nbytes > value.untyped_storage().nbytes()]
    if larger or sum(storages.values()) > num_bytes:
        raise ValueError(f"its {larger[0] if larger else 'tensors'} have more numbers than the file")


def _names(own: Collection[str]) -> Iterator[dict[str, str]]:
    """What a file may call the tensors of a network: as it does; or as the network does that it is a wrapper of."""
    plain = {WRAPPERS.sub("", name): name for name in own}
    yield plain
    modules = sorted({tuple(name.split(".")[:-1]) for name in plain})
    shared = (
        takewhile(lambda pair: pair[0] == pair[1], zip(modules[0], modules[-1], strict=False)) if modules[1:] else ()
    )
    for depth, _ in enumerate(shared, 1):
        yield {".".join(name.split(".")[depth:]): there for name, there in plain.items()}


def _places(weights: Collection[str], names: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Where a file has tensors whose names end as those of a network: prefix -> name in the network -> in the file."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for there in weights:
        parts = there.split(".")
        for i in range(len(parts)):
            name = names.get(WRAPPERS.sub("", ".".join(parts[i:])))
            if name:
                found[".".join(parts[:i])][name] = there
    return found


def _chosen(places: dict[str, dict[str, str]], chosen: str | None) -> dict[str, dict[str, str]]:
    """Those under a prefix, or under one that ends so."""
    if chosen is None:
        return places
    named = [prefix for prefix in places if prefix == chosen]
    named = named or [prefix for prefix in places if chosen and prefix.endswith(f".{chosen}")]
    return {prefix: places[prefix] for prefix in named}


def _fits(value: Tensor, wanted: Tensor) -> bool:
    is_kind = value.dtype == wanted.dtype or (value.is_floating_point() and wanted.is_floating_point())
    return value.shape == wanted.shape and is_kind


def _finite(value: Tensor, wanted: Tensor, words: str) -> Tensor:
    """A tensor in the type of another one, if it has nothing but finite numbers."""
    value = value.to(wanted.dtype)
    if not (value.isfinite() | (value == wanted.to(value.device))).all():  # a mask is infinite by design
        raise ValueError(f"{words} has NaN or infinity: its training diverged; give the weights of another one")
    return value


def _misfit(
    weights: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    strict: Collection[str],
    nearest: Mapping[str, str],
    place: str,
) -> str:
    """Why a file does not fit, by what is missing or misshapen where most of what is needed is."""
    if not nearest:
        needs, has = (", ".join(list(names)[:3]) for names in (strict or own, weights))
        return f"{place} has none of this network's weights: needed are {needs}, ...; it has {has}, ...; give its file"
    problems = []
    for name in strict:
        if name not in nearest:
            problems.append(f"{name} is missing")
        elif not _fits(value := weights[nearest[name]], own[name]):
            kinds = [f" {each.dtype}" if value.shape == own[name].shape else "" for each in (value, own[name])]
            shapes = [f"{list(each.shape)}{kind}" for each, kind in zip((value, own[name]), kinds, strict=True)]
            problems.append(f"{nearest[name]} is {shapes[0]} where {shapes[1]} is needed")
    more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
    return (
        f"{place} does not fit this network: {', '.join(problems[:3])}{more}; give the weights of this network, or "
        f"make it with the arguments that they were trained with"
    )
