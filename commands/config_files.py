"""Config files on the command line: where they lie, and whether they can be read."""

import difflib
from pathlib import Path
from typing import Any

import yaml

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


class _Loader(yaml.SafeLoader):
    """YAML's own would take the last of several values of one key."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                problem = f"{key.value} stands there a second time; keep one of both"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
        return super().construct_mapping(node, deep)


def find_config(name: str) -> Path:
    """A config by its path, or by its name in configs/.

    Raises:
        FileNotFoundError: There is no such file; the message has the nearest name.
        ValueError: It is no YAML file of keys, or gives a key twice.
    """
    path = next((path for path in (Path(name), CONFIGS / name) if path.is_file()), None)
    if path is None:
        if Path(name).is_dir():
            raise FileNotFoundError(f"the config {name} is a folder; give a file in it")
        near = difflib.get_close_matches(Path(name).stem, [path.stem for path in CONFIGS.glob("*.yaml")], n=1)
        hint = f"; did you mean {near[0]}.yaml?" if near else ""
        raise FileNotFoundError(f"no config {name} here or in {CONFIGS}{hint}")
    try:
        keys = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: not UTF-8, or no date
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise ValueError(f"the config {path} cannot be read{where}: {getattr(error, 'problem', error)}") from error
    if not isinstance(keys, dict):
        raise ValueError(f"the config {path} holds no keys; see {CONFIGS} for examples")
    return path


def with_config_paths(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Arguments with the path of every config, and the configs' names. Raises as `find_config`."""
    arguments = [part for a in arguments for part in (a.split("=", 1) if a.startswith("--config=") else [a])]
    names = []
    for i, argument in enumerate(arguments[:-1]):
        if argument in ("--config", "-c"):
            path = find_config(arguments[i + 1])
            arguments[i + 1] = str(path)
            names.append(path.stem)
    return arguments, names
