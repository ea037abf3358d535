"""Config files on the command line: where they lie, and whether they can be read."""

import difflib
import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
# Far more than a config needs, and read in a moment.
MOST_BYTES, MOST_VALUES, DEEPEST = 100_000, 10_000, 50


class _Loader(yaml.SafeLoader):
    """YAML's own would take the last of several values of one key, and copy what aliases name without an end."""

    def get_single_node(self) -> yaml.Node | None:
        node: yaml.Node | None = super().get_single_node()
        self._count(node, 0, 0)
        return node

    def _count(self, node: yaml.Node | None, depth: int, before: int) -> int:
        """How many values there are up to the end of a node, with all that its aliases name."""
        problem = None
        if depth > DEEPEST:
            problem = f"more than {DEEPEST} values inside of each other, or an alias that contains itself; write fewer"
        if before > MOST_VALUES:
            problem = f"more than {MOST_VALUES} values, with those that aliases name; write fewer"
        if problem:
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark if node else None)
        before += 1
        inner: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            inner = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            inner = node.value
        for part in inner:
            before = self._count(part, depth + 1, before)
        return before

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                problem = f"{key.value} stands there a second time; keep one of both"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
        return super().construct_mapping(node, deep)


def read_yaml(text: str) -> Any:
    """What a text says in YAML.

    Raises:
        yaml.YAMLError, ValueError, RecursionError: It is none, gives a key twice, or has too many values.
    """
    return yaml.load(text, _Loader)


def config_names() -> list[str]:
    """Of all configs in configs/."""
    return sorted(path.stem for path in CONFIGS.glob("*.yaml"))


def preset_names() -> list[str]:
    """Of all presets: keys that any experiment can be given in addition."""
    return sorted(f"presets/{path.stem}" for path in CONFIGS.glob("presets/*.yaml"))


def smaller_config(name: str) -> str | None:
    """The same experiment for a CPU, NAME_small, where there is one."""
    return f"{name}_small" if (CONFIGS / f"{name}_small.yaml").is_file() else None


def is_preset(path: Path) -> bool:
    """Whether a config is no experiment, and so names no run."""
    return path.parent.name == "presets"


def find_config(name: str) -> Path:
    """A config by its path, or by its name in configs/, with or without its ending.

    Raises:
        FileNotFoundError: There is no such file; the message has the nearest name.
    """
    names = (name, f"{name}.yaml")
    path = next((path for name in names for path in (Path(name), CONFIGS / name) if path.is_file()), None)
    if path is None:
        if Path(name).is_dir():
            raise FileNotFoundError(f"the config {name} is a folder; give a file in it")
        named = {Path(known).stem: known for known in (*preset_names(), *config_names())}
        near = difflib.get_close_matches(Path(name).stem, named, n=1)
        hint = f"; did you mean {named[near[0]]}.yaml?" if near else "; python cli.py configs lists them"
        raise FileNotFoundError(f"no config {name} here or in {CONFIGS}{hint}")
    return path


def read_config(path: Path) -> dict[str, Any]:
    """The keys of a config and their values.

    Raises:
        ValueError: It is no YAML file of keys, gives a key twice, or is endless.
    """
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"the config {path} has {path.stat().st_size} bytes; give one of at most {MOST_BYTES}")
    try:
        keys = read_yaml(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError(f"the config {path} has more than {DEEPEST} values inside of each other") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: not UTF-8, or no date
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or error
        remedy = "; indent with spaces" if "'\\t'" in str(problem) else ""
        raise ValueError(f"the config {path} cannot be read{where}: {problem}{remedy}") from error
    if not isinstance(keys, dict):
        raise ValueError(f"the config {path} holds no keys; see {CONFIGS} for examples")
    return keys


def with_config_paths(arguments: list[str]) -> tuple[list[str], list[Path]]:
    """Arguments with the path of every config, and these paths; presets come first, as later values replace earlier.

    A network that is given by its name becomes the class that makes it.

    So a preset gives what the experiment leaves open: one that says how often it validates, or when it stops, goes on
    to do so.

    Raises:
        OSError: As `find_config`.
        ValueError: All of them are presets.
    """
    joined = ("--config=", "--model.network=")
    arguments = [part for a in arguments for part in (a.split("=", 1) if a.startswith(joined) else [a])]
    kept: list[str] = []
    paths: list[Path] = []
    presets: list[Path] = []
    words = iter(arguments)
    for word in words:
        if word == "--model.network":
            kept += [word, *_network_words(next(words, None))]
            continue
        name = next(words, None) if word in ("--config", "-c") else None
        path = None if name is None else find_config(name)
        if path is None:
            kept.append(word)
        elif is_preset(path):
            presets.append(path)
        else:
            kept += ["--config", str(path)]
            paths.append(path)
    if presets and not paths:
        raise ValueError(f"{presets[0]} is a preset, which names no run; give it after an experiment's: --config NAME")
    first = kept.index("--config") if paths else 0
    kept[first:first] = [word for path in presets for word in ("--config", str(path))]
    return kept, [*presets, *paths]


def _network_words(value: str | None) -> list[str]:
    """What follows --model.network: torchvision:resnet18 is the class Network with that name."""
    if value is None:
        return []
    return ["Network", "--model.network.name", value] if re.fullmatch(r"[^{\s][^{]*:[^{]*", value) else [value]
