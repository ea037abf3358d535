"""A first look at a command, before anything heavy is imported: its verb, its configs, keys and files.

What it cannot know, as the keys of a class that is not ours, it leaves to the parser.
"""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from commands import SKIPPED, WITHOUT_CONFIG
from commands.config_files import find_config
from commands.known_keys import KnownKeys, given_keys
from commands.signatures import TRAINER, definition, summary

LIGHTNINGS = {
    "fit": "Train; a classifier that is missing comes first, and the best checkpoint is tested at the end.",
    "validate": "Measure a checkpoint on the validation images.",
    "test": "Measure a checkpoint on the test images; by default the best one of the newest run.",
    "predict": "Class probabilities of the test images; of an inverter one draw for each.",
}
OVERVIEW = """usage: python cli.py VERB --config NAME [--KEY VALUE ...]

{verbs}

A config is found in this folder or among the shipped ones. python cli.py VERB --help has the keys of a verb.\
"""


def first_look(words: Sequence[str]) -> None:
    """Look at a command's words.

    Raises:
        OSError, ValueError: It cannot be done; the message has the remedy.
    """
    check_first_words(words, [*SKIPPED, *WITHOUT_CONFIG])
    verb, *rest = words
    if verb in WITHOUT_CONFIG or any(word in ("-h", "--help") or word.split("=")[0].endswith(".help") for word in rest):
        return
    if definition(TRAINER) is None:
        return  # Lightning is not there, or another one: its import will say so
    given = given_keys(rest)
    known = KnownKeys(verb, given)
    for each in given:
        known.check(each)
    if not any(word.startswith("--print_config") for word in rest):
        is_inverter = set(known.classes["model"]) == {"Inverter"}
        _check_files(verb, is_inverter, {each.key: each.value for each in given})


def check_first_words(words: Sequence[str], verbs: Sequence[str]) -> None:
    """Raises ValueError, with the remedy, where a command does not begin with a verb and name a config."""
    if not words:
        raise ValueError("no verb; python cli.py --help lists them")
    verb, *rest = words
    if verb not in verbs:
        near = difflib.get_close_matches(verb, verbs, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"the first word is one of {', '.join(verbs)}"
        raise ValueError(f"no verb {verb!r}; {hint}")
    if verb not in WITHOUT_CONFIG and not any(word.startswith("-") for word in rest):
        name = next(iter(rest), "NAME")
        raise ValueError(f"{verb} needs a config: python cli.py {verb} --config {name}; for all: python cli.py configs")


def _check_files(verb: str, is_inverter: bool, values: Mapping[str, Any]) -> None:
    """Raises FileNotFoundError for a checkpoint, a classifier or a picture that is not there."""
    checkpoint, classifier = values.get("ckpt_path"), values.get("classifier")
    if isinstance(checkpoint, str) and checkpoint not in ("", "best", "last", "auto"):
        check_is_there(checkpoint, "checkpoint", "or best or last for that of the newest run")
    if verb == "fit" and is_inverter and not checkpoint and isinstance(classifier, str):
        root = values.get("trainer.default_root_dir") or "runs"
        if classifier.endswith(".ckpt"):
            check_is_there(classifier, "checkpoint", "or the name of a classifier's config")
        elif classifier.endswith((".pth", ".pt", ".bin", ".safetensors")):
            raise ValueError(
                f"--classifier {classifier} is a file of weights, and takes a classifier's config or checkpoint; give "
                f"--model.weights {classifier} --classifier null"
            )
        elif classifier and not Path(str(root), Path(classifier).stem).expanduser().exists():
            find_config(f"{Path(classifier).stem}.yaml")
    for key in ("images", "contexts") if verb in ("score", "compress") else ():
        pictures = values.get(key)
        for path in pictures if isinstance(pictures, list) else [pictures] if isinstance(pictures, str) else ():
            if not Path(str(path)).is_dir():
                check_is_there(str(path), "picture", f"several as --{key} '[a.png, b.png]', a folder or a .zip")
    for key, kind in (("input", "compressed images"), ("h", "h")) if verb == "decompress" else ():
        if isinstance(path := values.get(key), str):
            check_is_there(path, kind, "which compress writes")


def check_is_there(path: str, kind: str, otherwise: str) -> None:
    """Raises FileNotFoundError where a path is no file."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"no {kind} at {path}; give a file, {otherwise}")


def about(verb: str) -> str:
    """A line on a verb."""
    return LIGHTNINGS.get(verb) or summary((f"commands.{verb}", verb))


def overview() -> str:
    """All verbs, a line each."""
    return OVERVIEW.format(verbs="\n".join(f"  {verb:11} {about(verb)}" for verb in (*SKIPPED, *WITHOUT_CONFIG)))
