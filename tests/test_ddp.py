"""Two processes give the numbers of one, do once what is to be done once, and end together."""

import csv
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from digests import run_digests
from small_runs import (
    CLI,
    SMALL,
    environment_of_its_own,
    result,
    run_with_results,
    signal_at,
    the_run,
    write_short_config,
)

from runtime.checkpoints import load_checkpoint

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
DDP = ["--trainer.devices=2", "--trainer.strategy=ddp"]
WORLD = [
    "--config=world_bit_drop.yaml", "--data.num_test=101", "--data.eval_batch_size=20", "--data.batch_size=8",
    "--model.density.num_filters=4", "--sample_grid.num_images=3", "--sample_grid.num_draws=2", "--num_agreement=3",
    "--trainer.max_steps=4", "--trainer.val_check_interval=2", "--trainer.log_every_n_steps=1",
    "--trainer.accelerator=cpu",
]  # fmt: skip
DIGITS = [
    *SMALL, "--data.eval_batch_size=5", "--model.density.dropout=0.3", "--sample_grid.num_images=3",
    "--sample_grid.every_n_steps=2", "--trainer.max_steps=5", "--trainer.val_check_interval=2",
    "--trainer.limit_train_batches=3", "--trainer.limit_val_batches=2", "--trainer.limit_test_batches=2",
]  # fmt: skip


def command(folder, *arguments, launcher=(sys.executable,), status=0):
    """Runs cli.py; what it said."""
    call = [*launcher, str(CLI), *arguments]
    environment = environment_of_its_own()
    done = subprocess.run(call, env=environment, cwd=folder, capture_output=True, text=True, timeout=240)
    assert done.returncode == status, done.stderr[-3000:]
    return done.stdout + done.stderr


def results(folder, name):
    place = run_with_results(name, folder / "runs")
    names = ("index", "log_prob", "log_prob_per_pixel")
    return result(name, folder / "runs"), {name: np.load(place / f"{name}.npy") for name in names}


def metrics(folder, name):
    with (the_run(folder, name) / "metrics.csv").open() as file:
        return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]


def test_two_processes_give_the_numbers_of_one(tmp_path):
    """101 test images; in float64, with the same global batches, the whole training too."""
    for name, more in (("one", []), ("two", DDP)):
        (tmp_path / name).mkdir()
        command(tmp_path / name, "fit", *WORLD, "--trainer.precision=64-true", *more)
    (one, arrays_of_one), (two, arrays_of_two) = (results(tmp_path / name, "world_bit_drop") for name in ("one", "two"))
    assert one["num_images"] == two["num_images"] == 101
    assert np.array_equal(arrays_of_one["index"], arrays_of_two["index"])
    for key in ("log_prob", "log_prob_per_pixel"):
        np.testing.assert_allclose(arrays_of_one[key], arrays_of_two[key], rtol=1e-12, atol=1e-12)
    for key in ("nce_nats", "nce_nats_se", "shuffled_nce_nats"):
        assert one[key] == pytest.approx(two[key], rel=1e-12)
    assert one["world"] == pytest.approx(two["world"], rel=1e-12)
    pictures = [
        np.load(run_with_results("world_bit_drop", tmp_path / name / "runs") / "samples.npz") for name in ("one", "two")
    ]
    assert np.array_equal(pictures[0]["draws"], pictures[1]["draws"])
    rows = [metrics(tmp_path / name, "world_bit_drop") for name in ("one", "two")]
    assert len(rows[0]) == len(rows[1])
    for of_one, of_two in zip(*rows, strict=True):
        assert of_one == pytest.approx(of_two, rel=1e-6)  # they are logged in float32

    # One network in float32.
    checkpoint = str(the_run(tmp_path / "one", "world_bit_drop") / "checkpoints" / "best.ckpt")
    found = []
    for more in ([], DDP):
        command(tmp_path / "one", "test", *WORLD, f"--ckpt_path={checkpoint}", *more)
        found.append(results(tmp_path / "one", "world_bit_drop"))
    (one, arrays_of_one), (two, arrays_of_two) = found
    assert one["num_images"] == two["num_images"] == 101
    assert one["nce_nats"] == pytest.approx(two["nce_nats"], rel=1e-6)
    assert not np.array_equal(arrays_of_one["log_prob"], arrays_of_two["log_prob"])  # other batches round otherwise
    np.testing.assert_allclose(arrays_of_one["log_prob"], arrays_of_two["log_prob"], rtol=1e-6, atol=1e-4)


def test_two_processes_calibrate_a_decoder_as_one_does(tmp_path, trained_runs):
    """Its variance is of all validation images, 500, of which each process has a share; so is its NCE."""
    arguments = [
        "--config=mse_mnist5k_logits.yaml", "--data.batch_size=8", "--num_agreement=3", "--sample_grid.num_images=0",
        "--trainer.max_steps=3", "--trainer.limit_test_batches=2", "--trainer.precision=64-true",
        "--trainer.accelerator=cpu",
    ]  # fmt: skip
    variances, nces = [], []
    for name, more in (("one", []), ("two", DDP)):
        shutil.copytree(trained_runs / "classifier_mnist5k", tmp_path / name / "runs/classifier_mnist5k", symlinks=True)
        command(tmp_path / name, "fit", *arguments, *more)
        last = load_checkpoint(the_run(tmp_path / name, "mse_mnist5k_logits") / "checkpoints" / "last.ckpt")
        variances.append(last["state_dict"]["density.variance"].item())
        nces.append(
            [row["val/nce_nats"] for row in metrics(tmp_path / name, "mse_mnist5k_logits") if "val/nce_nats" in row]
        )
    assert variances[0] == pytest.approx(variances[1], rel=1e-12)
    assert nces[0] == pytest.approx(nces[1], rel=1e-6)


def test_what_torchrun_starts_together_is_done_once(tmp_path):
    """The classifier is missing, and h is to be kept on disk."""
    write_short_config(tmp_path, "classifier_mnist5k", 3)
    said = command(tmp_path, "fit", *DIGITS, *DDP, "--cache_activations=float32", launcher=TORCHRUN)
    assert said.count("training it first") == 1
    assert said.count("runs/activations/fc3_train_") == said.count("making runs/activations") == 1
    assert said.count("run folder runs/inverter_mnist5k_fc3/") == 1
    assert said.count("NCE ") == 1
    for name in ("classifier_mnist5k", "inverter_mnist5k_fc3"):
        assert len(list((tmp_path / "runs" / name).glob("*/config.yaml"))) == 1
        assert len(list((tmp_path / "runs" / name).glob("*/wandb/offline-run-*"))) == 1
    assert len(list((tmp_path / "runs" / "activations").glob("*.npy"))) == 1


@pytest.fixture(scope="module")
def two_processes(trained_runs, tmp_path_factory):
    """An uninterrupted run of two processes, with dropout."""
    folder = tmp_path_factory.mktemp("two")
    shutil.copytree(trained_runs / "classifier_mnist5k", folder / "runs" / "classifier_mnist5k", symlinks=True)
    command(folder, "fit", *DIGITS, *DDP)
    return folder


def test_processes_have_random_numbers_of_their_own(two_processes):
    checkpoint = load_checkpoint(the_run(two_processes) / "checkpoints" / "last.ckpt")
    first, second = (states["torch"] for states in checkpoint["random_states"])
    assert not torch.equal(first, second)


@pytest.mark.parametrize(("name", "rank", "in_validation"), [("SIGUSR1", 1, False), ("SIGINT", 0, True)])
def test_a_signal_to_one_process_stops_both_and_they_resume_exactly(
    with_classifier, two_processes, name, rank, in_validation
):
    ending = signal_at(2, name, in_validation, rank)
    said = command(with_classifier, "fit", *DIGITS, *DDP, ending, status=128 + signal.Signals[name])
    assert (
        said.count(f"ended by {name} after step 2; go on with: python cli.py fit --config=inverter_mnist5k_fc3.yaml")
        == 1
    )
    command(with_classifier, "fit", *DIGITS, *DDP, "--ckpt_path=last")
    assert run_digests(the_run(with_classifier)) == run_digests(the_run(two_processes))


def test_the_death_of_one_process_ends_the_other(tmp_path, two_processes):
    start = time.monotonic()
    shutil.copytree(two_processes / "runs", tmp_path / "runs", symlinks=True)
    said = command(tmp_path, "fit", *DIGITS, *DDP, signal_at(2, "SIGKILL", rank=1), status=1)
    assert "error: another process of this run has ended" in said
    assert time.monotonic() - start < 120


def test_two_processes_draw_what_one_draws(tmp_path, two_processes):
    shutil.copytree(two_processes / "runs", tmp_path / "runs", symlinks=True)
    for verb, more, pattern in (
        ("sample", ["--num_images=5", "--num_draws=2"], "*/draws.npy"),
        (
            "distances",
            ["--num_images=5", "--num_samples=2", "--num_queries=1", "--num_candidates=8"],
            "*/distances.npz",
        ),
    ):
        found = []
        for devices in ([], DDP):
            command(tmp_path, verb, *DIGITS, *more, *devices)
            (path,) = (tmp_path / "runs" / "inverter_mnist5k_fc3").glob(pattern)
            loaded = np.load(path)
            found.append(loaded if isinstance(loaded, np.ndarray) else loaded["samples"])
            path.unlink()
        assert len(found[0]) == 5
        assert np.array_equal(*found)


def test_two_processes_predict_what_one_predicts(tmp_path, two_processes):
    shutil.copytree(two_processes / "runs", tmp_path / "runs", symlinks=True)
    found = []
    for devices in ([], DDP):
        command(tmp_path, "predict", "--config=classifier_mnist5k.yaml", "--trainer.accelerator=cpu", *devices)
        (path,) = (tmp_path / "runs" / "classifier_mnist5k").glob("*/predictions.npy")
        found.append(np.load(path))
    assert found[0].shape == (500, 10)
    np.testing.assert_allclose(*found, atol=1e-6)
