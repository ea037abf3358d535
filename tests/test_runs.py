"""Runs: their order, their names, their locks, and that what belongs together is of one run, one test and one data."""

import csv
import errno
import io
import itertools
import json
import os
import signal
import stat
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_runs import INVERTER, ROOT, SHORT, environment_of_its_own, failure, result, the_run, write_short_config

from cli import main
from commands.classifier import trained_classifier
from datamodules import MNIST5kDataModule
from evaluations.measurements import DistancesResult
from evaluations.report.tested_runs import runs_under
from evaluations.run_order import in_order
from runtime import files
from runtime.checkpoints import load_checkpoint
from runtime.files import json_bytes, locked, npy_bytes, write_all
from runtime.run import Run

SHORTER = [*SHORT, "--trainer.max_steps=1", "--trainer.logger=false", "--sample_grid.num_images=0"]


def begun(root, called=None, training=False):
    """A run that has come to a checkpoint."""
    with Run.new(root, "a_config", called, training) as run:
        run.checkpoints.mkdir()
        run.last.touch()
    return run


def names(root):
    return [run.folder.name for run in Run.all(root, "a_config")]


def test_runs_of_versions_that_gave_no_numbers_come_first_by_the_numbers_in_their_names(tmp_path):
    for name in ("2026-01-01_12", "2026-01-01_9", "2026-01-01", "2025-12-31_100"):
        (tmp_path / "a_config" / name / "checkpoints").mkdir(parents=True)
    begun(tmp_path, "2020")
    assert names(tmp_path) == ["2025-12-31_100", "2026-01-01", "2026-01-01_9", "2026-01-01_12", "2020"]


def test_neither_a_date_in_the_future_nor_a_copy_hides_a_later_run(tmp_path):
    config, first = tmp_path / "a_config", begun(tmp_path)
    first.folder.rename(config / "2099-01-01")
    second = begun(tmp_path)
    assert Run.newest(tmp_path, "a_config", "last") == second
    subprocess.run(["cp", "-r", second.folder, config / "zz_copy"], check=True)
    assert Run.newest(tmp_path, "a_config", "last") == second
    third = begun(tmp_path)
    assert names(tmp_path) == ["2099-01-01", "zz_copy", second.folder.name, third.folder.name]
    assert Run.newest(tmp_path, "a_config", "last") == third


def test_runs_that_begin_together_have_numbers_of_their_own(tmp_path):
    threads = [threading.Thread(target=begun, args=(tmp_path, None, True)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    records = [json.loads(path.read_text()) for path in tmp_path.glob("a_config/*/run.json")]
    assert sorted(record["number"] for record in records) == [*range(1, 9)]


def test_a_record_that_cannot_be_read_is_one_sentence(tmp_path):
    run = begun(tmp_path)
    (run.folder / "run.json").write_text('{"number": "1"}')
    with pytest.raises(ValueError, match=r"run\.json cannot be read .*; delete it, and the run counts as older"):
        in_order([run.folder])


def test_what_killed_processes_have_left_is_removed_when_the_next_run_begins(tmp_path):
    config = tmp_path / "a_config"
    kept = begun(tmp_path, training=True), begun(tmp_path, "named", True)
    kept[1].last.unlink()
    kept[1].checkpoints.rmdir()
    with Run.new(tmp_path, "a_config", training=True) as now:  # it trains, and has no checkpoint yet
        for name in ("killed", "killed_before_its_mark"):
            (config / name).mkdir()
        (config / "killed/unfinished").touch()
        (config / "killed/training.lock").touch()
        (config / "killed/metrics.csv").touch()
        (config / ".results.json.abcdefgh").touch()
        (config / "a_question").mkdir()
        (config / "a_question/draws.npy").touch()
        with files.replacing(config / "being_written") as file, Run.new(tmp_path, "a_config") as new:
            left = {path.name for path in config.iterdir()}
            file.write(b"whole")
        (now.folder / "config.yaml").touch()
    temporaries = {name for name in left if name.startswith(".being_written.")}
    assert len(temporaries) == 1
    assert left - temporaries == {".lock", "a_question", *(run.folder.name for run in (*kept, now, new))}
    assert (config / "being_written").read_bytes() == b"whole"


def test_a_named_run_is_found_again_and_begins_once(with_classifier, capsys):
    main(["fit", *SHORTER, "--name=study"])
    main(["fit", *SHORTER, "--test_after_fit=false"])
    folder = Path("runs", INVERTER, "study")
    assert len(list(folder.parent.glob("*/checkpoints"))) == 2
    assert f"there is a run runs/{INVERTER}/study already" in failure(capsys, "fit", *SHORTER, "--name=study")
    main(["fit", *SHORTER, "--name=study", "--ckpt_path=auto", "--trainer.max_steps=2", "--test_after_fit=false"])
    assert load_checkpoint(folder / "checkpoints/last.ckpt")["global_step"] == 2
    before = (folder / "results.json").read_bytes()
    main(["test", *SHORTER, "--name=study", "--trainer.limit_test_batches=2"])
    assert (folder / "results.json").read_bytes() != before
    assert result()["num_images"] == 20
    main(["sample", *SHORTER, "--name=study", "--num_images=1", "--num_draws=1"])
    assert [path.parent for path in folder.parent.glob("*/draws.npy")] == [folder]
    other = next(path for path in folder.parent.glob("*/checkpoints/best.ckpt") if path.parents[1] != folder)
    message = failure(capsys, "test", *SHORTER, "--name=study", f"--ckpt_path={other}")
    assert "which is not of the run --name study; give one of both" in message
    message = failure(capsys, "test", *SHORTER, "--name=absent")
    assert f"no best checkpoint in runs/{INVERTER}/absent; make one with: python cli.py fit" in message
    assert "--name absent" in message


@pytest.mark.parametrize("name", ["", ".hidden", "..", "a/b", "/a", "a\nb", "a" * 101])
def test_a_name_that_is_none_for_a_folder_is_refused(tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    message = failure(capsys, "fit", "--config=classifier_mnist5k.yaml", f"--name={name}")
    assert f"--name {name!r} is no name for a folder" in message
    assert not list(Path("runs").glob("*/*"))


def is_held(run):
    try:
        with locked(run.folder / "training.lock", wait=False):
            return False
    except BlockingIOError:
        return True


def test_a_fit_holds_its_run_from_before_it_reads_the_checkpoint_to_the_end_of_the_test(with_inverter, monkeypatch):
    held, run = [], Run.newest(Path("runs"), INVERTER, "last")

    def loaded(path):
        held.append(is_held(run))
        return load_checkpoint(path)

    def written(self, contents, write=Run.write):
        held.append(is_held(run))
        write(self, contents)

    monkeypatch.setattr("commands.fit.load_checkpoint", loaded)
    monkeypatch.setattr(Run, "write", written)
    main(["fit", *SHORTER, "--trainer.max_steps=3", "--ckpt_path=last"])
    assert held == [True, True]
    assert not is_held(run)


def test_the_row_of_a_test_is_the_same_where_no_step_was_left_to_do(with_classifier):
    """The last validation, with which the checkpoint was saved, was at the last step; the test had been killed."""
    fit = ["fit", *SHORT, "--trainer.max_steps=4", "--trainer.val_check_interval=2", "--trainer.limit_train_batches=4"]
    main(fit)
    path = the_run(Path()) / "metrics.csv"
    whole = path.read_bytes()
    (row,) = (row for row in csv.DictReader(io.StringIO(whole.decode())) if row["test/nce_nats"])
    assert (row["epoch"], row["step"]) == ("1", "4")
    main([*fit, "--ckpt_path=last"])
    assert path.read_bytes() == whole


def test_files_of_tests_that_end_at_the_same_moment_are_of_one_of_them(tmp_path):
    run, barrier = begun(tmp_path), threading.Barrier(2)

    def test(number):
        arrays = {name: npy_bytes(np.full(3, number)) for name in ("index.npy", "log_prob.npy", "samples.npy")}
        barrier.wait()
        run.write({"results.json": json_bytes(number), **arrays})

    for i in range(60):
        threads = [threading.Thread(target=test, args=(2 * i + k,)) for k in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found = {int(np.load(path)[0]) for path in run.folder.glob("*.npy")}
        assert found == {json.loads((run.folder / "results.json").read_text())}


def test_a_test_says_the_checksums_of_its_files(with_inverter):
    main(["test", *SHORT])
    assert result()["files"].keys() == {
        "images.npy", "index.npy", "log_prob.npy", "log_prob_per_pixel.npy", "samples.npz", "samples.png"
    }  # fmt: skip


STARTER = """
import sys, pathlib
from commands import classifier
from datamodules import MNIST5kDataModule
classifier.PROGRAM = pathlib.Path("slow_program.py").resolve()
classifier.trained_classifier(pathlib.Path("runs"), "classifier_mnist5k", MNIST5kDataModule(), {}, True)
"""
SLOW_PROGRAM = """
import pathlib, time
pathlib.Path("importing").touch()
while not pathlib.Path("go").exists():
    time.sleep(0.01)
"""


def test_a_classifier_is_locked_while_its_training_lives_though_its_starter_was_killed(tmp_path):
    (tmp_path / "slow_program.py").write_text(SLOW_PROGRAM)
    environment = environment_of_its_own(PYTHONPATH=str(ROOT))
    lock = tmp_path / "runs/classifier_mnist5k/train.lock"
    with subprocess.Popen([sys.executable, "-c", STARTER], cwd=tmp_path, env=environment) as starter:
        while not (tmp_path / "importing").exists():
            assert starter.poll() is None
        starter.send_signal(signal.SIGKILL)
    with pytest.raises(BlockingIOError), locked(lock, wait=False):
        pass
    (tmp_path / "go").touch()
    with locked(lock):  # when it has ended
        pass


def test_other_data_gets_a_classifier_of_its_own(with_classifier, capfd):
    write_short_config(with_classifier, "classifier_mnist5k", 2)
    main(["fit", *SHORTER, "--data.seed=1", "--test_after_fit=false"])
    assert capfd.readouterr().out.count("training it first") == 1
    config, found = Path("runs/classifier_mnist5k"), {}
    for seed in (0, 1):  # the older one and the newer one
        data = MNIST5kDataModule(seed=seed)
        found[seed] = trained_classifier(config.parent, config.name, data, {}, train=False)
        assert load_checkpoint(found[seed])["MNIST5kDataModule"]["identity"]["seed"] == seed
    assert sorted(found.values()) == sorted(config.glob("*/checkpoints/best.ckpt"))
    newest = load_checkpoint(Run.newest(Path("runs"), INVERTER, "best").best)["state_dict"]
    weights = load_checkpoint(found[1])["state_dict"]["network.logits.weight"]
    assert torch.equal(newest["representation.network.logits.weight"], weights)
    with pytest.raises(FileNotFoundError, match="no classifier trained on this data in runs/classifier_mnist5k"):
        trained_classifier(config.parent, config.name, MNIST5kDataModule(seed=2), {}, train=False)


def test_a_classifier_that_is_given_is_not_replaced_where_it_is_of_other_data(with_classifier, capsys):
    (path,) = Path("runs/classifier_mnist5k").glob("*/checkpoints/best.ckpt")
    message = failure(capsys, "fit", *SHORTER, "--data.seed=1", f"--classifier={path}")
    assert f"the classifier {path} was trained with --data.seed 0, not 1" in message


def test_everything_of_a_run_lies_in_the_home_folder_where_that_is_asked(tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("HOME", str(tmp_path))
    main(["fit", "--config=classifier_mnist5k.yaml", "--trainer.max_steps=1", "--trainer.default_root_dir=~/x"])
    (path,) = (tmp_path / "x/classifier_mnist5k").glob("*/results.json")
    assert {"config.yaml", "metrics.csv", "checkpoints"} <= {part.name for part in path.parent.iterdir()}
    assert not list(Path().iterdir())


def test_a_file_is_on_the_disk_before_its_name_and_its_name_before_the_next_file(tmp_path, monkeypatch):
    """What a loss of power may leave is then the old files or the new ones."""
    done = []
    fsync, replace = os.fsync, os.replace

    def synced(handle):
        done.append("folder on disk" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file on disk")
        fsync(handle)

    def replaced(source, target):
        done.append(Path(target).name)
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    with files.replacing(tmp_path / "a") as file:
        file.write(b"a")
    assert done == ["file on disk", "a", "folder on disk"]
    done.clear()
    write_all({tmp_path / "results": b"last", tmp_path / "b": b"b"})
    assert done == ["file on disk", "file on disk", "b", "results", "folder on disk"]


def both(folder, *commands):
    """What two processes say that do the same commands at the same moments."""
    call, environment = [sys.executable, str(ROOT / "tests/two_at_once.py")], environment_of_its_own()
    said = [folder / f"said_by_{i}" for i in range(2)]
    with ExitStack() as stack:
        logs = [stack.enter_context(path.open("w")) for path in said]
        pair = [
            stack.enter_context(subprocess.Popen([*call, str(i), json.dumps(commands)], cwd=folder, env=environment,
                                                 stdout=log, stderr=log))
            for i, log in enumerate(logs)
        ]  # fmt: skip
        assert [process.wait() for process in pair] == [0, 0]
    return [path.read_text() for path in said]


@pytest.mark.parametrize("times", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_two_of_every_verb_at_once_on_one_run(with_inverter, times):
    """A fit may be refused, as the other one trains the run; nothing else is."""
    one = [*SHORTER, "--sample_grid.num_images=1"]
    asked = ["--num_images=2", "--num_samples=1", "--num_queries=1", "--num_candidates=6"]
    commands = [["test", *one], ["sample", *one, "--num_images=1", "--num_draws=1"], ["distances", *one, *asked]]
    commands += [["report"], ["fit", *one, "--ckpt_path=last", "--trainer.max_steps=2"], ["validate", *one]]
    commands += [["predict", *one, "--trainer.limit_predict_batches=1"], ["estimators", *one, "--num_images=10"]]
    commands += [["score", *one, "--images=[a.png]"], ["show", *one, "--num_images=4"], ["download", *one]]
    Image.new("L", (28, 28)).save("a.png")
    for said in both(with_inverter, *commands * times):
        assert "Traceback" not in said
        errors = [line for line in said.splitlines() if line.startswith("error: ")]
        assert all("another process is training" in line for line in errors), errors
        assert said.count("status 1 of fit") == len(errors) == said.count("status")
    (run,) = runs_under([Path("runs", INVERTER)])
    assert run.log_prob.mean() == pytest.approx(run.result.nce_nats)
    assert run.samples
    assert run.nearest(run.rows(DistancesResult)[0])
    assert Path("runs/report.html").is_file()
    assert not list(Path("runs").glob("*/*/.*.????????"))


def test_a_file_system_without_locks_is_said_once_and_a_run_ends_well(with_classifier, monkeypatch, capsys):
    numbers = itertools.cycle((errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK))  # of Lustre, and of two kinds of NFS

    def flock(handle, operation):
        raise OSError(next(numbers), "no locks")

    monkeypatch.setattr(files.fcntl, "flock", flock)
    monkeypatch.setattr(files, "WITHOUT_LOCKS", set())
    main(["fit", *SHORTER])
    said = capsys.readouterr().out
    assert said.count("has no locks; start no two commands of one run at a time") == 1
    assert result()["num_images"] == 10
