"""What can go wrong gives one clear sentence and a non-zero exit, and nothing is lost."""

import os
import resource
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from dataset_files import write_images
from small_runs import CLI, SHORT, checkpoint_of, command, failure, result, run_with_results, started

from cli import main
from datamodules.mnist import MNIST5kDataModule
from inverters import Inverter
from runtime.checkpoints import load_checkpoint
from runtime.files import replacing


@contextmanager
def largest_file(num_bytes):
    """What a full disk does to a process, for its own files."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_checkpoint_of_an_old_version_can_be_tested_but_not_resumed(with_inverter, capsys):
    checkpoint = torch.load(checkpoint_of(), weights_only=True)
    del checkpoint["random_states"]
    torch.save(checkpoint, "old.ckpt")
    message = failure(capsys, "fit", *SHORT, "--trainer.max_steps=3", "--ckpt_path=old.ckpt")
    assert "old.ckpt cannot be resumed: it has no random_states, as one of a version before 0.4" in message
    main(["test", *SHORT, "--ckpt_path=old.ckpt"])


def flipped(content):
    return content[: len(content) // 2] + bytes([content[len(content) // 2] ^ 1]) + content[len(content) // 2 + 1 :]


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (flipped, "its checksum of"),
        (lambda content: content[: len(content) // 2], "damaged.ckpt"),
        (lambda content: b"nothing of the kind", "damaged.ckpt"),
    ],
)
def test_a_damaged_or_foreign_file_is_not_taken_for_a_checkpoint(with_inverter, capsys, damage, expected):
    Path("damaged.ckpt").write_bytes(damage(checkpoint_of(kind="best").read_bytes()))
    assert expected in failure(capsys, "test", *SHORT, "--ckpt_path=damaged.ckpt")


class Pickle:
    """Executes a command where it is unpickled."""

    def __reduce__(self):
        return os.system, ("touch executed",)


@pytest.mark.parametrize("arguments", [["--ckpt_path=evil.ckpt"], ["--classifier=evil.ckpt"]])
def test_a_pickle_is_refused_and_never_executed(with_inverter, capsys, arguments):
    torch.save({"state_dict": {}, "architecture": Pickle()}, "evil.ckpt")
    assert "evil.ckpt is no checkpoint, or holds objects" in failure(
        capsys, "fit", *SHORT, "--trainer.max_steps=3", *arguments
    )
    assert not Path("executed").exists()
    torch.load("evil.ckpt", weights_only=False)
    assert Path("executed").exists()  # so it was a pickle that does


VERBS = (
    ["fit", "--trainer.max_steps=3"], ["test"], ["validate"], ["predict"], ["sample"], ["distances"], ["estimators"],
    ["score", "--images=[a.png]"],
)  # fmt: skip


@pytest.mark.parametrize(
    ("key", "was", "now", "verbs"), [("seed", "0", "1", VERBS), ("num_train", "100", "200", VERBS[:2])]
)
def test_a_checkpoint_is_not_asked_about_images_that_lie_elsewhere(with_inverter, capsys, key, was, now, verbs):
    """It may have been trained on those that it would be tested on."""
    Path("a.png").touch()
    for verb, *more in verbs:
        ckpt_path = "--ckpt_path=last" if verb == "fit" else "--ckpt_path=best"
        message = failure(capsys, verb, *SHORT, *more, f"--data.{key}={now}", ckpt_path)
        assert f"was trained with --data.{key} {was}, not {now}, which" in message


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["fit", "--model.muon=-1"], "model.muon is -1; give more than 0 and less than 1"),
        (["fit", "--model.muon=much"], 'model.muon is "much"; give null or a number'),
        (["fit", "--model.cooldown=nan"], "model.cooldown is nan; give at least 0 and at most 1"),
        (["fit", "--data.batch_size=0"], "batch_size is 0; give at least 1"),
        (["fit", "--model.density.num_filters=0"], "num_filters is 0; give at least 1"),
        (["fit", "--num_agreement=0"], "num_agreement is 0; give at least 1"),
        (["fit", "--sample_grid.num_images=-1"], "sample_grid.num_images is -1; give at least 0"),
        (["fit", "--sample_grid.every_n_steps=0"], "sample_grid.every_n_steps is 0; give at least 1"),
        (["fit", "--patience=0"], "patience is 0; give at least 1"),
        (["fit", "--trainer.max_steps=0"], "trainer.max_steps is 0; give the number of steps"),
        (["fit", "--trainer.max_steps=-1"], "trainer.max_steps is -1; give the number of steps"),
        (["fit", "--trainer.max_epochs=0"], "give the number of steps"),
        (["fit", "--trainer.val_check_interval=0"], "trainer.val_check_interval is 0, so that there would be nothing"),
        (["fit", "--trainer.limit_val_batches=0"], "trainer.limit_val_batches is 0, so that there would be nothing"),
        (["test", "--trainer.limit_test_batches=0"], "trainer.limit_test_batches is 0, so that there would be nothing"),
        (["fit", "--trainer.accumulate_grad_batches=2"], "data.batch_size is the whole batch of a step"),
        (["fit", "--trainer.precision=bf16-true"], "trainer.precision is bf16-true, in which weights"),
        (["test", "--trainer.precision=16-true"], "would be rounded; give bf16-mixed"),
        (["fit", "--trainer.devices=abc"], "change one of trainer.accelerator cpu, trainer.devices abc"),
        (["fit", "--trainer.devices=0"], "change one of trainer.accelerator cpu, trainer.devices 0"),
        (["fit", "--trainer.strategy=dpp"], "trainer.strategy dpp"),
        (["sample", "--num_images=0"], "num_images is 0; give at least 1"),
        (["sample", "--num_draws=-1"], "num_draws is -1; give at least 1"),
        (["distances", "--num_candidates=5"], "num_candidates is 5; give at least 6"),
        (["score", "--images=[]"], "no images to score; give --images"),
    ],
)
def test_a_number_that_cannot_be_is_refused_at_once(with_inverter, capsys, arguments, expected):
    verb, argument = arguments
    small = [word for word in SHORT if word.split("=")[0] != argument.split("=")[0]]
    before = sorted(Path("runs/inverter_mnist5k_fc3").iterdir())
    assert expected in failure(capsys, verb, *small, argument)
    assert sorted(Path("runs/inverter_mnist5k_fc3").iterdir()) == before  # no folder is left


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "holds no keys"),
        (b"5\n", "holds no keys"),
        (b"- a\n", "holds no keys"),
        (b"model:\n\tlayer: fc3\n", "cannot be read in line 2: found character '\\t' that cannot start any token"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b"a:\n  b: 1\n  b: 2\n", "cannot be read in line 3: b stands there a second time; keep one of both"),
    ],
)
def test_a_config_that_cannot_be_read_is_named(tmp_path, monkeypatch, capsys, content, expected):
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_bytes(content)
    message = failure(capsys, "fit", "--config=mine.yaml")
    assert "the config mine.yaml" in message
    assert expected in message


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["fit"], "fit needs a config: python cli.py fit --config NAME;"),
        (["fit", "inverter_mnist5k_fc3.yaml"], "python cli.py fit --config inverter_mnist5k_fc3.yaml"),
        (["fti", *SHORT], "no verb 'fti'; did you mean 'fit'?"),
        (["repotr"], "no verb 'repotr'; did you mean 'report'?"),
        ([*SHORT, "fit"], "the first word is one of fit,"),
        (["show", *SHORT, "--ckpt_path=best"], "no key --ckpt_path for show; python cli.py show --help"),
        (["fit", "--config=a_folder"], "the config a_folder is a folder"),
        (["fit", *SHORT, "--classifier=classifier_mnst5k"], "did you mean classifier_mnist5k.yaml?"),
        (["fit", *SHORT, "--trainer.default_root_dir=a_file"], "cannot make the folder a_file/"),
        (["fit", *SHORT, "--model.layer=conv9"], "no layer 'conv9' in this ConvNet; did you mean conv2 or conv1"),
        (["report", "--output=a_folder"], "a_folder is there and is no file; give another place to write to"),
        (["report", "--output=a_file/report.html"], "cannot write a_file/report.html"),
    ],
)
def test_what_a_new_user_types_is_answered_with_the_remedy(with_inverter, capsys, arguments, expected):
    Path("a_folder").mkdir()
    Path("a_file").touch()
    before = sorted(path for path in Path("runs").rglob("*") if path.name != "last_error.txt")
    assert expected in failure(capsys, *arguments)
    if arguments[0] != "report":
        assert sorted(path for path in Path("runs").rglob("*") if path.name != "last_error.txt") == before


def test_a_device_is_not_replaced_by_a_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileExistsError, match="pipe is there and is no file"), replacing(tmp_path / "pipe"):
        pass
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.parametrize("seconds", [0.3, 1.5, 3.0])
def test_ctrl_c_while_libraries_are_imported_is_answered_without_a_traceback(tmp_path, seconds):
    with started(tmp_path, "report", stderr=subprocess.PIPE) as run:
        time.sleep(seconds)
        run.send_signal(signal.SIGINT)
        _, said = run.communicate(timeout=60)
    assert "Traceback" not in said
    # 1 where it had ended by itself, as there are no runs; and while Python takes itself down, a signal ends it as a
    # program without handlers, which a shell calls 130 too.
    assert run.returncode in (1, 130, -signal.SIGINT)


def test_ctrl_c_in_the_middle_of_an_import_ends_it_there_and_is_no_exception(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")  # each module is said once it is imported
    with started(tmp_path, "report", stderr=subprocess.PIPE) as run:
        next(line for line in run.stderr if "torch." in line)
        run.send_signal(signal.SIGINT)
        said = run.stderr.read()
    assert run.returncode == 130
    assert "interrupted" not in said  # as an exception would have been answered
    assert "Traceback" not in said


def test_a_trained_classifier_is_found_though_its_config_lies_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("elsewhere").mkdir()
    shutil.copy(CLI.parent / "configs" / "classifier_mnist5k.yaml", "elsewhere/classifier_own.yaml")
    main(["fit", "--config=elsewhere/classifier_own.yaml", "--trainer.max_steps=2"])
    main(["fit", *SHORT, "--trainer.max_steps=1", "--classifier=classifier_own"])
    assert result()["classifier"] == "classifier_own"


def test_auto_begins_a_training_and_nothing_else(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("a.png").touch()
    for verb, *more in VERBS[1:]:
        message = failure(capsys, verb, *SHORT, *more, "--ckpt_path=auto")
        assert "no last checkpoint in runs/inverter_mnist5k_fc3; make one with" in message


def test_a_full_disk_leaves_the_last_checkpoint_whole(with_inverter, capsys):
    path = checkpoint_of()
    before = path.read_bytes()
    with largest_file(300_000):
        message = failure(capsys, "fit", *SHORT, "--trainer.max_steps=4", "--ckpt_path=last")
    assert "no room to write" in message
    assert ".ckpt (File too large); the file that was there is kept; make room there" in message
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir() if file.name.startswith(".")] == []
    main(["fit", *SHORT, "--trainer.max_steps=4", "--ckpt_path=last"])
    assert load_checkpoint(path)["global_step"] == 4


def test_a_full_disk_leaves_results_as_they_were(with_inverter, capsys):
    folder = run_with_results()
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    with largest_file(20_000):
        message = failure(capsys, "test", *SHORT, "--trainer.limit_test_batches=2")
    assert "log_prob_per_pixel.npy (File too large); the file that was there is kept" in message
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    main(["test", *SHORT, "--trainer.limit_test_batches=2"])
    assert np.load(folder / "index.npy").shape == (20,)


def test_a_full_disk_stops_a_cache(with_inverter, capsys):
    with largest_file(300_000):
        more = ["--data.num_train=1000", "--cache_activations=float32"]
        message = failure(capsys, "fit", *SHORT, "--trainer.max_steps=1", *more)
    assert "no room to write" in message
    assert not list(Path("runs/activations").glob("*.npy"))


@pytest.mark.slow
def test_a_disk_that_is_really_full(with_inverter, capsys):
    """A small file system of its own; mounting it needs root."""
    Path("runs").rename("before")
    Path("runs").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20M", "none", "runs"], check=True)
    try:
        shutil.copytree("before", "runs", symlinks=True, dirs_exist_ok=True)
        path = checkpoint_of()
        before = path.read_bytes()
        with suppress(OSError):
            Path("runs/filling").write_bytes(bytes(20_000_000))
        message = failure(
            capsys, "fit", *SHORT, "--trainer.max_steps=4", f"--ckpt_path={path}", "--trainer.logger=false"
        )
        assert "No space left on device" in message
        assert path.read_bytes() == before
        Path("runs/filling").unlink()
        main(["fit", *SHORT, "--trainer.max_steps=4", f"--ckpt_path={path}", "--trainer.logger=false"])
        assert load_checkpoint(path)["global_step"] == 4
    finally:
        subprocess.run(["umount", "runs"], check=True)


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_good_checkpoint(with_inverter, capsys):
    message = failure(capsys, "fit", *SHORT, "--trainer.max_steps=50", "--model.lr=1e30")
    assert "NaN or infinite at step" in message
    assert "most likely the learning rate 1e+30 is too high: lower --model.lr" in message
    runs = list(Path("runs/inverter_mnist5k_fc3").glob("*/checkpoints/*.ckpt"))
    for path in runs:
        values = load_checkpoint(path)["state_dict"].values()
        assert all(value.isfinite().all() for value in values if value.is_floating_point())


def test_infinite_activations_are_laid_to_the_classifier(with_inverter, capsys):
    checkpoint = torch.load(checkpoint_of("classifier_mnist5k", "best"), weights_only=True)
    checkpoint["state_dict"]["network.fc3.1.weight"].fill_(3e38)  # a number, but no sum of them
    del checkpoint["fingerprint"]  # of other weights
    torch.save(checkpoint, "diverged.ckpt")
    message = failure(capsys, "fit", *SHORT, "--trainer.max_steps=1", "--classifier=diverged.ckpt")
    assert "layer fc3 gives NaN or infinity on training images: its network has diverged" in message


def by_itself(*arguments, **environment):
    """A command in a process of its own, for which WANDB_MODE decides nothing; what it said."""
    said = command(Path(), *arguments, WANDB_MODE=None, **environment)
    assert "Traceback" not in said
    return said


def test_wandb_that_cannot_be_reached_stops_nothing(with_inverter):
    said = by_itself(
        "fit", *SHORT, "--trainer.max_steps=1", WANDB_API_KEY=40 * "a", WANDB_INIT_TIMEOUT="3",
        WANDB_BASE_URL="http://127.0.0.1:9",  # where nothing listens
    )  # fmt: skip
    assert "Weights & Biases cannot be reached" in said
    assert "upload later: wandb sync runs/inverter_mnist5k_fc3/" in said
    assert len(list(Path("runs/inverter_mnist5k_fc3").glob("*/wandb/offline-run-*-offline"))) == 1


def test_wandb_that_fails_in_the_middle_stops_nothing(with_inverter):
    callback = "[{class_path: signal_at.KillWandb, init_args: {step: 2}}]"
    said = by_itself("fit", *SHORT, "--trainer.max_steps=4", f"--trainer.callbacks={callback}")
    assert "Weights & Biases failed" in said
    assert len(list(Path("runs", "inverter_mnist5k_fc3").glob("*/results.json"))) == 2  # with that of the fixture


def test_sides_must_be_multiples_of_4(with_inverter, capsys):
    write_images(Path("pictures"), {"train/a": 10, "train/b": 10, "test/a": 10, "test/b": 10})
    arguments = ["--config=inverter_images.yaml", "--data.path=pictures", "--data.side=30"]
    message = failure(capsys, "fit", *arguments)
    assert "its sides must be multiples of 4, not 30x30" in message


def test_a_single_test_image_has_a_result_without_an_error_bar(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_images(Path("pictures"), {"train/a": 20, "train/b": 20, "test/a": 1})
    arguments = [
        "--config=unconditional_cifar.yaml", "--data=ImageFolderDataModule", "--data.path=pictures", "--data.side=8",
        "--data.batch_size=4", "--model.density.num_filters=4", "--model.density.num_layers=1", "--trainer.max_steps=1",
        "--trainer.accelerator=cpu", "--sample_grid.num_images=1", "--sample_grid.num_draws=1",
    ]  # fmt: skip
    main(["fit", *arguments])
    row = result("unconditional_cifar")
    assert row["num_images"] == 1
    assert row["nce_nats_se"] is None


def test_more_processes_than_images_are_refused():
    data = MNIST5kDataModule(batch_size=501)
    data.trainer = SimpleNamespace(world_size=501, global_rank=0)
    with pytest.raises(
        ValueError, match="the val split of mnist5k has 500 images for 501 processes; start at most 500"
    ):
        data.setup("fit")


def test_a_test_that_gets_a_signal_ends_at_once(with_inverter, monkeypatch):
    monkeypatch.setattr(Inverter, "test_step", lambda *_: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(SystemExit) as caught:
        main(["test", *SHORT])
    assert caught.value.code == 128 + signal.SIGTERM
