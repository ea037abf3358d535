"""The command line: python cli.py {fit,test,sample,distances,...} --config NAME ..."""

import io
import os
import signal
import sys
from pathlib import Path

from runtime.starter import STARTER, end_with

# Ctrl-C while libraries are imported, which may not stand an exception. A background job may be told to ignore it.
if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
if STARTER in os.environ:  # one of several processes of a run
    end_with(int(os.environ.pop(STARTER)))

from commands import WITHOUT_CONFIG, function_of
from commands.first_look import first_look, overview


def main(args: list[str] | None = None) -> None:
    """Run one command; an error that a user can mend ends it with one sentence and exit status 1."""
    words = sys.argv[1:] if args is None else args
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # the name of a file need not be text
    try:
        if not _answered(words):
            _run(words)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        from commands import sentences

        sentences.print_error(error)
        sys.exit(1)


def _answered(words: list[str]) -> bool:
    """Whether a command came to its end, or was refused, without torch and Lightning."""
    try:
        if words[:1] in (["-h"], ["--help"]):
            print(overview())
            return True
        first_look(words)
        if words[0] not in WITHOUT_CONFIG:
            return False
        verb = function_of(words[0])
        _imported()
        verb(words[1:])
        return True
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


def _imported() -> None:
    """From now on Ctrl-C is an exception."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _run(words: list[str]) -> None:
    from pytorch_lightning.utilities.exceptions import SIGTERMException

    from commands import sentences
    from commands.command import Command
    from runtime.silence import silence_lightning
    from runtime.wandb_run import finish_wandb

    _imported()
    silence_lightning()
    command = None
    if "" not in sys.path:
        sys.path.append("")  # a class of one's own may lie in the working folder
    try:
        command = Command(words)
        command.run()
    except SIGTERMException:  # between two of Lightning's verbs
        sys.exit(128 + signal.SIGTERM)
    except BrokenPipeError:  # the reader of what is printed has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except Exception as error:
        sentences.print_error(error, command.root if command else Path("runs"))
        sys.exit(1)
    finally:
        finish_wandb()


if __name__ == "__main__":
    main()
