"""Any network by its name: of torchvision, of timm, of a package or of a file."""

import difflib
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from inspect import signature
from types import ModuleType
from typing import Any

from torch import nn

from inverters.generators import ImageShape

HUBS = {"torchvision": "weights", "timm": "pretrained"}  # and the argument by which each fetches weights
NUM_CLASSES = "$num_classes"
BACKBONE = "weights_backbone"  # by which torchvision fetches those of a part


@dataclass(frozen=True)
class Named:
    """A network by its name, with the arguments of whoever makes it; as for `Network`."""

    name: str
    arguments: Mapping[str, Any]

    def __post_init__(self) -> None:
        place, what = self._parts
        if not (place and what):
            raise ValueError(
                f"network {self.name!r} has no place before a colon; give torchvision:{self.name}, timm:{self.name}, "
                f"package:function or path/to/file.py:function"
            )
        if "None" in self.arguments.values():
            raise ValueError(f"the arguments of {self.name} hold None, as a command line makes of null; use a config")
        fetching = (HUBS[place], BACKBONE) if place in HUBS else ()
        asked = next((key for key in fetching if self.arguments.get(key)), None)
        if asked:
            raise ValueError(
                f"the network's arguments have {asked} {self.arguments[asked]!r}; give --model.weights pretrained in "
                f"its place, which fetches them once"
            )

    @property
    def of_hub(self) -> bool:
        """Whether it is of torchvision: or timm:."""
        return self._parts[0] in HUBS

    @property
    def _parts(self) -> tuple[str, str]:
        """The place, and what is there; a name of timm may itself hold a colon, and so may a path."""
        hub, _, name = self.name.partition(":")
        place, _, what = self.name.rpartition(":")
        return (hub, name) if hub in HUBS else (place, what)

    def network(self, num_classes: int) -> nn.Module:
        """Raises ValueError where it cannot be made."""
        return self._made(num_classes, {})

    def pretrained(self, num_classes: int) -> nn.Module:
        """The network with weights of torchvision's or timm's hub.

        Raises:
            OSError: They cannot be fetched.
            ValueError: It is of neither.
        """
        place, _ = self._parts
        if place not in HUBS:
            raise ValueError(
                f"weights is pretrained, which torchvision: and timm: have, and the network is {self.name}; give a "
                f"file, or own where it loads them itself"
            )
        try:
            return self._made(num_classes, {HUBS[place]: "DEFAULT" if place == "torchvision" else True})
        except (OSError, RuntimeError) as error:
            raise OSError(
                f"the weights of {self.name} cannot be fetched ({type(error).__name__}: {error}); give a file as "
                f"--model.weights, or see that this machine has the internet"
            ) from error

    def _made(self, num_classes: int, more: dict[str, Any]) -> nn.Module:
        place, what = self._parts
        arguments = _with_number(dict(self.arguments), num_classes)
        if place in HUBS:
            module = _imported(place)
            library = module.models if place == "torchvision" else module
            # A name of timm may go on with that of its weights, or be that of a hub's.
            if what.split(".")[0] not in (names := library.list_models()) and "/" not in what:
                raise ValueError(f"{place} has no network {what!r}{_nearest(what, names)}")
            make = library.get_model if place == "torchvision" else library.create_model
            if place == "torchvision" and BACKBONE in signature(library.get_model_builder(what)).parameters:
                arguments = {BACKBONE: None, **arguments}  # by default it is fetched
            made = _called(self.name, make, what, **arguments, **more)
        else:
            module = _of_file(place) if place.endswith(".py") else _imported(place)
            made = _called(self.name, _inside(module, what, self.name), **arguments)
        if not isinstance(made, nn.Module):
            raise ValueError(f"{self.name} gives a {type(made).__name__}; give what makes an nn.Module")
        return made


class Network(nn.Module):
    """Any network by its name, which need know nothing of this application.

    Calling this class gives that network itself, with how it was `named` as an attribute: a config names a class.

    Args:
        image_shape: (C, H, W) of what it sees; it is told what `arguments` have.
        num_classes: K.
        name: torchvision:resnet18, timm:vit_tiny_patch16_224, my_package.nets:make_net or path/to/nets.py:make_net.
            A package or a file is imported, which runs its code.
        arguments: For whoever makes it, by name. The text $num_classes stands for K.

    Raises:
        ValueError: There is no such network, or arguments ask for weights of a hub.
    """

    def __new__(  # type: ignore[misc] # another class than this one, so that __init__ is not called
        cls,
        image_shape: ImageShape,
        num_classes: int,
        name: str,
        arguments: dict[str, Any] = {},  # noqa: B006 - never changed
    ) -> nn.Module:
        named = Named(name, arguments)
        network = named.network(num_classes)
        network.named = named  # type: ignore[assignment] # no module, nor tensor
        return network

    def __init__(
        self,
        image_shape: ImageShape,
        num_classes: int,
        name: str,
        arguments: dict[str, Any] = {},  # noqa: B006 - never changed
    ) -> None:
        """Where a parser reads the arguments."""


def named(network: nn.Module) -> Named | None:
    """How a network was named; None where it was made otherwise."""
    found = getattr(network, "named", None)
    return found if isinstance(found, Named) else None


def _with_number(value: Any, num_classes: int) -> Any:
    """Arguments with K in place of its text."""
    if isinstance(value, dict):
        return {key: _with_number(inner, num_classes) for key, inner in value.items()}
    if isinstance(value, list):
        return [_with_number(inner, num_classes) for inner in value]
    return num_classes if isinstance(value, str) and value == NUM_CLASSES else value


def _called(name: str, make: Callable[..., Any], *positional: Any, **arguments: Any) -> Any:
    if isinstance(make, nn.Module) or not callable(make):
        return make
    try:
        return make(*positional, **arguments)
    except (TypeError, ValueError, AssertionError, KeyError, AttributeError, OSError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        given = ", ".join(f"{key}={value!r}" for key, value in arguments.items()) or "no arguments"
        raise ValueError(
            f"the network {name} cannot be made with {given} ({reason}); its arguments are given as "
            f"--model.network.arguments '{{name: value, ...}}'"
        ) from error


def _imported(package: str) -> ModuleType:
    try:
        return import_module(package)
    except Exception as error:  # a module may be the user's own
        if isinstance(error, ModuleNotFoundError) and f"{package}.".startswith(f"{error.name}."):
            remedy = "pip install timm" if package == "timm" else "install it, or give path/to/file.py:function"
            raise ValueError(f"no module {error.name} in this folder, on PYTHONPATH or installed; {remedy}") from error
        raise ValueError(f"the module {package} cannot be imported: {_where(error)}") from error


def _of_file(path: str) -> ModuleType:
    """The module of a file, which may import what lies beside it."""
    real = os.path.realpath(os.path.expanduser(path))
    if not os.path.isfile(real):
        raise ValueError(f"there is no file {path} to take a network from")
    folder, name = os.path.dirname(real), f"_network_of_{os.path.basename(real)[:-3]}"
    loaded = sys.modules.get(name)
    if loaded is not None and loaded.__file__ == real:
        return loaded
    spec = spec_from_file_location(name, real)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look for themselves
    if folder not in sys.path:
        sys.path.append(folder)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ValueError(f"the file {path} cannot be imported: {_where(error)}") from error
    return module


def _where(error: Exception) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    line = error.lineno if isinstance(error, SyntaxError) else last.lineno
    file = error.filename if isinstance(error, SyntaxError) else last.filename
    return f"{type(error).__name__} ({' '.join(str(error).split())}) in line {line} of {file}"


def _inside(module: ModuleType, dotted: str, name: str) -> Any:
    found: Any = module
    for part in dotted.split("."):
        if not hasattr(found, part):
            names = [each for each in dir(found) if not each.startswith("_")]
            raise ValueError(f"the network {name}: there is no {part}{_nearest(part, names)}")
        found = getattr(found, part)
    return found


def _nearest(name: str, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(names), n=3)
    return f"; did you mean {' or '.join(near)}?" if near else ""
