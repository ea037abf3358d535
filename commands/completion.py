"""What makes a shell complete verbs, keys and names on the Tab key."""

import argparse
from collections.abc import Sequence

from commands import SKIPPED, WITHOUT_CONFIG
from commands.config_files import config_names, preset_names
from commands.known_keys import Given, KnownKeys
from commands.signatures import class_names

MODELS = ("Inverter", "Classifier")
SHELLS = ("bash", "zsh", "tcsh")


def completion(words: Sequence[str]) -> None:
    """Print a script that completes verbs, keys and names on Tab, for the command inverters: completion bash (or zsh).

    Raises:
        ValueError: There is no such shell, or the package shtab is missing.
    """
    if len(words) != 1 or words[0] not in SHELLS:
        raise ValueError(f"completion is for one of {', '.join(SHELLS)}; give its name")
    try:
        import shtab
    except ImportError as error:
        raise ValueError("completion needs the package shtab; install it with: pip install shtab") from error
    print(shtab.complete(command_parser(), shell=words[0]))


def command_parser() -> argparse.ArgumentParser:
    """All verbs and keys, and what they may be given."""
    parser = argparse.ArgumentParser("inverters")
    verbs = parser.add_subparsers()
    data = [name for name in class_names() if name.endswith("DataModule")]
    given = [Given(None, ("model",), name) for name in MODELS] + [Given(None, ("data",), name) for name in data]
    for verb in WITHOUT_CONFIG:
        verbs.add_parser(verb, help=verb)  # without it shtab takes it for a secret
    for verb in SKIPPED:
        keys = verbs.add_parser(verb, help=verb)
        choices = {"config": [*config_names(), *preset_names()], "model": MODELS, "data": data}
        for name in KnownKeys(verb, given).names:
            if name != "help":
                keys.add_argument(f"--{name}", choices=choices.get(name))
    return parser
