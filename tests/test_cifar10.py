import hashlib
import os
import pickle
import pickletools
import struct
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10

from datamodules.cifar10 import MD5, TEST_FILES, TRAIN_FILES, CIFAR10DataModule


class Python2Pickler(pickle._Pickler):
    """Writes strings, bytes and the flags of types as Python 2 did, in which the original files were written."""

    dispatch = pickle._Pickler.dispatch.copy()

    def save_bytes(self, x):
        self.write(pickle.BINSTRING + struct.pack("<i", len(x)) + x)
        self.memoize(x)

    def save_str(self, x):
        self.save_bytes(x.encode("latin1"))

    def save_bool(self, x):
        self.save_long(int(x))

    dispatch |= {bytes: save_bytes, str: save_str, bool: save_bool}


def entry(n, seed):
    random = np.random.default_rng(seed)
    return {
        "batch_label": "training batch 1 of 5",
        "labels": random.integers(10, size=n).tolist(),
        "data": random.integers(256, size=(n, 3072), dtype=np.uint8),
        "filenames": [f"{i}.png" for i in range(n)],
    }


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for seed, name in enumerate(MD5):
        with (folder / name).open("wb") as file:
            Python2Pickler(file, protocol=2).dump(entry(8, seed))
    return folder


def prepared(folder, **kwargs):
    data = CIFAR10DataModule(str(folder.parent), val_split=10, **kwargs)
    data.prepare_data()
    data.setup("fit")
    return data


def test_the_splits_share_no_image_and_are_functions_of_the_seed(folder):
    data, again, other = prepared(folder), prepared(folder), prepared(folder, seed=1)
    assert [len(data.datasets[s]) for s in ("train", "val", "test")] == [30, 10, 8]
    together = torch.cat([data.datasets[s].index for s in ("train", "val")])
    assert torch.equal(together.sort().values, torch.arange(40))
    for split in ("val", "test"):
        assert torch.equal(data.datasets[split].index, again.datasets[split].index)
        assert not torch.equal(data.datasets[split].index, other.datasets[split].index)


def test_index_finds_the_image_in_the_files(folder):
    data = prepared(folder)
    for splits, files in ((("train", "val"), TRAIN_FILES), (("test",), TEST_FILES)):
        entries = [entry(8, list(MD5).index(name)) for name in files]
        for batch in (data.datasets[split].__getitems__(range(8)) for split in splits):
            for image, label, i in zip(batch["image"], batch["label"], batch["index"].tolist(), strict=True):
                assert image.shape == (3, 32, 32)
                assert image.flatten().tolist() == entries[i // 8]["data"][i % 8].tolist()
                assert label == entries[i // 8]["labels"][i % 8]


def test_the_test_images_come_with_another(folder):
    batch = next(iter(prepared(folder).test_dataloader()))
    assert batch["image"].dtype == torch.uint8
    assert torch.equal(batch["other_image"], batch["image"].roll(-1, dims=0))


def test_the_files_tried_here_have_python_2s_strings_and_flags(folder):
    codes = {code.name for code, _, _ in pickletools.genops((folder / "test_batch").read_bytes())}
    assert "BINSTRING" in codes
    assert not codes & {"BINUNICODE", "NEWTRUE", "NEWFALSE"}


@pytest.mark.parametrize("protocol", [2, 4])
def test_files_that_python_3_wrote_read_the_same(folder, protocol):
    before = prepared(folder).datasets["test"].images
    (folder / "test_batch").write_bytes(pickle.dumps(entry(8, 5), protocol))
    assert torch.equal(prepared(folder).datasets["test"].images, before)


class Command:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("function", [os.system, eval, np.load])
def test_a_file_cannot_execute_anything(folder, function):
    witness = folder / "executed"
    command = f"open({str(witness)!r}, 'w')" if function is eval else f"touch {witness}"
    (folder / "data_batch_2").write_bytes(pickle.dumps(entry(8, 1) | {"data": Command(function, command)}, 2))
    with pytest.raises(OSError, match=r"cannot read .*data_batch_2 \(UnpicklingError: it asks for \S+, which is not"):
        prepared(folder)
    assert not witness.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": np.zeros((8, 3071), np.uint8)}, r"shape \[8, 3071\], not uint8"),
        ({"data": np.zeros((8, 3072))}, "type float64"),
        ({"labels": [0] * 7}, r"other than N labels \(their shape is \[7\]\)"),
        ({"labels": [0] * 7 + [10]}, "labels that are not integers from 0 to 9"),
        ({"labels": [0] * 7 + [-1]}, "labels that are not integers from 0 to 9"),
        ({"labels": [0.5] * 8}, "labels that are not integers from 0 to 9"),
    ],
)
def test_a_file_of_other_content_is_named(folder, change, message):
    (folder / "data_batch_3").write_bytes(pickle.dumps(entry(8, 2) | change, 2))
    with pytest.raises(OSError, match=rf"data_batch_3 has .*{message}.*{MD5['data_batch_3']}"):
        prepared(folder)


@pytest.mark.parametrize("content", [b"", b"\x80\x02}q", b"<html>", pickle.dumps([1]), pickle.dumps({"data": 1})])
def test_a_corrupt_file_is_named(folder, content):
    (folder / "test_batch").write_bytes(content)
    with pytest.raises(OSError, match=rf"cannot read .*test_batch .*{MD5['test_batch']}, and CIFAR-10 is downloaded"):
        prepared(folder)


def test_a_truncated_file_is_named(folder):
    content = (folder / "data_batch_1").read_bytes()
    for length in (10, len(content) // 2, len(content) - 1):
        (folder / "data_batch_1").write_bytes(content[:length])
        with pytest.raises(OSError, match=r"cannot read .*data_batch_1 .*c99cafc152244af753f735de768cd75f"):
            prepared(folder)


def test_a_failed_download_names_files_folder_and_checksums(folder, monkeypatch):
    monkeypatch.setattr(CIFAR10, "url", "http://127.0.0.1:9/")  # nobody listens there
    (folder / "data_batch_4").unlink()
    with pytest.raises(OSError, match=r"data_batch_4 \(md5 634d18415352ddfa80567beed471001a\)") as caught:
        prepared(folder)
    assert f"cannot download CIFAR-10 to {folder} " in str(caught.value)
    assert "cifar-10-python.tar.gz (md5 c58f30108f718f92721af3b95e74349a)" in str(caught.value)


@pytest.fixture
def mirror(tmp_path_factory, monkeypatch):
    """A folder, and the address under which this machine serves it."""
    folder = tmp_path_factory.mktemp("mirror")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=folder)) as server:
        threading.Thread(target=server.serve_forever).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.filterwarnings("ignore:Python 3.14 will:DeprecationWarning")  # torchvision extracts without a filter
def test_an_archive_is_extracted_only_if_its_checksum_is_right(folder, mirror, monkeypatch):
    before = prepared(folder).datasets["train"].images
    archive = mirror[0] / "cifar.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, folder.name)
    monkeypatch.setattr(CIFAR10, "url", f"{mirror[1]}/{archive.name}")
    (folder / "data_batch_5").unlink()
    with pytest.raises(OSError, match="cannot download CIFAR-10"):
        prepared(folder)
    assert not (folder / "data_batch_5").exists()
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    assert torch.equal(prepared(folder).datasets["train"].images, before)


@pytest.mark.parametrize("val_split", [-1, 0, 40])
def test_val_split_leaves_images_on_either_side(folder, val_split):
    data = CIFAR10DataModule(str(folder.parent), val_split=val_split)
    with pytest.raises(ValueError, match=f"val_split {val_split} keeps {val_split} of 40 images"):
        data.setup("fit")
