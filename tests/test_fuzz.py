"""Mutated checkpoints, configs and data files: a result or one sentence; nothing hangs, nothing is executed.

Each kind is a fixed number of mutations, a function of a seed. INVERTERS_FUZZ=N does N times as many.
"""

import os
import random
import signal
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from dataset_files import loaded, write_data_sets
from small_runs import ROOT, SHORT, checkpoint_of
from test_affnist import write_official

from cli import main
from datamodules.affnist import AffNISTDataModule
from datamodules.image_folder import ImageFolderDataModule
from evaluations.report.tested_runs import runs_under
from runtime.checkpoints import load_checkpoint

TIMES = int(os.environ.get("INVERTERS_FUZZ", "1"))
INVERTER = [*SHORT, "--sample_grid.num_images=0", "--trainer.logger=false", "--trainer.enable_progress_bar=false"]


class Hang(BaseException):
    """Not an Exception, which would be answered with a sentence."""


def stop(number, frame):
    raise Hang


@contextmanager
def at_most(seconds):
    """A mutation that makes something wait ends the test."""
    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


ODD = (b"\0\0\0\0", b"\xff" * 8, b"!!python/object/apply:os.system", b"1e400", b"\n- ")


def mutated(content, generator):
    """Bytes with some of them flipped, cut out, doubled, replaced or moved."""
    data = bytearray(content)
    for _ in range(generator.randint(1, 4)):
        start = generator.randrange(len(data) + 1)
        length = generator.choice((1, 2, 8, 100))
        kind = generator.randrange(6)
        if kind == 0 and start < len(data):
            data[start] ^= 1 << generator.randrange(8)
        elif kind == 1:
            del data[start : start + length]
        elif kind == 2:
            data[start:start] = data[start : start + length]
        elif kind == 3:
            data[start : start + length] = generator.randbytes(length)
        elif kind == 4:
            del data[start:]
        else:
            data[start:start] = generator.choice(ODD)
    return bytes(data)


def answered(capsys, *arguments):
    """Whether a command came to its end; otherwise it said one sentence, which knows what it is about."""
    try:
        with at_most(60):
            main(list(arguments))
        return True
    except SystemExit as caught:
        if caught.code in (0, None):
            return True
    said = capsys.readouterr().err
    assert sum(line.startswith("error: ") for line in said.splitlines()) == 1, said
    assert "Traceback" not in said
    assert "should not happen" not in said
    return False


def refusals(paths, seed, count, read):
    """What `read` says where one of these files is mutated, each time another one."""
    generator, said = random.Random(seed), []
    for _ in range(count):
        path = generator.choice(paths)
        content = path.read_bytes()
        path.write_bytes(mutated(content, generator))
        try:
            with at_most(60):
                read()
        except (OSError, ValueError) as error:
            said.append(str(error))
        finally:
            path.write_bytes(content)
    return said


def test_a_mutated_checkpoint_file_is_refused_or_the_same(with_inverter):
    path = checkpoint_of()
    expected = load_checkpoint(path)["state_dict"]

    def read():
        found = load_checkpoint(path)["state_dict"]
        assert all(torch.equal(found[name], value) for name, value in expected.items())

    refused = refusals([path], 0, 300 * TIMES, read)
    assert len(refused) > 200 * TIMES
    assert all("last.ckpt" in message for message in refused)


def mutate_value(checkpoint, generator):
    """Replace or take away something inside a checkpoint."""
    place = checkpoint
    while True:
        keys = list(place.keys() if isinstance(place, dict) else range(len(place)))
        key = generator.choice(keys)
        inner = place[key]
        if isinstance(inner, dict | list) and inner and generator.random() < 0.8:
            place = inner
            continue
        if generator.random() < 0.4:
            del place[key]
        else:
            place[key] = generator.choice((None, -1, "text", [], {}, float("nan"), torch.zeros(2), True))
        return


def test_a_checkpoint_with_other_contents_is_answered(with_inverter, capsys):
    path = checkpoint_of()
    generator = random.Random(1)
    for _ in range(30 * TIMES):
        checkpoint = torch.load(path, weights_only=True)
        mutate_value(checkpoint, generator)
        torch.save(checkpoint, "mutated.ckpt")
        verb = generator.choice((["fit", "--trainer.max_steps=2", "--test_after_fit=false"], ["test"]))
        answered(capsys, verb[0], *INVERTER, *verb[1:], "--ckpt_path=mutated.ckpt")


@pytest.mark.parametrize("name", ["inverter_mnist5k_fc3", "classifier_svhn", "world_markov"])
def test_a_mutated_config_is_answered(with_inverter, capsys, name):
    content = (ROOT / "configs" / f"{name}.yaml").read_bytes()
    generator = random.Random(2)
    for _ in range(25 * TIMES):
        Path("mutated.yaml").write_bytes(mutated(content, generator))
        answered(capsys, "fit", "--config=mutated.yaml", "--print_config")


def test_a_mutated_config_that_can_be_read_trains_or_is_answered(with_inverter, capsys):
    """With the command line's own sizes, which win over the config's: a run stays small."""
    content = (ROOT / "configs" / "inverter_mnist5k_fc3.yaml").read_bytes()
    generator = random.Random(5)
    small = [word for word in INVERTER if not word.startswith("--config")]
    trained = 0
    for _ in range(15 * TIMES):
        Path("mutated.yaml").write_bytes(mutated(content, generator))
        more = ["--trainer.max_steps=1", "--test_after_fit=false", "--train_classifier=false"]
        trained += answered(capsys, "fit", "--config=mutated.yaml", *small, *more)
    assert trained


DATA = {
    "affNIST": lambda: AffNISTDataModule("data", val_split=10, source="official"),
    "pictures.zip": lambda: ImageFolderDataModule("pictures.zip", side=8),
}


@pytest.mark.parametrize("name", DATA)
def test_mutated_data_is_answered(tmp_path, monkeypatch, name):
    """Of what has no published checksum, which would refuse every one."""
    monkeypatch.chdir(tmp_path)
    write_data_sets(tmp_path, monkeypatch)
    write_official(tmp_path / "data")
    places = [path for path in (*tmp_path.rglob("*"),) if path.is_file() and name in str(path.relative_to(tmp_path))]
    assert places

    refused = refusals(places, 3, 40 * TIMES, lambda: loaded(DATA[name]()))
    assert refused
    assert all(refused)


def test_mutated_results_are_answered(with_inverter):
    files = [path for path in Path("runs").glob("*/*") if path.suffix in (".json", ".npy", ".npz")]
    refused = refusals(files, 4, 60 * TIMES, lambda: runs_under([Path("runs")]))
    assert refused
    assert all(refused)


def test_nothing_was_executed(tmp_path, monkeypatch, capsys):
    """Configs that ask for it; test_faults.py and test_image_folder.py have checkpoints and zips that do."""
    monkeypatch.chdir(tmp_path)
    Path("evil.yaml").write_text("model: !!python/object/apply:os.system ['touch executed']\n")
    assert not answered(capsys, "fit", "--config=evil.yaml")
    Path("evil.yaml").write_text("model: {class_path: os.system, init_args: {command: touch executed}}\n")
    assert not answered(capsys, "fit", "--config=evil.yaml")
    assert not Path("executed").exists()
