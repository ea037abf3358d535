"""Two processes give the numbers of one, and do once what is to be done once."""

import csv
import shutil
import sys

import numpy as np
import pytest
from small_runs import command, result, run_with_results, the_run, write_short_config
from test_ddp import DDP, DIGITS, by_one_and_two

from runtime.checkpoints import load_checkpoint

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
WORLD = [
    "--config=world_bit_drop.yaml", "--data.num_test=101", "--data.eval_batch_size=20", "--data.batch_size=8",
    "--model.density.num_filters=4", "--sample_grid.num_images=3", "--sample_grid.num_draws=2", "--num_agreement=3",
    "--trainer.max_steps=4", "--trainer.val_check_interval=2", "--trainer.log_every_n_steps=1",
    "--trainer.accelerator=cpu",
]  # fmt: skip


def results(folder, name="world_bit_drop"):
    """The row, and arrays of each image."""
    place = run_with_results(name, folder / "runs")
    arrays = (np.load(place / f"{key}.npy") for key in ("index", "log_prob", "log_prob_per_pixel"))
    return result(name, folder / "runs"), *arrays


def metrics(folder, name):
    with (the_run(folder, name) / "metrics.csv").open() as file:
        return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]


def test_two_processes_give_the_numbers_of_one(tmp_path):
    """101 test images; in float64, with the same global batches, the whole training too."""
    folders = [tmp_path / name for name in ("one", "two")]
    (one, *arrays_of_one), (two, *arrays_of_two) = by_one_and_two(
        folders, ["fit", *WORLD, "--trainer.precision=64-true"], results
    )
    assert one["num_images"] == two["num_images"] == 101
    assert np.array_equal(arrays_of_one[0], arrays_of_two[0])
    for of_one, of_two in zip(arrays_of_one, arrays_of_two, strict=True):
        np.testing.assert_allclose(of_one, of_two, rtol=1e-12, atol=1e-12)
    for key in ("nce_nats", "nce_nats_se", "shuffled_nce_nats", "world"):
        assert one[key] == pytest.approx(two[key], rel=1e-12)
    pictures = [np.load(run_with_results("world_bit_drop", folder / "runs") / "samples.npz") for folder in folders]
    assert np.array_equal(pictures[0]["draws"], pictures[1]["draws"])
    rows = [metrics(folder, "world_bit_drop") for folder in folders]
    for of_one, of_two in zip(*rows, strict=True):
        assert of_one == pytest.approx(of_two, rel=1e-6)  # they are logged in float32

    # One network in float32.
    checkpoint = the_run(folders[0], "world_bit_drop") / "checkpoints" / "best.ckpt"
    test = ["test", *WORLD, f"--ckpt_path={checkpoint}"]
    (one, _, of_one, _), (two, _, of_two, _) = by_one_and_two([folders[0]] * 2, test, results)
    assert one["num_images"] == two["num_images"] == 101
    assert one["nce_nats"] == pytest.approx(two["nce_nats"], rel=1e-6)
    assert not np.array_equal(of_one, of_two)  # other batches round otherwise
    np.testing.assert_allclose(of_one, of_two, rtol=1e-6, atol=1e-4)


def test_two_processes_calibrate_a_decoder_as_one_does(tmp_path, trained_runs):
    """Its variance is of all validation images, 500, of which each process has a share; so is its NCE."""
    arguments = [
        "fit", "--config=mse_mnist5k_logits.yaml", "--data.batch_size=8", "--num_agreement=3",
        "--sample_grid.num_images=0", "--trainer.max_steps=3", "--trainer.limit_test_batches=2",
        "--trainer.precision=64-true", "--trainer.accelerator=cpu",
    ]  # fmt: skip

    def variance_and_nce(folder):
        last = load_checkpoint(the_run(folder, "mse_mnist5k_logits") / "checkpoints" / "last.ckpt")
        rows = metrics(folder, "mse_mnist5k_logits")
        return last["state_dict"]["density.variance"].item(), [row.get("val/nce_nats", 0) for row in rows]

    for name in ("one", "two"):
        shutil.copytree(trained_runs / "classifier_mnist5k", tmp_path / name / "runs/classifier_mnist5k", symlinks=True)
    one, two = by_one_and_two([tmp_path / "one", tmp_path / "two"], arguments, variance_and_nce)
    assert one[0] == pytest.approx(two[0], rel=1e-12)
    assert any(one[1])
    assert one[1] == pytest.approx(two[1], rel=1e-6)


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
