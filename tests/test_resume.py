"""A run that was stopped and resumed is the uninterrupted one, bit for bit."""

import csv
import os
import re
import shlex
import shutil
import signal
import subprocess
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from digests import checkpoint_digest, run_digests
from kill_trial import trial
from small_runs import (
    SHORT,
    SMALL,
    checkpoint_of,
    command,
    failure,
    signal_at,
    started,
    the_run,
    wait_for,
    write_short_config,
)

from cli import main
from runtime.checkpoints import load_checkpoint
from runtime.metrics_csv import MetricsCSV
from runtime.run import Run, wait_for_trainings
from runtime.wandb_run import finish_wandb

# Four batches an epoch and a validation every second step: a stop falls on none, one or both of their ends.
FIT = [
    "fit", *SMALL, "--model.density.dropout=0.3", "--sample_grid.every_n_steps=3", "--trainer.max_steps=9",
    "--trainer.val_check_interval=2", "--trainer.limit_train_batches=4", "--trainer.limit_val_batches=3",
    "--trainer.limit_test_batches=2",
]  # fmt: skip


def results():
    return list(Path("runs/inverter_mnist5k_fc3").rglob("results.json"))


def stopped(arguments, name="SIGTERM"):
    """Runs a command that a signal ends."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 128 + signal.Signals[name]


@pytest.fixture(scope="module")
def uninterrupted(trained_runs, tmp_path_factory):
    return digests_of_one_go(trained_runs, tmp_path_factory.mktemp("uninterrupted"))


def digests_of_one_go(trained_runs, folder, *more):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        shutil.copytree(trained_runs / "classifier_mnist5k", "runs/classifier_mnist5k", symlinks=True)
        main([*FIT, *more])
        return run_digests(the_run(Path()))


@pytest.mark.parametrize(
    ("step", "name", "in_validation"),
    [
        *((step, "SIGTERM", False) for step in (1, 2, 4, 5)),  # 3 is that of the next test
        (4, "SIGUSR1", True),
        (0, "SIGTERM", False),  # between training and test
    ],
)
def test_stopped_at_a_step_or_elsewhere(with_classifier, uninterrupted, step, name, in_validation):
    stopped([*FIT, signal_at(step, name, in_validation)], name)
    assert not results()
    main([*FIT, "--ckpt_path=last"])
    assert run_digests(the_run(Path())) == uninterrupted
    runs_of_wandb = {path.name.split("-", 3)[3] for path in the_run(Path()).glob("wandb/offline-run-*")}
    assert len(runs_of_wandb) == 1  # two folders of one run


def test_muon_and_a_cooldown_go_on_exactly(trained_runs, tmp_path_factory, with_classifier):
    more = ["--model.muon=0.02", "--model.cooldown=0.7"]
    whole = digests_of_one_go(trained_runs, tmp_path_factory.mktemp("muon"), *more)
    stopped([*FIT, *more, signal_at(4)])
    main([*FIT, *more, "--ckpt_path=last"])
    assert run_digests(the_run(Path())) == whole


def test_the_command_that_a_stopped_run_prints_goes_on_with_it(with_classifier, uninterrupted, capsys):
    stopped([*FIT, "--ckpt_path=auto", signal_at(3)])
    (command,) = re.findall("ended by SIGTERM after step 3; go on with: (.*)", capsys.readouterr().out)
    python, program, *arguments = shlex.split(command)
    assert (python, program) == ("python", "cli.py")
    Path("runs/inverter_mnist5k_fc3/9999-newer/checkpoints").mkdir(parents=True)  # of another run, started since
    Path("runs/inverter_mnist5k_fc3/9999-newer/checkpoints/last.ckpt").touch()
    main(arguments)
    shutil.rmtree("runs/inverter_mnist5k_fc3/9999-newer")
    assert run_digests(the_run(Path())) == uninterrupted


def test_a_second_signal_does_not_disturb_the_end(with_classifier, monkeypatch, capsys):
    def finish():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGUSR1)
        finish_wandb()

    monkeypatch.setattr("commands.fit.finish_wandb", finish)
    stopped([*FIT, signal_at(3, "SIGUSR1")], "SIGUSR1")
    assert "ended by SIGUSR1 after step 3; go on with:" in capsys.readouterr().out


def test_stopped_at_the_last_step(with_classifier, uninterrupted):
    """Only the test is left to do; last.ckpt is one step ahead of the one that the last validation has left."""
    stopped([*FIT, signal_at(9, "SIGINT")], "SIGINT")
    assert not results()
    main([*FIT, "--ckpt_path=last"])
    found = run_digests(the_run(Path()))
    assert found.pop("last.ckpt") != uninterrupted["last.ckpt"]
    assert found == {name: digest for name, digest in uninterrupted.items() if name != "last.ckpt"}


def test_a_run_that_had_stopped_early_does_not_begin_again(with_classifier):
    """Nothing improves where nothing is learnt; killed before its test, it has only the test left to do."""
    fit = [*FIT, "--model.lr=0", "--model.muon=null", "--patience=2", "--trainer.max_steps=20"]
    main([*fit, "--test_after_fit=false"])
    assert load_checkpoint(checkpoint_of())["global_step"] == 6  # the best validation, and two without better
    assert not results()
    main([*fit, "--ckpt_path=last"])
    assert load_checkpoint(checkpoint_of())["global_step"] == 6
    assert results()


VARIANTS = {
    "logistic head": [
        "--model.density.likelihood=LogisticMixture",
        "--model.density.palette=false",
        "--model.density.context_dropout=0.2",
    ],
    "h from disk": ["--cache_activations=float32"],
    "loader processes": ["--data.num_workers=2"],
    "mean squared error": ["--model.density=MSEDecoder", "--model.muon=null"],
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_stopped_as_a_variant(with_classifier, trained_runs, tmp_path_factory, variant):
    expected = digests_of_one_go(trained_runs, tmp_path_factory.mktemp("whole"), *VARIANTS[variant])
    stopping = [*FIT, *VARIANTS[variant], signal_at(3)]
    if variant == "loader processes":  # only the first run of a process notices that one of them has died
        command(Path(), *stopping, status=128 + signal.SIGTERM)
    else:
        stopped(stopping)
    main([*FIT, *VARIANTS[variant], "--ckpt_path=last"])
    assert run_digests(the_run(Path())) == expected


def test_a_classifier_too(tmp_path, monkeypatch):
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
        main([*fit, "--ckpt_path=auto"])
        (last,) = Path("runs").glob("*/*/checkpoints/last.ckpt")
        found.append((checkpoint_digest(last), (last.parents[1] / "metrics.csv").read_bytes()))
    assert found[0] == found[1]


def test_an_interrupted_classifier_is_finished_before_it_is_inverted(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_short_config(tmp_path, "classifier_mnist5k", 4)
    same_data = ["--trainer.val_check_interval=1", "--data.num_train=100"]
    stopped(["fit", "--config=classifier_mnist5k.yaml", *same_data, signal_at(2)])
    main(["fit", *SHORT, "--trainer.max_steps=1"])
    assert "training it first" in capsys.readouterr().out
    assert load_checkpoint(checkpoint_of("classifier_mnist5k"))["global_step"] == 4
    main(["fit", *SHORT, "--trainer.max_steps=1"])
    assert "training it first" not in capsys.readouterr().out


def test_a_signal_while_the_missing_classifier_is_trained_ends_both(tmp_path):
    write_short_config(tmp_path, "classifier_mnist5k", 100_000)
    with started(tmp_path, "fit", *SHORT, "--trainer.max_steps=1", stdout=subprocess.PIPE) as run:
        files = "runs/classifier_mnist5k/*/metrics.csv"  # which has a row once it trains
        wait_for(lambda: any(path.read_text().count("\n") > 1 for path in tmp_path.glob(files)))
        run.send_signal(signal.SIGUSR1)
        said, _ = run.communicate(timeout=60)
    assert run.returncode == 128 + signal.SIGUSR1
    assert re.search("ended by SIGTERM after step .*classifier_mnist5k", said)
    assert re.search(r"ended by SIGUSR1; go on with: python cli\.py fit .*inverter_mnist5k_fc3", said)
    assert list(tmp_path.glob("runs/classifier_mnist5k/*/checkpoints/last.ckpt"))


def test_one_process_trains_a_run_and_others_wait(tmp_path, capsys):
    folder = tmp_path / "a_config" / "2026-01-01"
    folder.mkdir(parents=True)
    run = Run(tmp_path, "a_config", folder)
    entered, leave = threading.Event(), threading.Event()

    def train():
        with run.held(), run.in_training():
            (folder / ".metrics.csv.abcdefgh").touch()
            entered.set()
            leave.wait(30)

    thread = threading.Thread(target=train)
    thread.start()
    entered.wait(30)
    with (
        pytest.raises(ValueError, match=r"another process is training .*2026-01-01; wait for its end") as caught,
        run.held(),
    ):
        pass
    assert "delete" not in str(caught.value)
    threading.Timer(0.5, leave.set).start()
    wait_for_trainings(tmp_path, "a_config")
    assert leave.is_set()
    assert "waiting for its end" in capsys.readouterr().out
    thread.join()
    with suppress(KeyError), run.held(), run.in_training():
        assert not list(folder.glob(".metrics.csv.*"))  # as a killed process leaves
        raise KeyError
    assert [path.name for path in folder.iterdir() if path.name != "training.lock"] == ["unfinished"]
    wait_for_trainings(tmp_path, "a_config")


def test_rows_after_the_checkpoint_are_written_again(tmp_path):
    stopped_run = MetricsCSV(tmp_path)
    for step in range(5):
        stopped_run.log_metrics({"train/nce_nats": -step}, step)
    stopped_run.save()
    resumed = MetricsCSV(tmp_path, first_step=3)
    resumed.log_metrics({"val/nce_nats": -7.5}, 3)
    resumed.save()
    with (tmp_path / "metrics.csv").open() as file:
        rows = [(row["step"], row["train/nce_nats"], row["val/nce_nats"]) for row in csv.DictReader(file)]
    assert rows == [("0", "0", ""), ("1", "-1", ""), ("2", "-2", ""), ("3", "", "-7.5")]


def test_killed_at_random_moments(tmp_path):
    assert trial(tmp_path, num_kills=3, max_steps=40) >= 3


def test_a_run_is_resumed_by_the_optimiser_that_it_had(with_classifier, capsys):
    stopped([*FIT, "--model.muon=null", signal_at(2)])
    assert "it was trained with --model.muon null: give that, or its run's own config.yaml" in failure(
        capsys, *FIT, "--ckpt_path=last"
    )
    stopped([*FIT, "--model.muon=0.03", signal_at(2)])
    message = failure(capsys, *FIT, "--model.muon=null", "--ckpt_path=last")
    assert "cannot be resumed: it was trained with --model.muon 0.03: give that" in message
