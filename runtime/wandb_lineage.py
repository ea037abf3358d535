"""Which run made a file, and which used it, as Weights & Biases draws it: by checksums, and offline too."""

from pathlib import Path
from typing import Any

import wandb

from runtime.wandb_account import safe_id


def log_file(run: Any, path: Path, name: str, kind: str) -> None:
    """Say that a run made a file."""
    if not run.disabled:  # which has no artifacts
        run.log_artifact(_reference(path, name, kind))


def use_file(run: Any, path: Path, name: str, kind: str) -> None:
    """Say that a run uses a file, which is that of the run that made it by its name and checksum.

    `run.use_artifact` asks a server, and refuses offline; this is what it does online with an artifact that is made
    here (wandb 0.31), and the server sees it at `wandb sync`: of the run that made the file first, then of this.
    A wandb that does it another way costs this line of the lineage, and not the run.
    """
    if run.disabled:
        return
    try:
        run._log_artifact(_reference(path, name, kind), is_user_created=True, use_after_commit=True)
    except (AttributeError, TypeError):
        print(f"Weights & Biases {wandb.__version__} cannot say offline that a run uses {path}; the lineage lacks it")


def _reference(path: Path, name: str, kind: str) -> wandb.Artifact:
    artifact = wandb.Artifact(safe_id(name), kind)
    artifact.add_reference(path.resolve().as_uri(), name=path.name)
    return artifact
