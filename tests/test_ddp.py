"""Two processes draw what one draws, and end together."""

import shutil
import signal

import numpy as np
import pytest
import torch
from digests import run_digests
from small_runs import SMALL, command, signal_at, the_run

from cli import main
from runtime.checkpoints import load_checkpoint

DDP = ["--trainer.devices=2", "--trainer.strategy=ddp"]
DIGITS = [
    *SMALL, "--data.eval_batch_size=5", "--model.density.dropout=0.3", "--sample_grid.num_images=3",
    "--sample_grid.every_n_steps=2", "--trainer.max_steps=5", "--trainer.val_check_interval=2",
    "--trainer.limit_train_batches=3", "--trainer.limit_val_batches=2", "--trainer.limit_test_batches=2",
]  # fmt: skip


def by_one_and_two(folders, arguments, read):
    """What `read` finds in a folder after a command of one process, which is this one, and in a folder after two's."""
    for folder in folders:
        folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folders[0])
        main(list(arguments))
    of_one = read(folders[0])
    command(folders[1], *arguments, *DDP)
    return of_one, read(folders[1])


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
    shutil.copytree(two_processes / "runs", tmp_path / "runs", symlinks=True)
    said = command(tmp_path, "fit", *DIGITS, *DDP, signal_at(2, "SIGKILL", rank=1), status=1)
    assert "error: another process of this run has ended" in said


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

        def read(folder, pattern=pattern):
            (path,) = (folder / "runs" / "inverter_mnist5k_fc3").glob(pattern)
            loaded = np.load(path)
            path.unlink()
            return loaded if isinstance(loaded, np.ndarray) else np.column_stack((loaded["one_nn"], loaded["samples"]))

        one, two = by_one_and_two([tmp_path] * 2, [verb, *DIGITS, *more], read)
        assert len(one) == 5
        assert np.array_equal(one, two)


def test_two_processes_score_every_pair_as_one_does(tmp_path, two_processes):
    shutil.copytree(two_processes / "runs", tmp_path / "runs", symlinks=True)

    def read(folder):
        (path,) = (folder / "runs" / "inverter_mnist5k_fc3").glob("*/scores.npy")
        matrix = np.load(path)
        path.unlink()
        return matrix

    one, two = by_one_and_two([tmp_path] * 2, ["contrast", *DIGITS, "--num_images=5"], read)
    assert one.shape == (5, 5)
    assert one.std(axis=0).min() > 1  # rows that are exchanged would be noticed
    np.testing.assert_allclose(one, two, rtol=1e-6)


def test_two_processes_predict_what_one_predicts(tmp_path, two_processes):
    shutil.copytree(two_processes / "runs", tmp_path / "runs", symlinks=True)

    def read(folder):
        (path,) = (folder / "runs" / "classifier_mnist5k").glob("*/predictions.npy")
        return np.load(path)

    arguments = ["predict", "--config=classifier_mnist5k.yaml", "--trainer.accelerator=cpu"]
    one, two = by_one_and_two([tmp_path] * 2, arguments, read)
    assert one.shape == (500, 10)
    np.testing.assert_allclose(one, two, atol=1e-6)
