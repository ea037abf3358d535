"""Mutated checkpoints, configs and data files: a result or one sentence; nothing hangs, nothing is executed.

Each kind is a fixed number of mutations, a function of a seed. INVERTERS_FUZZ=N does N times as many.
"""

import copy
import io
import os
import pickle
import random
import re
import tempfile
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import yaml
from dataset_files import write_data_sets
from PIL import Image
from scipy.io import loadmat, savemat
from small_runs import ROOT, SHORT, at_most
from test_affnist import write_official
from test_pictures import of_size

from cli import main
from commands.score import load_images
from datamodules import AffNISTDataModule, CIFAR10DataModule, ImageFolderDataModule, MNISTDataModule, SVHNDataModule
from datamodules.pictures import decoded
from evaluations.report.tested_runs import runs_under

TIMES = int(os.environ.get("INVERTERS_FUZZ", "1"))
INVERTER = [*SHORT, "--sample_grid.num_images=0", "--trainer.logger=false", "--trainer.enable_progress_bar=false"]


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


EXTREMES = (0, 1, 2, 7, 8, 9, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
# Where headers begin, beside the start of a file.
HEADERS = re.compile(rb"PK..|IHDR|PLTE|tRNS|IDAT|eXIf|Exif|\xff[\xc0-\xfe]|VP8.|ANMF|\x21\xf9|\x2c")


def restructured(content, generator):
    """Bytes with a length, a type or a dimension in a header changed; the checksums of a PNG are right again."""
    data = bytearray(content)
    places = [found.start() for found in HEADERS.finditer(content)]
    for _ in range(generator.randint(1, 3)):
        near, width = generator.choice((generator.choice(places or [0]), 0, 128)), generator.choice((1, 2, 4))
        start = near + generator.randrange(48)  # 128: of a .mat
        if start + width <= len(data):
            value = generator.choice((*EXTREMES, data[start] + 1)) % 256**width
            data[start : start + width] = value.to_bytes(width, generator.choice(("big", "little")))
    place = 8
    while data.startswith(b"\x89PNG") and place + 12 <= len(data):
        end = place + 8 + int.from_bytes(data[place : place + 4])
        data[end : end + 4] = zlib.crc32(data[place + 4 : end]).to_bytes(4)
        place = end + 4
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


def refusals(paths, seed, count, read, change=mutated, num_bytes=None):
    """What `read` says where one of these files is changed, each time another one."""
    generator, said = random.Random(seed), []
    for _ in range(count):
        path = generator.choice(paths)
        content = path.read_bytes()
        changed = change(content, generator)
        path.write_bytes(changed)
        try:
            with at_most(60, num_bytes):
                read()
        except (OSError, ValueError) as error:
            said.append(str(error))
        except BaseException:
            (KEPT / path.name).write_bytes(changed)
            raise
        finally:
            path.write_bytes(content)
    return said


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


OTHER_VALUES = (
    None, True, 0, 1, -1, 1.5, 10**30, float("nan"), "text", "", "os.system", [], [1], [[]], ["text", None], {},
    {"a": 1}, {1: 2}, {None: None}, {"class_path": "text"}, {"class_path": 5}, {"init_args": 5}, {"class_path": None},
    {"class_path": "os.system", "init_args": {"command": "touch executed"}}, {"class_path": "ConvNet", "init_args": []},
)  # fmt: skip


def places_in(value, before=(), classes=()):
    """Every path into nested values, with the classes on its way."""
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        of = (*classes, value["class_path"]) if key == "init_args" else classes
        yield (*before, key), of
        yield from places_in(value[key], (*before, key), of)


def other_configs():
    """Every config of embedded data with another value, or none, at every place, each combination once."""
    found = {}
    for path in sorted((ROOT / "configs").glob("*.yaml")):
        if not any(part in path.stem for part in ("mnist5k", "photos", "world")):
            continue
        config = yaml.safe_load(path.read_text())
        for place, classes in places_in(config):
            for i in range(len(OTHER_VALUES) + 1):
                found.setdefault((place, classes, i), config)
    return [(config, place, i) for (place, _, i), config in found.items()]


def write_other_config(config, place, i):
    config = copy.deepcopy(config)
    inner = config
    for key in place[:-1]:
        inner = inner[key]
    if i < len(OTHER_VALUES):
        inner[place[-1]] = OTHER_VALUES[i]
    else:
        del inner[place[-1]]
    Path("mutated.yaml").write_text(yaml.safe_dump(config, sort_keys=False))


def test_a_config_with_another_value_anywhere_is_answered(tmp_path, monkeypatch, capsys):
    """Up to a model, data and a trainer that are made; all of them at INVERTERS_FUZZ=100."""
    monkeypatch.chdir(tmp_path)
    every = other_configs()
    for config, place, i in random.Random(6).sample(every, min(40 * TIMES, len(every))):
        write_other_config(config, place, i)
        answered(capsys, "download", "--config=mutated.yaml", "--trainer.accelerator=cpu")
    assert not Path("executed").exists()


GB = 2**30
KEPT = Path(tempfile.gettempdir())  # for the file that was not answered
DATA = {
    "affNIST": lambda: AffNISTDataModule("data", val_split=10, source="official"),
    "pictures.zip": lambda: ImageFolderDataModule("pictures.zip", side=8),
    "MNIST": lambda: MNISTDataModule(val_split=10),
    "cifar-10": lambda: CIFAR10DataModule(val_split=10),
    "32x32.mat": lambda: SVHNDataModule(val_share=0.25),
}


@pytest.fixture
def data_files(tmp_path, monkeypatch):
    """The files of a data set, and what reads them; where asked for, every file has the checksum that is published."""
    monkeypatch.chdir(tmp_path)
    write_data_sets(tmp_path, monkeypatch)
    write_official(tmp_path / "data")

    def of(name, unverified=False):
        for place in ("torchvision.datasets.mnist", "torchvision.datasets.cifar", "torchvision.datasets.svhn",
                      "torchvision.datasets.utils", "datamodules.mnist", "datamodules.downloaded"):  # fmt: skip
            if unverified:
                monkeypatch.setattr(f"{place}.check_integrity", lambda *_: True)
        paths = sorted(
            path for path in tmp_path.rglob("*") if path.is_file() and name in str(path.relative_to(tmp_path))
        )
        assert paths

        def read():
            data = DATA[name]()
            data.prepare_data()
            data.setup("fit")

        return paths, read

    return of


@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("change", [mutated, restructured])
def test_changed_data_is_answered(data_files, name, change):
    """A published checksum refuses all but what is the same again."""
    paths, read = data_files(name)
    refused = refusals(paths, 3, 20 * TIMES, read, change, num_bytes=GB)
    assert refused
    assert not any(re.search("^$|MemoryError|alloc", message) for message in refused)


@pytest.mark.parametrize("name", ["MNIST", "32x32.mat"])
@pytest.mark.parametrize("change", [mutated, restructured])
def test_changed_data_with_the_right_checksum_is_answered(data_files, name, change):
    """Not a pickle, which may call what it likes: the checksum is what stands before it."""
    paths, read = data_files(name, unverified=True)
    refused = refusals(paths, 6, 30 * TIMES, read, change, num_bytes=GB)
    assert refused
    assert all(name.split(".")[0].lower() in message or "svhn" in message for message in refused)


def odd_array(right, generator):
    """Another type, shape, length or range of values; or something else."""
    return generator.choice((
        right[:-1], right[:0], right[..., None], right.T, right.ravel(), right.astype(np.int16), right.astype(float),
        right.astype(object), right.astype(complex), right.astype(str), right - 1, right + 245, "text", {}, 3,
    ))  # fmt: skip


def test_wrong_contents_of_whole_files_are_answered(data_files):
    """Other arrays, an IDX file of another type, a label of 255: in a file of the right format and checksum."""
    generator = random.Random(7)

    def mat(content, _):
        fields = {key: value for key, value in loadmat(io.BytesIO(content)).items() if key in "Xy"}
        key, file = generator.choice("Xy"), io.BytesIO()
        savemat(file, fields | {generator.choice((key, key, "z")): odd_array(fields.pop(key), generator)})
        return file.getvalue()

    def pickled(content, _):
        fields = pickle.loads(content)
        key = generator.choice(list(fields))
        fields[generator.choice((key, key, "z"))] = odd_array(np.array(fields.pop(key)), generator)
        return pickle.dumps(fields if generator.random() < 0.9 else [fields])

    def idx(content, _):
        array = odd_array(np.frombuffer(content[4 + 4 * content[3] :], np.uint8), generator)
        body = array.tobytes() if isinstance(array, np.ndarray) else b""
        kind, dimensions = generator.choice((8, 8, 9, 11, 12, 13, 14)), generator.choice((content[3], 0, 1, 2, 3, 4))
        return bytes((0, 0, kind, dimensions)) + content[4 : 4 + 4 * content[3]] + body

    for name, change in (("32x32.mat", mat), ("cifar-10", pickled), ("MNIST", idx)):
        paths, read = data_files(name, unverified=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy's of complex values
            refused = refusals(paths, 8, 30 * TIMES, read, change, num_bytes=GB)
        assert len(refused) > 15 * TIMES, name
        assert all({"MNIST": "mnist", "cifar-10": "cifar10"}.get(name, "svhn") in message for message in refused)


SAVED = {
    "x.png": {}, "palette.png": {"mode": "P", "transparency": 0}, "deflated.tif": {"compression": "tiff_adobe_deflate"},
    "x.jpg": {}, "progressive.jpg": {"progressive": True}, "x.gif": {"mode": "P"}, "x.bmp": {}, "x.tif": {},
    "x.webp": {}, "lossless.webp": {"lossless": True, "mode": "RGBA"}, "x.ppm": {}, "x.pgm": {"mode": "L"},
}  # fmt: skip


@pytest.mark.parametrize("name", SAVED)
@pytest.mark.parametrize("change", [mutated, restructured])
def test_a_changed_picture_is_answered(tmp_path, name, change):
    keys = dict(SAVED[name])
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.effect_noise((16, 12), 80).convert("RGB").convert(keys.pop("mode", "RGB"))
    picture.save(tmp_path / name, **keys, **({} if name[-3:] in ("bmp", "gif", "ppm", "pgm") else {"exif": exif}))
    paths = [tmp_path / name]
    size = (3, 16, 12) if decoded(paths[0].read_bytes(), 3).height == 16 else (3, 12, 16)
    refused = refusals(
        paths, 9, 40 * TIMES, lambda: load_images(list(map(str, paths)), of_size(*size)), change, num_bytes=2 * GB
    )
    assert refused
    assert all(name in message and not re.search("MemoryError|alloc", message) for message in refused)


def test_mutated_results_are_answered(with_inverter):
    files = [path for path in Path("runs").glob("*/*/*") if path.suffix in (".json", ".npy", ".npz")]
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
