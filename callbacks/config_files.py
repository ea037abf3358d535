"""Config files on the command line: where they lie, and whether they can be read."""

import difflib
from pathlib import Path

import yaml

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


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
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise ValueError(f"the config {path} cannot be read{where}: {getattr(error, 'problem', error)}") from error
    if not isinstance(root, yaml.MappingNode):
        raise ValueError(f"the config {path} holds no keys; see {CONFIGS} for examples")
    _refuse_doubles(root, path)
    return path


def _refuse_doubles(root: yaml.Node, path: Path) -> None:
    """YAML would take the last of several values of one key."""
    to_do, seen = [root], set()  # a node can be in several places, even in itself
    while to_do:
        node = to_do.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            to_do += node.value
        elif isinstance(node, yaml.MappingNode):
            keys = set()
            for key, inner in node.value:
                if isinstance(key, yaml.ScalarNode) and key.value in keys:
                    line = key.start_mark.line + 1
                    raise ValueError(
                        f"the config {path} has {key.value} a second time in line {line}; keep one of both"
                    )
                keys.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
                to_do.append(inner)


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
