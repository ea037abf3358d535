"""The keys that a command gives, and those that it may give, as far as they are known before anything is imported."""

import difflib
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from commands import SKIPPED, VERBS
from commands.config_files import read_config, read_yaml, with_config_paths
from commands.signatures import TRAINER, Argument, Place, arguments, class_names, method_arguments, place_of

CLASSES = ("model", "data")  # whose value is always a class
GROUPS: dict[str, Place] = {  # whose value is always keys
    "trainer": TRAINER, "sample_grid": ("callbacks.sample_grid", "SampleGrid"),
    "published": ("evaluations.results", "Published"),
}  # fmt: skip
OF_RUNS: Place = ("commands.parser", "keys_of_runs")
# Which models, networks and densities get from others.
MADE_FOR_IT = ("image_shape", "num_classes", "context_shape", "seen_shape")
PARSERS_OWN = ("config", "print_config", "seed_everything", "help")


@dataclass(frozen=True)
class Given:
    """A key and its value, as a config or the command line gives them.

    Attributes:
        source: The config; None for the command line.
        keys: From the outermost in, without class_path and init_args.
        value: As YAML has it.
    """

    source: Path | None
    keys: tuple[Any, ...]
    value: Any

    @property
    def key(self) -> str:
        return ".".join(map(str, self.keys))

    def __str__(self) -> str:
        return f"{self.key} in {self.source}" if self.source else f"--{self.key}"


def given_keys(words: Sequence[str]) -> list[Given]:
    """All keys of a command's configs and words, in this order. Raises as `find_config` and `read_config`."""
    words, paths = with_config_paths(list(words))
    found = [each for path in paths for each in keys_inside(read_config(path), path)]
    for word, after in zip(words, [*words[1:], "--"], strict=False):
        if word == "--":
            break
        if not word.startswith("--"):
            continue
        key, is_one_word, text = word[2:].partition("=")
        value = _value(text if is_one_word else "" if after.startswith("--") else after)
        found += keys_inside({key.rstrip("+"): value}, None)
    return found


def _value(text: str) -> Any:
    try:
        return read_yaml(text) if text else text
    except (yaml.YAMLError, ValueError, RecursionError):
        return text


def keys_inside(values: Mapping[Any, Any], source: Path | None, before: tuple[Any, ...] = ()) -> Iterator[Given]:
    """All keys of nested mappings. Raises ValueError where a class has no name."""
    for key, value in values.items():
        parts = key.split(".") if isinstance(key, str) else [key]
        if "dict_kwargs" in parts:  # of a constructor that takes anything
            continue
        keys = (*before, *(part for part in parts if part not in ("class_path", "init_args")))
        if key == "class_path" and not isinstance(value, str):
            raise ValueError(f"{Given(source, (*keys, key), value)} is {value}; give the name of a class")
        if not keys:
            raise ValueError(
                f"{key} stands outside of model and data in {source or 'the command'}; put it below one of them"
            )
        yield Given(source, keys, value)
        if isinstance(value, dict):
            yield from keys_inside(value, source, keys)


class KnownKeys:
    """What a verb may be given, with the classes that a command names.

    Args:
        verb: Of the command.
        given: By the command.

    Attributes:
        names: All known keys, from the outermost in: "model.density.num_filters".
        classes: Those that the command names, in order, by the key that does.
    """

    def __init__(self, verb: str, given: Iterable[Given]) -> None:
        self.verb, self.given = verb, list(given)
        self.names: dict[str, Argument] = {}
        self._complete: set[str] = set()  # keys below which all are known
        self.classes: dict[str, list[str]] = defaultdict(list)
        for each in self.given:
            if isinstance(each.value, str):
                self.classes[each.key].append(each.value)
        own = arguments((f"commands.{verb}", verb)) if verb in VERBS else method_arguments(TRAINER, verb)
        anything = Argument(None, takes_null=True)
        self._add("", {
            **dict.fromkeys(PARSERS_OWN, anything), **arguments(OF_RUNS),
            **{key: argument for key, argument in own.items() if key not in {"trainer", *SKIPPED[verb]}},
            **{key: Argument(place, takes_null=False) for key, place in GROUPS.items()},
            **dict.fromkeys(CLASSES, Argument(None, takes_null=False)),
        })  # fmt: skip

    def _add(self, key: str, its: Mapping[str, Argument]) -> None:
        self._complete.add(key)
        for name, argument in its.items():
            if name in MADE_FOR_IT:
                continue
            below = f"{key}.{name}" if key else name
            takes_null = argument.takes_null or (below in self.names and self.names[below].takes_null)
            self.names[below] = Argument(argument.default, takes_null)
            places = [place_of(name) for name in self.classes[below]] if below not in GROUPS else []
            ours = [place for place in (*places, argument.default) if place]
            if None not in places:  # one of them is what it will be
                for place in ours:
                    self._add(below, arguments(place))

    def as_given(self, key: str) -> Given | None:
        """A key as the command gives it, by the end of its path, which is what a parser knows of it."""
        return next((g for g in reversed(self.given) if f".{g.key}".endswith(f".{key}")), None)

    def check(self, given: Given) -> None:
        """Raises ValueError, with the remedy, where a key is unknown, or its value is of a kind that it cannot be."""
        self._check_network(given)
        if given.source and given.key == "model.network" and re.fullmatch(r"[^{\s][^{]*:[^{]*", str(given.value)):
            raise ValueError(
                f"{given} is {given.value}, which is the name of a network; in a config it stands as "
                f"class_path: Network, init_args: {{name: {given.value}}}"
            )
        for i, part in enumerate(given.keys):
            if ".".join(map(str, given.keys[:i])) not in self._complete:
                return  # left to the parser
            if not isinstance(part, str):
                raise ValueError(f"{given}: the key {part} is no name; a key is a word such as model")
            if ".".join(given.keys[: i + 1]) not in self.names:
                raise ValueError(self.unknown(str(given), given.key))
        argument, value = self.names[given.key], given.value
        numbers = [number for number in (value if isinstance(value, list) else [value]) if isinstance(number, int)]
        if any(abs(number) >= 2**63 for number in numbers):
            raise ValueError(f"{given} is {value}; give a number of at most 18 digits")
        if value is None and not argument.takes_null:
            raise ValueError(f"{given} is null; give a value, or leave the key out")
        is_class = given.key in CLASSES or (argument.default is not None and given.key not in GROUPS)
        if (is_class or given.key in self._complete) and not isinstance(value, dict | str | None):
            what = "a class, by its name or with class_path and init_args" if is_class else "the keys below it"
            raise ValueError(f"{given} is {value}; give {what}")
        if is_class and isinstance(value, str) and value.isidentifier() and value not in class_names():
            near = difflib.get_close_matches(value, class_names(), n=1)
            if near:
                raise ValueError(f"{given}: no class {value!r}; did you mean {near[0]!r}?")

    def _check_network(self, given: Given) -> None:
        """Raises ValueError for an argument of a network's function, which a key below model.network is not."""
        named = [each for each in self.given if each.key == "model.network" and isinstance(each.value, str)]
        if len(given.keys) != 3 or given.keys[:2] != ("model", "network") or not named:
            return
        module, _, function = named[-1].value.rpartition(".")
        if module and function.islower() and self.given.index(given) > self.given.index(named[-1]):  # and no class
            name = "timm:NAME" if module == "timm" else f"{module}:{function}"
            arguments = f"--model.network.arguments '{{{given.keys[2]}: VALUE, ...}}'"
            raise ValueError(
                f"no key {given}: {function} is a function, and class_path names a class; give --model.network {name} "
                f"{arguments}"
            )

    def unknown(self, given: str, key: str) -> str:
        """The sentence for a key that is none, with the nearest that is."""
        parent, _, last = key.rpartition(".")
        if parent not in self._complete and self.classes[parent]:
            name = self.classes[parent][-1]
            return f"no key {given} of {name}; --{parent}.help {name} lists those that there are"
        by_last: dict[str, list[str]] = defaultdict(list)
        for name in self.names:
            by_last[name.split(".")[-1]].append(name)
        near = difflib.get_close_matches(last, by_last, n=1)
        if key in self.names or not near:
            return f"no key {given} for {self.verb}; python cli.py {self.verb} --help lists those that there are"
        names = difflib.get_close_matches(key, by_last[near[0]], n=2, cutoff=0)
        dashes = "--" if given.startswith("--") else ""
        return f"no key {given}; did you mean {' or '.join(f'{dashes}{name}' for name in names)}?"
