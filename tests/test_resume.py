"""A run that was stopped and resumed is the uninterrupted one, bit for bit."""

import shutil
import signal
from pathlib import Path

import pytest
from digests import run_digests
from kill_trial import trial

from cli import main

# Four batches an epoch and a validation every second step: a stop falls on none, one or both of their ends.
FIT = [
    "fit", "--config=inverter_mnist5k_fc3.yaml", "--model.density.num_filters=4", "--model.density.dropout=0.3",
    "--data.batch_size=4", "--data.eval_batch_size=10", "--num_agreement=3", "--sample_grid.num_images=2",
    "--sample_grid.num_draws=1", "--sample_grid.every_n_steps=3", "--trainer.max_steps=7",
    "--trainer.val_check_interval=2", "--trainer.limit_train_batches=4", "--trainer.limit_val_batches=3",
    "--trainer.limit_test_batches=2", "--trainer.log_every_n_steps=1", "--trainer.accelerator=cpu",
]  # fmt: skip


def signal_at(step, name="SIGTERM", in_validation=False, rank=0):
    """Arguments."""
    init = f"{{step: {step}, name: {name}, in_validation: {str(in_validation).lower()}, rank: {rank}}}"
    return f"--trainer.callbacks=[{{class_path: signal_at.SignalAt, init_args: {init}}}]"


def stopped(arguments, name="SIGTERM"):
    """Runs a command that a signal ends."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 128 + signal.Signals[name]


def only_run():
    (folder,) = (path.parent.parent for path in Path("runs/inverter_mnist5k_fc3").glob("*/checkpoints/last.ckpt"))
    return folder


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classifier")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        main(["fit", "--config=classifier_mnist5k.yaml", "--trainer.max_steps=3", "--trainer.accelerator=cpu"])
    return folder / "runs" / "classifier_mnist5k"


@pytest.fixture
def here(classifier, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(Path(__file__).parent)
    shutil.copytree(classifier, "runs/classifier_mnist5k", symlinks=True)
    return tmp_path


@pytest.fixture(scope="module")
def uninterrupted(classifier, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        shutil.copytree(classifier, "runs/classifier_mnist5k", symlinks=True)
        main(FIT)
        return run_digests(only_run())


@pytest.mark.parametrize("step", [1, 2, 3, 4, 5])
def test_stopped_at_a_step(here, uninterrupted, step):
    stopped([*FIT, signal_at(step)])
    main([*FIT, "--ckpt_path=last"])
    assert run_digests(only_run()) == uninterrupted


def test_stopped_in_a_validation(here, uninterrupted):
    stopped([*FIT, signal_at(4, in_validation=True)])
    main([*FIT, "--ckpt_path=last"])
    assert run_digests(only_run()) == uninterrupted


def test_killed_at_random_moments(tmp_path):
    assert trial(tmp_path, num_kills=3, max_steps=40) >= 3
