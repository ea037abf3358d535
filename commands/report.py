"""All runs in one HTML file, and as a run on Weights & Biases."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import wandb

from evaluations.estimators import breakdown
from evaluations.report import sections
from evaluations.report.page import Picture, Section, Story, Table, page
from evaluations.report.tested_runs import runs_under
from evaluations.results import EstimatorResult
from runtime.files import replacing
from runtime.wandb_account import is_offline_by_default, labels, project, safe_id, say_if_offline, wandb_settings
from runtime.wandb_lineage import log_file, use_file


def report(words: Sequence[str]) -> None:
    """Write all runs into one HTML file: report [FOLDER ...] [--output FILE] [--picture FILE]; needs no config."""
    parser = argparse.ArgumentParser("cli.py report", description="One HTML file of all runs.", allow_abbrev=False)
    parser.add_argument("runs", nargs="*", type=Path, default=[Path("runs")], help="folders of runs; runs by default")
    parser.add_argument("--output", type=Path, default=Path("runs/report.html"), help="default: %(default)s")
    parser.add_argument("--picture", type=Path, help="also write the picture that comes first, as a PNG file")
    given = parser.parse_args(words)
    write_report(given.runs, given.output, given.picture)


def write_report(folders: Sequence[Path], output: Path, picture: Path | None = None) -> None:
    """Write the report of all runs in these folders, and log its tables and figures to W&B, offline without an account.

    Raises:
        FileNotFoundError: A folder is missing, or there is no tested run in any.
        ValueError: A file of results cannot be read, or there is no picture.
    """
    runs = runs_under(folders)
    if not runs:
        places = ", ".join(map(str, folders))
        raise FileNotFoundError(
            f"no results.json in {places}; make one with: python cli.py fit --config inverter_mnist5k_fc3.yaml"
        )
    asked = any(run.rows(EstimatorResult) for run in runs)
    made = sections(runs, breakdown() if asked else [])
    first = next((part for section in made for part in section.parts if isinstance(part, Story)), None)
    if picture and not first:
        raise ValueError(f"no picture for {picture}: no run of an inverter here has samples and a likelihood; test one")
    with replacing(output) as file:
        file.write(page("What do the layers keep?", made, [run.result.to_json() for run in runs]).encode())
    print(f"{len(runs)} runs: {output}", flush=True)
    if picture and first:
        with replacing(picture) as file:
            first.figure.savefig(file, format="png", dpi=120)
        print(f"its first picture: {picture}", flush=True)
    _log(made, output, {run.folder / "results.json": run.result.name for run in runs})
    plt.close("all")


def _log(made: Sequence[Section], output: Path, results: Mapping[Path, str]) -> None:
    """The page, and its tables and figures under their titles; no failure of W&B matters, as the file is written.

    Args:
        made: What is on the page.
        output: The page.
        results: The files that it was made of, and the names of their configs.
    """
    try:
        with _wandb_run(output.parent) as run:
            say_if_offline(run, output.parent)
            run.log({"report": wandb.Html(output.read_text("utf-8"), inject=False, data_is_not_path=True)})
            for path, name in results.items():
                use_file(run, path, f"{name}-results", "results")
            log_file(run, output, "report", "report")
            for section in made:
                parts = {
                    f"{section.title}/{part.caption[:60]}": (
                        wandb.Table(columns=list(part.header), data=[list(row) for row in part.rows])
                        if isinstance(part, Table) else wandb.Image(part.figure, caption=part.caption)
                    )
                    for part in (*section.parts, *section.pictures) if isinstance(part, Table | Picture)
                }  # fmt: skip
                if parts:
                    run.log(parts)
    except Exception as error:  # W&B promises no list
        print(f"Weights & Biases failed ({error}); the report is whole without it", file=sys.stderr)


def _wandb_run(folder: Path) -> wandb.Run:
    """A run of its own, without Lightning, which takes seconds to import; offline where no server can be reached."""
    about: dict[str, Any] = {
        "project": project(), "id": safe_id(f"report-{folder.name}"), "resume": "allow", "dir": folder.resolve(),
        "settings": wandb_settings(), **labels(name=f"report {folder.name}", job_type="report"),
    }  # fmt: skip
    try:
        return wandb.init(**about, mode="offline" if is_offline_by_default() else None)
    except Exception as error:
        print(f"Weights & Biases cannot be reached ({error}); its run is offline, in {folder}/wandb", file=sys.stderr)
        return wandb.init(**about | {"id": f"{about['id']}-offline"}, mode="offline")
