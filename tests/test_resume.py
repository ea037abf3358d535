"""A run that was stopped and resumed is the uninterrupted one, bit for bit."""

import shutil
import signal
from pathlib import Path

import pytest
from digests import checkpoint_digest, run_digests
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
    return digests_of_one_go(classifier, tmp_path_factory.mktemp("uninterrupted"))


def digests_of_one_go(classifier, folder, *more):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        shutil.copytree(classifier, "runs/classifier_mnist5k", symlinks=True)
        main([*FIT, *more])
        return run_digests(only_run())


@pytest.mark.parametrize("step", [1, 2, 3, 4, 5])
def test_stopped_at_a_step(here, uninterrupted, step):
    stopped([*FIT, signal_at(step)])
    main([*FIT, "--ckpt_path=last"])
    assert run_digests(only_run()) == uninterrupted
    runs_of_wandb = {path.name.split("-", 3)[3] for path in only_run().glob("wandb/offline-run-*")}
    assert len(runs_of_wandb) == 1  # two folders of one run


def test_stopped_at_the_last_step(here, uninterrupted):
    """Only the test is left to do; last.ckpt is one step ahead of the one that the last validation has left."""
    stopped([*FIT, signal_at(7)])
    assert not Path("runs/inverter_mnist5k_fc3/results.json").exists()
    main([*FIT, "--ckpt_path=last"])
    found = run_digests(only_run())
    assert found.pop("last.ckpt") != uninterrupted["last.ckpt"]
    assert found == {name: digest for name, digest in uninterrupted.items() if name != "last.ckpt"}


def test_stopped_in_a_validation(here, uninterrupted):
    stopped([*FIT, signal_at(4, in_validation=True)])
    main([*FIT, "--ckpt_path=last"])
    assert run_digests(only_run()) == uninterrupted


VARIANTS = {
    "logistic head": ["--model.density.likelihood=LogisticMixture", "--model.density.context_dropout=0.2"],
    "h from disk": ["--cache_activations=float32"],
    "loader processes": ["--data.num_workers=2"],
    "mean squared error": ["--model.density=MSEDecoder"],
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_stopped_as_a_variant(here, classifier, tmp_path_factory, variant):
    expected = digests_of_one_go(classifier, tmp_path_factory.mktemp("whole"), *VARIANTS[variant])
    stopped([*FIT, *VARIANTS[variant], signal_at(3)])
    main([*FIT, *VARIANTS[variant], "--ckpt_path=last"])
    assert run_digests(only_run()) == expected


def test_a_classifier_too(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent)
    fit = [
        "fit", "--config=classifier_mnist5k.yaml", "--trainer.max_steps=5", "--trainer.val_check_interval=2",
        "--trainer.limit_train_batches=3", "--trainer.log_every_n_steps=1", "--trainer.accelerator=cpu",
    ]  # fmt: skip
    found = []
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        if name == "stopped":
            stopped([*fit, signal_at(2)])
        main([*fit, *(["--ckpt_path=last"] if name == "stopped" else [])])
        (last,) = Path("runs").glob("*/*/checkpoints/last.ckpt")
        found.append((checkpoint_digest(last), (last.parents[1] / "metrics.csv").read_bytes()))
    assert found[0] == found[1]


def test_killed_at_random_moments(tmp_path):
    assert trial(tmp_path, num_kills=3, max_steps=40) >= 3
