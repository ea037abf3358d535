"""What went wrong, in one sentence for the user."""

import difflib
import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.exceptions import MisconfigurationException


def check_first_words(arguments: Sequence[str], verbs: Sequence[str]) -> None:
    """Raises ValueError, with the remedy, where a command does not begin with a verb and name a config."""
    if not arguments or arguments[0] in ("-h", "--help"):
        return
    verb, *rest = arguments
    if verb not in verbs:
        near = difflib.get_close_matches(verb, verbs, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"the first word is one of {', '.join(verbs)}"
        raise ValueError(f"no verb {verb!r}; {hint}")
    if not any(word.startswith("-") for word in rest):
        name = next(iter(rest), "NAME.yaml")
        raise ValueError(f"{verb} needs a config: python cli.py {verb} --config {name}; there are many in configs/")


def of_parser(message: str, keys: Sequence[str], classes: Sequence[str]) -> str:
    """The point of a parser's message, which can run to dozens of lines; for a misspelt name with the nearest one.

    Args:
        message: Of jsonargparse.
        keys: All that may be given.
        classes: All that may be named.
    """
    unknown = re.search(r"Option '(.+?)' is not accepted|Key '(.+?)' is not expected|arguments: --([\w.]+)", message)
    if unknown:
        key = next(group for group in unknown.groups() if group)
        last = key.split(".")[-1]
        near = difflib.get_close_matches(last, keys, n=1)
        if near == [last]:
            return f"no key {key!r} for this verb and these classes; see --help for the keys"
        return f"no key {key!r}" + (f"; did you mean {near[0]!r}?" if near else "; see --help for the keys")
    class_name = re.search(r"Expected a dot import path string: (\S+)", message)
    if class_name:
        near = difflib.get_close_matches(class_name[1], classes, n=1)
        return f"no class {class_name[1]!r}" + (f"; did you mean {near[0]!r}?" if near else "")
    bound = re.search(r"(\S+)?:? does not conform to restriction v(>=?)(\d+)", message)
    if bound:
        key = re.findall(r'Parser key "([^"]+)"', message[: bound.start()])[-1]
        given = bound[1] if bound[1] and bound[1][-1] != ":" else re.findall(r"Given value: (\S+)", message)[0]
        return f"{key} is {given}; give at least {int(bound[3]) + (bound[2] == '>')}"
    value = re.search(r'Parser key "([^"]+)":\s*(Expected a [^\n]+)', message)
    if value:
        return f"{value[1]}: {value[2]}"
    text = " ".join(message.split())
    named = re.search(r'Parser key "([^"]+)".*?Import path (\S+) does not correspond to a subclass of (\w+)', text)
    if named:
        return f"{named[1]} is {named[2]}, which is no {named[3]}"
    number = re.search(r'Parser key "([^"]+)": Not of type (?:Positive|NonNegative)?Int: (.*)', text)
    if number:
        given = re.sub(r"invalid literal for int\(\) with base 10: | not an integer.*", "", number[2])
        return f"{number[1]} is {given}; give a whole number"
    made = re.search(r'Parser key "([^"]+)".*? expects a function or a callable class: (.+?)\.* Got value', text)
    if made:
        return f"{made[1]}: {made[2]}"
    return text


def of_a_peer(error: BaseException) -> bool:
    """Whether it says no more than that another process is no longer there."""
    return "closed by peer" in str(error) or "Connection reset" in str(error)


def of_error(error: BaseException) -> str:
    """What an error says, on one line."""
    # jsonargparse wraps one of ours in its own when a constructor refuses its arguments.
    while "Does not validate against" in str(error) and (inner := error.__cause__ or error.__context__):
        error = inner
    text = " ".join(str(error).split())
    memory = re.search(r"you tried to allocate (\d+) bytes", text)
    if memory:
        return f"there is no room for {int(memory[1]):,} bytes of memory; lower the numbers that decide a model's size"
    if isinstance(error, OSError | ValueError | FloatingPointError | MisconfigurationException):
        return text
    if of_a_peer(error):
        return f"another process of this run has ended, and says why above; {text}"
    return f"{type(error).__name__}: {text}; this should not happen, so please report it"


def print_error(error: Exception) -> None:
    """Print the sentence of an error that is being handled, and keep its traceback in runs/last_error.txt."""
    log = Path("runs") / "last_error.txt"
    try:
        log.parent.mkdir(exist_ok=True)
        log.write_text(traceback.format_exc())
        where = f" (traceback in {log})"
    except OSError:  # such as a full disk, which may be the error
        where = ""
    rank = int(getattr(rank_zero_only, "rank", 0))
    print(f"error: {f'process {rank}: ' if rank else ''}{of_error(error)}{where}", file=sys.stderr)
