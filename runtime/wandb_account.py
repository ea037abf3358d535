"""What every run on Weights & Biases has, and whether there is an account; without Lightning."""

import hashlib
import netrc
import os
import re
import shlex
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import wandb


def is_offline_by_default() -> bool:
    """Whether a run is offline: WANDB_MODE does not say, and there is no account."""
    return "WANDB_MODE" not in os.environ and not has_wandb_account()


def wandb_settings() -> wandb.Settings:
    """Of every run: nothing on the screen, and no long wait for a server."""
    return wandb.Settings(console="off", silent=True, init_timeout=float(os.environ.get("WANDB_INIT_TIMEOUT", 30)))


def say_if_offline(run: Any, folder: str | Path) -> None:
    """Print that a W&B run is offline, where, and how to upload it: nothing where it is online, or W&B switched off."""
    if run.offline and not run.disabled:
        where = os.path.join(os.path.relpath(folder), "wandb")
        # A training that went on has several folders.
        upload = f"wandb sync {shlex.quote(where)}/offline-run-*"
        print(f"Weights & Biases: the run is offline, in {where}; to upload it: {upload}", flush=True)


def labels(**wanted: Any) -> dict[str, Any]:
    """What a run is called and sorted by, as wandb.init takes it, but for what the user's environment says."""
    variables = {"name": "NAME", "group": "RUN_GROUP", "job_type": "JOB_TYPE", "tags": "TAGS"}
    return {key: value for key, value in wanted.items() if f"WANDB_{variables[key]}" not in os.environ}


def project() -> str:
    """Where runs go."""
    return os.environ.get("WANDB_PROJECT", "inverters")


def safe_id(wanted: str) -> str:
    """An id as W&B takes it, and as a file can be called; a digest keeps apart what would be the same without it."""
    safe = re.sub(r"[^\w.-]", "-", wanted)
    if safe == wanted and len(safe) < 120:
        return safe
    return f"{safe[:100]}-{hashlib.sha256(wanted.encode(errors='backslashreplace')).hexdigest()[:8]}"


def has_wandb_account() -> bool:
    """Whether a W&B key is in the environment or in .netrc."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    try:
        return host is not None and netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
