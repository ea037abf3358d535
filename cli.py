"""The command line: python cli.py {fit,test,sample,distances,...} --config NAME.yaml ..."""

import os
import signal
import sys
from pathlib import Path

from runtime.starter import STARTER, end_with

# Ctrl-C while the libraries are imported, which takes seconds. A job in the background may have been told to ignore it.
if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
    signal.signal(signal.SIGINT, lambda *_: sys.exit(130))
if STARTER in os.environ:  # one of several processes of a run
    end_with(int(os.environ[STARTER]))

from pytorch_lightning.utilities.exceptions import SIGTERMException

from commands import sentences
from commands.command import Command
from commands.parser import SKIPPED
from commands.report import report
from runtime.silence import silence_lightning
from runtime.wandb_run import finish_wandb


def main(args: list[str] | None = None) -> None:
    """Run one command; an error that a user can mend ends it with one sentence and exit status 1."""
    silence_lightning()
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    words = sys.argv[1:] if args is None else args
    command = None
    try:
        if words[:1] == ["report"]:
            report(words[1:])
        else:
            sentences.check_first_words(words, [*SKIPPED, "report"])
            command = Command(args)
            command.run()
    except SIGTERMException:  # between two of Lightning's verbs
        sys.exit(128 + signal.SIGTERM)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        sentences.print_error(error, command.root if command else Path("runs"))
        sys.exit(1)
    finally:
        finish_wandb()


if __name__ == "__main__":
    main()
