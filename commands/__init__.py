"""The verbs: a question is a file in this folder, and a name here. Nothing is imported before its verb is asked.

Each is a function of the trainer, whose run's folders get the answer, the model, its data, and arguments of its own,
which are the command line's, with their types, bounds and help; those without a config are functions of words.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

SHARED = ("sample", "distances", "compare", "contrast")  # every process does a part
BY_FIRST_PROCESS = (
    "score", "compress", "decompress", "estimators", "ledger", "rates", "layers", "show", "download",
)  # fmt: skip
VERBS = (*SHARED, *BY_FIRST_PROCESS)
OF_DATA = ("layers", "show", "download")  # no run is asked
WITHOUT_CONFIG = ("diff", "report", "configs", "completion")

OURS = frozenset({"model", "datamodule"})
SKIPPED = {  # what no verb is given on the command line
    "fit": {*OURS, "train_dataloaders", "val_dataloaders", "weights_only"},
    "validate": {*OURS, "dataloaders", "weights_only"},
    "test": {*OURS, "dataloaders", "weights_only"},
    "predict": {*OURS, "dataloaders", "weights_only", "return_predictions"},
    **{verb: set(OURS) for verb in VERBS},
}


def function_of(verb: str) -> Callable[..., Any]:
    """The function that is a verb of ours."""
    function: Callable[..., Any] = getattr(import_module(f"commands.{verb}"), verb)
    return function
