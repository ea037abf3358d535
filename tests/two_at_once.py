"""Runs commands one after the other, each at the same moment as the other process of a pair does its own.

python tests/two_at_once.py NUMBER_OF_THIS_PROCESS COMMANDS_AS_JSON
"""

import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from cli import main


def meet(step: int, mine: int) -> None:
    """Until both processes have come to a step."""
    Path(f"at_{step}_{mine}").touch()
    while not Path(f"at_{step}_{1 - mine}").exists():
        time.sleep(0.001)


if __name__ == "__main__":
    this = int(sys.argv[1])
    for number, words in enumerate(json.loads(sys.argv[2])):
        meet(number, this)
        try:
            main(words)
        except SystemExit as ended:
            print(f"status {ended.code} of {words[0]}", file=sys.stderr)
