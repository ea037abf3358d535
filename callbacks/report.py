"""The report of all runs, as one HTML file and as a run on Weights & Biases."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import wandb

from callbacks.atomic import replacing
from callbacks.wandb_run import wandb_run
from evaluations.estimators import breakdown
from evaluations.html import Picture, Section, Table, page
from evaluations.report import sections
from evaluations.runs import runs_under


def write_report(paths: Sequence[Path], output: Path) -> None:
    """Write the report of all runs in these folders, and log its tables and figures to W&B, offline without an account.

    Raises:
        FileNotFoundError: A folder is missing, or there is no tested run in any.
        ValueError: A file of results cannot be read.
    """
    runs = runs_under(paths)
    if not runs:
        places = ", ".join(map(str, paths))
        raise FileNotFoundError(
            f"no results.json in {places}; make one with: python cli.py fit --config inverter_mnist5k_fc3.yaml"
        )
    asked = any((run.folder / "estimators.json").is_file() for run in runs)
    found = sections(runs, breakdown() if asked else [])
    with replacing(output) as file:
        file.write(page("What do the layers keep?", found).encode())
    print(f"{len(runs)} runs: {output}", flush=True)
    _log(found, output.parent)
    plt.close("all")


def _log(found: Sequence[Section], folder: Path) -> None:
    """Every table and figure, under its section's title."""
    run = wandb_run("report", folder, {}).experiment
    for section in found:
        parts = {
            f"{section.title}/{part.caption[:60]}": (
                wandb.Table(columns=list(part.header), data=[list(row) for row in part.rows])
                if isinstance(part, Table) else wandb.Image(part.figure, caption=part.caption)
            )
            for part in section.parts if isinstance(part, Table | Picture)
        }  # fmt: skip
        if parts:
            run.log(parts)
