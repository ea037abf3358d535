"""What all tests share."""

import os
import re
import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch
import wandb

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ["WANDB_MODE"] = "offline"
os.environ["WANDB_X_SAVE_REQUIREMENTS"] = "false"  # W&B's list of all installed packages, of which no test is
# Small tensors are faster on one thread, a machine's other work does not disturb it, and its sums are always the same.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # of the commands that tests start
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell takes from its background jobs

from small_runs import INVERTER, SHORT  # noqa: E402 - after the path

from cli import main  # noqa: E402 - after the path
from runtime.cost import measured_cost  # noqa: E402


def pytest_configure(config):
    """A GPU is seen only where its tests are asked for: `pytest -m gpu`. Nothing has looked for one yet."""
    if not wants_gpu(config.option.markexpr):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # of the commands that tests start too
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read once a process, for deterministic runs


def wants_gpu(markexpr):
    return bool(re.search(r"(?<!not )\bgpu\b", markexpr))


@pytest.fixture(autouse=True)
def _as_before():
    """Every test begins with the same seed, and leaves threads, algorithms and answers to signals, as they were."""
    torch.manual_seed(0)
    yield
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(False)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session", autouse=True)
def _costs_are_measured_once():
    """For each kind of model: it is a quarter of the time of a fit of a few steps."""
    measured = {}

    def cost(inverter, image, autocast, seen):
        kind = f"{inverter} {image.shape} {seen.shape}"
        return measured.get(kind) or measured.setdefault(kind, measured_cost(inverter, image, autocast, seen))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("callbacks.cost_estimate.measured_cost", cost)
        yield


@pytest.fixture(scope="session")
def trained_runs(tmp_path_factory):
    """runs/ with a classifier and an inverter of a few steps."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        main(["fit", "--config=classifier_mnist5k.yaml", "--trainer.max_steps=30", "--trainer.accelerator=cpu"])
        main(["fit", *SHORT, "--trainer.max_steps=2", "--sample_grid.every_n_steps=2"])
        wandb.teardown()  # whose service may still write when a run has ended, while tests copy its folder
    return folder / "runs"


@pytest.fixture
def with_classifier(trained_runs, tmp_path, monkeypatch):
    """A working folder of its own, with the classifier."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained_runs / "classifier_mnist5k", "runs/classifier_mnist5k", symlinks=True)
    return tmp_path


@pytest.fixture
def with_inverter(trained_runs, with_classifier):
    """And with the inverter and its results."""
    shutil.copytree(trained_runs / INVERTER, f"runs/{INVERTER}", symlinks=True)
    return with_classifier
