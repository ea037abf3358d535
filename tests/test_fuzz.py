"""Mutated checkpoints, configs and data files: a result or one sentence; nothing hangs, nothing is executed.

Each kind is a fixed number of mutations, a function of a seed. INVERTERS_FUZZ=N does N times as many.
"""

import io
import json
import os
import random
import resource
import signal
import time
import traceback
import warnings
import zipfile
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import torch
from dataset_files import write_data_sets
from digests import tensors
from small_runs import ROOT, SHORT
from test_affnist import write_official
from test_report import all_runs  # noqa: F401 - a fixture

from cli import main
from datamodules.affnist import AffNISTDataModule
from datamodules.image_folder import ImageFolderDataModule
from evaluations.report import sections
from evaluations.report.page import page
from evaluations.report.tested_runs import runs_under
from inverters.networks import ConvNet
from inverters.representation import Representation
from runtime.activations import cached_activations
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


def in_child(work, seconds=60, memory=2**31):
    """What `work` gives as text, or refuses with a sentence: "refused: ...", in a process of its own with limits.

    Raises:
        AssertionError: It died, ran out of time or memory, or raised another error than those of a user.
    """
    read, write = os.pipe()
    process = os.fork()
    if process == 0:
        space = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (space + memory, space + memory))
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        warnings.simplefilter("ignore")
        try:
            text = str(work())
        except (OSError, ValueError) as error:
            text = f"refused: {error}"
        except BaseException:
            text = f"failed: {traceback.format_exc()}"
        os.write(write, text.encode(errors="replace")[-60_000:])
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as file:
        text = file.read().decode(errors="replace")
    _, status = os.waitpid(process, 0)
    assert status == 0, f"died with status {os.waitstatus_to_exitcode(status)}"
    assert not text.startswith("failed: "), text
    return text


def command(*arguments):
    """What a command said, in the order of its streams, and after it its exit status."""
    said = io.StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        try:
            main(list(arguments))
            status = 0
        except SystemExit as caught:
            status = caught.code or 0
    return f"{said.getvalue()}\n{status}"


def refusal(said):
    """The one sentence of a command that failed; None of one that came to its end."""
    text, _, status = said.rpartition("\n")
    if status == "0":
        return None
    errors = [line for line in text.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, text
    assert "Traceback" not in text, text
    assert "should not happen" not in text, text
    return errors[0]


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


def last_checkpoint():
    (path,) = Path("runs/inverter_mnist5k_fc3").glob("*/checkpoints/last.ckpt")
    return path


def test_a_mutated_checkpoint_file_is_refused_or_the_same(with_inverter):
    content, expected = last_checkpoint().read_bytes(), load_checkpoint(last_checkpoint())["state_dict"]
    generator, refused = random.Random(0), 0

    def same():
        found = load_checkpoint("mutated.ckpt")["state_dict"]
        return all(torch.equal(found[name], value) for name, value in expected.items())

    for _ in range(300 * TIMES):
        Path("mutated.ckpt").write_bytes(mutated(content, generator))
        said = in_child(same)
        assert said == "True" or (said.startswith("refused: ") and "mutated.ckpt" in said), said
        refused += said != "True"
    assert refused > 200 * TIMES


def test_a_mutated_pickle_in_a_whole_file_is_refused_or_loaded(with_inverter):
    """With checksums that fit, as one has who writes it by hand."""
    checkpoint = load_checkpoint(last_checkpoint())
    torch.save({key: checkpoint[key] for key in ("state_dict", "optimizer_states", "loops", "callbacks")}, "small.ckpt")
    generator, refused = random.Random(6), 0
    with zipfile.ZipFile("small.ckpt") as archive:
        files = {file.filename: archive.read(file) for file in archive.infolist()}
    for _ in range(200 * TIMES):
        with zipfile.ZipFile("mutated.ckpt", "w") as archive:
            for name, content in files.items():
                archive.writestr(name, mutated(content, generator) if name.endswith("data.pkl") else content)
        said = in_child(lambda: len(load_checkpoint("mutated.ckpt")))
        assert not said.startswith("refused: ") or "mutated.ckpt" in said, said
        refused += said.startswith("refused: ")
    assert refused > 100 * TIMES


def mutate_value(place, generator, values):
    """Replace or take away something inside a nesting of dictionaries and lists; what was done."""
    path = []
    while True:
        keys = list(place.keys() if isinstance(place, dict) else range(len(place)))
        key = generator.choice(keys)
        path.append(str(key))
        inner = place[key]
        if isinstance(inner, dict | list) and inner and generator.random() < 0.8:
            place = inner
            continue
        if generator.random() < 0.4:
            del place[key]
            return f"without {'/'.join(path)}"
        place[key] = generator.choice(values)
        return f"{'/'.join(path)} is {place[key]!r}"


IN_CHECKPOINTS = (
    None, -1, 2**70, "text", [], {}, float("nan"), float("inf"), 1e30, torch.zeros(2), torch.zeros(()),
    torch.tensor(torch.nan), torch.zeros(2, 3, 4), torch.zeros(1).expand(10**10), torch.zeros(1, device="meta"), True,
)  # fmt: skip


def weights(path):
    """All tensors that a training depends on, by name."""
    saved = torch.load(path, weights_only=True)
    kept = {key: saved[key] for key in ("state_dict", "current_model_state", "averaging_state", "optimizer_states")}
    return {name: value for name, value in tensors(kept) if isinstance(value, torch.Tensor)}


def test_a_checkpoint_with_other_contents_is_refused_or_trains_the_same(with_inverter):
    """Or says that the command line has changed what it asks for."""
    generator = random.Random(1)
    resume = ["fit", *INVERTER, "--trainer.max_steps=3", "--test_after_fit=false", "--ckpt_path=mutated.ckpt"]
    checkpoint = torch.load(last_checkpoint(), weights_only=True)
    torch.save(checkpoint, "mutated.ckpt")

    def trained(verb):
        root = f"--trainer.default_root_dir=again_{time.monotonic_ns()}"
        said = command(*(resume if verb == "fit" else ["test", *INVERTER, "--ckpt_path=mutated.ckpt"]), root)
        (Path("said.txt")).write_text(said)
        return root.partition("=")[2]

    (whole,) = Path(in_child(lambda: trained("fit"))).glob("*/*/checkpoints/last.ckpt")
    expected = weights(whole)
    for _ in range(30 * TIMES):
        checkpoint = torch.load(last_checkpoint(), weights_only=True)
        place = generator.choice((checkpoint, checkpoint["optimizer_states"], checkpoint["callbacks"]))
        change = mutate_value(place, generator, IN_CHECKPOINTS)
        torch.save(checkpoint, "mutated.ckpt")
        verb = generator.choice(("fit", "fit", "test"))
        root = in_child(lambda verb=verb: trained(verb))
        said = Path("said.txt").read_text()
        if refusal(said) is None and verb == "fit":
            (last,) = Path(root).glob("*/*/checkpoints/last.ckpt")
            found = weights(last)
            same = found.keys() == expected.keys() and all(torch.equal(found[k], expected[k]) for k in expected)
            assert same or "as before" in said or "dropout will differ" in said, change


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

    def read():
        data = DATA[name]()
        data.prepare_data()
        data.setup("fit")

    refused = refusals(places, 3, 40 * TIMES, read)
    assert refused
    assert all(refused)


IN_RESULTS = (None, -1, 10**400, "text", [], [[[]]], {}, {"a": 1}, 1e308, True, "$x^$", "\\udc80", "<b>")
ARRAYS = (
    np.zeros(0), np.zeros((2, 2, 2, 2)), np.array("text"), np.array([None]), np.full(3, np.nan), np.zeros(3, "c16"),
    np.arange(20)[::-1], np.zeros(2, [("a", "f8")]), np.zeros((20, 8, 8), "f2"), np.array([2**63], "u8"),
)  # fmt: skip


def mutate_results(path, generator):
    """Something else in a file of results, of the same form."""
    if path.suffix == ".json":
        found = [json.loads(path.read_text())]
        mutate_value(found, generator, IN_RESULTS)
        path.write_text(json.dumps(found[0] if found else None))
    elif path.suffix == ".npy":
        np.save(path, generator.choice(ARRAYS))
    else:
        arrays = dict(np.load(path))
        arrays[generator.choice([*arrays])] = generator.choice(ARRAYS)
        np.savez(path, **arrays)


def test_results_with_other_contents_are_answered(all_runs):  # noqa: F811 - the fixture
    """In a report, which reads all of them."""
    files = sorted(path for path in all_runs.rglob("*") if path.suffix in (".json", ".npy", ".npz"))
    generator = random.Random(7)
    for _ in range(20 * TIMES):
        path = generator.choice(files)
        content = path.read_bytes()
        mutate_results(path, generator)
        try:
            in_child(lambda: page("a title", sections(runs_under([all_runs]), [])))
        except AssertionError as error:
            raise AssertionError(f"{path.name}: {path.read_bytes()[:2000]!r}") from error
        finally:
            path.write_bytes(content)


def test_a_mutated_cache_is_made_again(tmp_path):
    representation = Representation(ConvNet((1, 16, 16), 10, filters=(3, 4), num_hidden=6), "fc3")
    images = torch.randint(256, (9, 1, 16, 16), dtype=torch.uint8)
    expected = np.array(cached_activations(representation, images, "train", tmp_path))
    (path,) = tmp_path.glob("*.npy")
    generator = random.Random(8)
    for _ in range(50 * TIMES):
        path.write_bytes(mutated(path.read_bytes(), generator))
        made = in_child(lambda: (cached_activations(representation, images, "train", tmp_path) == expected).all())
        assert made == "True"


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
