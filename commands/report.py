"""All runs in one HTML file, and as a run on Weights & Biases."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import wandb

from evaluations.estimators import breakdown
from evaluations.measurements import EstimatorResult
from evaluations.regions import Region, region
from evaluations.report import sections
from evaluations.report.audit import audit_of
from evaluations.report.audit import sections as audit_sections
from evaluations.report.page import Picture, Section, Story, Table, page
from evaluations.report.tested_runs import AnyRun, runs_under
from runtime.files import replacing
from runtime.wandb_account import is_offline_by_default, labels, project, safe_id, say_if_offline, wandb_settings
from runtime.wandb_lineage import log_file, use_file


def report(words: Sequence[str]) -> None:
    """Write all runs into one HTML file: report [FOLDER ...] [--for audit] [--output FILE]; needs no config."""
    parser = argparse.ArgumentParser("cli.py report", description="One HTML file of all runs.", allow_abbrev=False)
    parser.add_argument("runs", nargs="*", type=Path, default=[Path("runs")], help="folders of runs; runs by default")
    parser.add_argument("--output", type=Path, help="default: runs/report.html, or runs/audit.html of an audit")
    parser.add_argument("--picture", type=Path, help="also write the picture that comes first, as a PNG file")
    parser.add_argument(
        "--for", dest="reader", choices=["audit"],
        help="one page for someone who must decide: what can be read of one layer; the first inverter is audited",
    )  # fmt: skip
    parser.add_argument(
        "--regions", nargs="+", action="extend", default=[], metavar="NAME=TOP:BOTTOM,LEFT:RIGHT",
        help="boxes in pixels, from 0, of which an audit tells the nats, as face=8:24,4:20",
    )  # fmt: skip
    given = parser.parse_args(words)
    if given.reader == "audit":
        if given.picture:
            raise ValueError("--picture is of a report of all runs; leave it away, or leave away --for audit")
        write_audit(given.runs, given.output or Path("runs/audit.html"), [region(text) for text in given.regions])
        return
    if given.regions:
        raise ValueError("--regions is of an audit; give --for audit too")
    write_report(given.runs, given.output or Path("runs/report.html"), given.picture)


def write_audit(places: Sequence[Path], output: Path, regions: Sequence[Region] = ()) -> None:
    """Write the audit of the first inverter in these folders, and log its tables and figures as `write_report` does.

    Raises:
        FileNotFoundError: A folder is missing.
        ValueError: A file of results cannot be read, there is nothing to audit, or a region is not in the images.
    """
    found = audit_of(places)
    made = audit_sections(found, regions)
    content = page(f"Audit of {found.result.name}", made, [run.result.to_json() for run in found.runs])
    with replacing(output) as file:
        file.write(content.encode())
    others = f", beside {len(found.others)} more" if found.others else ""
    print(f"audit of {found.layer}, {found.result.name} ({found.run.folder}){others}: {output}", flush=True)
    _log(made, output, found.runs, "audit")
    plt.close("all")


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
    _log(made, output, runs)
    plt.close("all")


def _log(made: Sequence[Section], output: Path, runs: Sequence[AnyRun], kind: str = "report") -> None:
    """The page, and its tables and figures under their titles; no failure of W&B matters, as the file is written.

    Args:
        made: What is on the page.
        output: The page.
        runs: That it was made of.
        kind: What W&B calls it.
    """
    try:
        with _wandb_run(output.parent, kind) as run:
            say_if_offline(run, output.parent)
            run.log({kind: wandb.Html(output.read_text("utf-8"), inject=False, data_is_not_path=True)})
            for one in runs:
                use_file(run, one.folder / "results.json", f"{one.result.name}-results", "results")
            log_file(run, output, kind, "report")
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


def _wandb_run(folder: Path, kind: str) -> wandb.Run:
    """A run of its own, without Lightning, which takes seconds to import; offline where no server can be reached."""
    about: dict[str, Any] = {
        "project": project(), "id": safe_id(f"{kind}-{folder.name}"), "resume": "allow", "dir": folder.resolve(),
        "settings": wandb_settings(), **labels(name=f"{kind} {folder.name}", job_type="report"),
    }  # fmt: skip
    try:
        return wandb.init(**about, mode="offline" if is_offline_by_default() else None)
    except Exception as error:
        print(f"Weights & Biases cannot be reached ({error}); its run is offline, in {folder}/wandb", file=sys.stderr)
        return wandb.init(**about | {"id": f"{about['id']}-offline"}, mode="offline")
