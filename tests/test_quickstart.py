"""docs/quickstart.ipynb runs from its first cell to its last, and is kept with its outputs."""

import base64
import importlib.util
import re
import subprocess
import sys

import nbformat
import pytest
from small_runs import ROOT, environment_of_its_own, write_short_config

NOTEBOOK = nbformat.read(ROOT / "docs" / "quickstart.ipynb", as_version=4)
CODE = [cell for cell in NOTEBOOK.cells if cell.cell_type == "code"]
RUN = [cell for cell in CODE if "skip-execution" not in cell.metadata.get("tags", [])]  # all but pip's
CONFIGS = ("classifier_mnist5k", "inverter_mnist5k_fc3", "unconditional_mnist5k")


def as_script():
    """The cells as Python has them: a line for the shell is a call, and one for the notebook is left out."""
    text = "\n".join(cell.source for cell in RUN)
    text = re.sub(r"^!(.*)$", lambda m: f"subprocess.run(shlex.split(f{m[1]!r}), check=True)", text, flags=re.MULTILINE)
    return "import shlex, subprocess\n" + re.sub(r"^%.*$", "", text, flags=re.MULTILINE)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """With configs of few steps and filters, which come before those of the same names."""
    for name in CONFIGS:
        write_short_config(tmp_path, name, max_steps=2)
        with (tmp_path / f"{name}.yaml").open("a") as config:
            config.write("\nnum_agreement: 3\n")
    more = {"STEPS": "2", "PYTHONPATH": str(ROOT), "MPLBACKEND": None}
    for name, value in environment_of_its_own(**more).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return tmp_path


EXECUTED = """
import sys, nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(notebook, timeout=600, kernel_name="python3").execute(cwd=".")
nbformat.write(notebook, "executed.ipynb")
"""


def test_every_cell_runs(folder, monkeypatch):
    in_jupyter = all(map(importlib.util.find_spec, ("nbclient", "ipykernel")))  # of the extra `dev`
    if not in_jupyter:
        monkeypatch.setenv("MPLBACKEND", "agg")
    call = [sys.executable, "-c", EXECUTED if in_jupyter else as_script(), str(ROOT / "docs" / "quickstart.ipynb")]
    done = subprocess.run(call, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    if in_jupyter:
        cells = nbformat.read(folder / "executed.ipynb", as_version=4).cells
        outputs = [output for cell in cells for output in cell.get("outputs", [])]
        assert sum("image/png" in output.get("data", {}) for output in outputs) == 3
        said = [output["text"] for output in outputs if output.get("name") == "stderr"]
        assert not [text for text in said if not text.startswith("\r")]  # a slow machine has a progress bar
    else:
        assert "nats (standard error" in done.stdout


def test_it_has_ten_cells_with_their_outputs():
    nbformat.validate(NOTEBOOK)
    assert len(NOTEBOOK.cells) == 10
    assert [cell.execution_count for cell in RUN] == list(range(1, len(RUN) + 1))
    assert all(cell.outputs for cell in RUN)
    outputs = [output for cell in RUN for output in cell.outputs]
    pictures = [base64.b64decode(o.data["image/png"]) for o in outputs if "image/png" in o.get("data", {})]
    assert len(pictures) == 3
    assert sum(map(len, pictures)) < 200_000
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]


def test_it_says_nothing_of_where_it_was_made():
    text = (ROOT / "docs" / "quickstart.ipynb").read_text()
    assert not re.findall(r"/(?:work|tmp|root|home|Users|usr)/", text)


def test_the_steps_in_its_text_are_those_that_were_made():
    (steps,) = re.findall(r'"STEPS", (\d+)\)', RUN[0].source)
    assert f"trained for {steps} steps" in NOTEBOOK.cells[0].source
