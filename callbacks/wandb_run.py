"""The run on Weights & Biases: with an account, or offline without asking anything."""

import netrc
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import wandb
from pytorch_lightning.loggers import WandbLogger


def wandb_run(name: str, folder: Path, config: dict[str, Any]) -> WandbLogger:
    """The logger of a run. W&B itself is not touched before the first metric, and by the first process only.

    Online where there is an account, as WANDB_MODE says where it is set, and otherwise offline, in the run's folder.

    Args:
        name: Of the config.
        folder: Of the run; its name makes the run's id, so that a resumed run continues the same one.
        config: To group runs by.
    """
    return WandbLogger(
        project=os.environ.get("WANDB_PROJECT", "inverters"),
        name=name,
        id=f"{name}-{folder.name}",
        resume="allow",
        save_dir=folder,
        offline="WANDB_MODE" not in os.environ and not has_wandb_account(),
        config=config,
        settings=wandb.Settings(console="off", silent=True),
    )


def has_wandb_account() -> bool:
    """Whether a W&B key is in the environment or in .netrc."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    try:
        return host is not None and netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
