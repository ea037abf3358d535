"""One layer of any network: what a module gives, by the module's name."""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

ALL_LAYERS = "python cli.py layers, with the same --config and --model arguments, lists all"
_PICK = r"""\[(?:(-?\d+)|"([^"\]]*)"|'([^'\]]*)'|([^\]"']+))\]"""  # a shell takes quotes away


class _Reached(BaseException):  # no Exception, which a network's own code might catch
    """The layer has given its output."""

    def __init__(self, output: Any) -> None:
        self.output = output


@dataclass(frozen=True)
class Layer:
    """A module by its dotted path of `named_modules()`, and which of its outputs, if it gives several.

    Attributes:
        name: As it is written: layer2.1, blocks.5[0], encoder["last_hidden_state"].
        path: Of the module.
        picks: One after the other, from what it gives.
    """

    name: str
    path: str
    picks: tuple[int | str, ...]

    @classmethod
    def of(cls, name: str, network: nn.Module) -> "Layer":
        """The layer of a name. Raises ValueError, with the nearest names, where the network has no such module."""
        # A name of a module may itself hold brackets.
        known = [path for path, _ in network.named_modules(remove_duplicate=False) if path]
        if name in known:
            return cls(name, name, ())
        written = re.fullmatch(rf"(.*?)((?:{_PICK})*)", name)
        assert written is not None
        path, picks = written[1], []
        for number, *texts in re.findall(_PICK, written[2]):
            picks.append(int(number) if number else next(text for text in texts if text))
        if path not in known:
            near = difflib.get_close_matches(path, known, n=3) or [k for k in known if k.endswith(f".{path}")][:3]
            few = [k for k in known if "." not in k]
            hint = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(few[:12])}, ..."
            if len(known) <= 12 and not near:
                hint = f"it has {', '.join(known)}"
            raise ValueError(f"no layer {name!r} in this {type(network).__name__}; {hint} ({ALL_LAYERS})")
        return cls(name, path, tuple(picks))

    def output(self, network: nn.Module, x: Tensor) -> Any:
        """What the module gives for x, [B, ...] or more than one tensor; nothing behind it is run.

        That nothing is run also keeps it as it is: an in-place activation that follows cannot change it.
        """

        def stop(module: nn.Module, inputs: Any, output: Any) -> None:
            raise _Reached(output)

        handle = network.get_submodule(self.path).register_forward_hook(stop)
        try:
            network(x)
        except _Reached as reached:
            return reached.output
        finally:
            handle.remove()
        raise ValueError(f"layer {self.path} is not run when the network sees an image; {ALL_LAYERS}")

    def chosen(self, output: Any) -> Tensor:
        """The tensor of floats that is meant, [B, ...]. Raises ValueError where that is not clear."""
        for i, pick in enumerate(self.picks):
            try:
                output = output[pick] if _holds(output, pick) else None
            except LookupError:
                output = None
            if output is None:
                picked = "".join(f"[{p!r}]" for p in self.picks[: i + 1])
                raise ValueError(f"layer {self.path} gives no {picked}; leave it out, or see: {ALL_LAYERS}")
        found = list(tensors_in(output))
        if len(found) > 1:
            which = ", ".join(f"{self.name}{way} ({size(tensor)})" for way, tensor in found[:6])
            raise ValueError(f"layer {self.name} gives {len(found)} tensors; choose one of {which}")
        if not found:
            raise ValueError(f"layer {self.name} gives no tensor but a {type(output).__name__}; {ALL_LAYERS}")
        ((_, tensor),) = found
        if not tensor.is_floating_point():
            raise ValueError(f"layer {self.name} gives {tensor.dtype}, not floats; give another one")
        return tensor


def _holds(output: Any, pick: int | str) -> bool:
    return isinstance(output, Mapping if isinstance(pick, str) else tuple | list)


def tensors_in(output: Any) -> Iterator[tuple[str, Tensor]]:
    """All tensors of an output, and how each is picked: [0]["key"]."""
    if isinstance(output, Tensor):
        yield "", output
    elif isinstance(output, Mapping | tuple | list):
        items = output.items() if isinstance(output, Mapping) else enumerate(output)
        for key, inner in items:
            written = f'["{key}"]' if isinstance(key, str) else f"[{key}]"
            yield from ((written + way, tensor) for way, tensor in tensors_in(inner))


def size(tensor: Tensor) -> str:
    """Of one image's part: 64x14x14."""
    return "x".join(map(str, tensor.shape[1:])) or "a number"


@contextmanager
def recorded_calls(network: nn.Module) -> Iterator[list[tuple[str, Any]]]:
    """A block that fills a list with (name, output) of every module, in the order in which they end.

    A module of several names has the first. Outputs are as they are at the end of the pass.
    """
    calls: list[tuple[str, Any]] = []
    handles = [
        module.register_forward_hook(lambda module, inputs, output, name=name: calls.append((name, output)))
        for name, module in network.named_modules()
        if name
    ]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def depth(path: str, ended: Sequence[str]) -> float:
    """How deep a module lies: the children of the network that have ended, with the share of the one that it is in.

    Args:
        path: Of the module.
        ended: The names of all modules of one pass, in the order in which they ended.
    """
    child, place = path.split(".")[0], ended.index(path)
    before = {name for name in ended[:place] if "." not in name and name != child}
    inside = [i for i, name in enumerate(ended) if name.split(".")[0] == child]
    return len(before) + (inside.index(place) + 1) / len(inside)
