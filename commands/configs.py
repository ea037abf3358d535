"""Which configs there are, on what data, at what cost, and what comes out."""

from collections.abc import Sequence
from pathlib import Path

from commands.config_files import CONFIGS, config_names, read_config


def configs(words: Sequence[str]) -> None:
    """List the configs, with data, cost and the number expected: configs [WORD ...], those that have all words.

    Raises:
        ValueError: There is none.
    """
    found = [text for text in map(description, config_names()) if all(word.lower() in text.lower() for word in words)]
    if not found:
        raise ValueError(f"no config has {' and '.join(words)} in its name, data, cost or number; give fewer words")
    print("\n\n".join(found))


def description(name: str) -> str:
    """A config's name, and what its header says: lines for people."""
    path = CONFIGS / f"{name}.yaml"
    data = read_config(path).get("data")
    about = {"data": data.get("class_path") if isinstance(data, dict) else data, **header(path)}
    return "\n".join([name, *(f"  {key:9} {value}" for key, value in about.items() if key != "command")])


def header(path: Path) -> dict[str, str]:
    """What the comments at the top of a config say, by their first word."""
    lines = path.read_text(encoding="utf-8").splitlines()
    pairs = (line[2:].split(": ", 1) for line in lines if line.startswith("# ") and ": " in line)
    return {key.lower(): value for key, value in pairs}
