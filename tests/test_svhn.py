import hashlib
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from scipy.io import savemat
from torchvision.datasets import SVHN

from datamodules.svhn import SVHNDataModule

TRAIN, TEST = "train_32x32.mat", "test_32x32.mat"


def content(n, seed):
    """As in the original files: X [32, 32, 3, N] and y [N, 1], from 1 to 10."""
    pixels = np.random.default_rng(seed).integers(256, size=(32, 32, 3, n), dtype=np.uint8)
    return {"X": pixels, "y": np.arange(n, dtype=np.uint8)[:, None] % 10 + 1}


@pytest.fixture
def folder(tmp_path):
    savemat(tmp_path / TRAIN, content(40, 0), do_compression=True)
    savemat(tmp_path / TEST, content(10, 1), do_compression=True)
    return tmp_path


def prepared(folder, **kwargs):
    data = SVHNDataModule(str(folder), **kwargs)
    data.prepare_data()
    data.setup("fit")
    return data


def test_the_splits_share_no_image_and_are_functions_of_the_seed(folder):
    data, again, other = prepared(folder), prepared(folder), prepared(folder, seed=1)
    assert [len(data.datasets[s]) for s in ("train", "val", "test")] == [36, 4, 10]
    together = torch.cat([data.datasets[s].index for s in ("train", "val")])
    assert torch.equal(together.sort().values, torch.arange(40))
    for split in ("val", "test"):
        assert torch.equal(data.datasets[split].index, again.datasets[split].index)
        assert not torch.equal(data.datasets[split].index, other.datasets[split].index)


def test_index_finds_the_image_in_the_file(folder):
    data = prepared(folder)
    for split, truth in (("train", content(40, 0)), ("val", content(40, 0)), ("test", content(10, 1))):
        batch = data.datasets[split].__getitems__(range(4))
        for image, label, i in zip(batch["image"], batch["label"], batch["index"].tolist(), strict=True):
            assert image.permute(1, 2, 0).tolist() == truth["X"][..., i].tolist()
            assert label == (i + 1) % 10  # 10 stands for 0


def test_all_is_as_torchvision_reads_it(folder, monkeypatch):
    original = {split: [*entry[:2], None] for split, entry in SVHN.split_list.items()}  # any checksum
    monkeypatch.setattr(SVHN, "split_list", original)
    truth, test = SVHN(folder, split="test"), prepared(folder).datasets["test"]
    assert torch.equal(test.images, torch.from_numpy(truth.data)[test.index])
    assert torch.equal(test.labels, torch.from_numpy(truth.labels)[test.index])


def test_the_test_images_come_with_another(folder):
    batch = next(iter(prepared(folder).test_dataloader()))
    assert batch["image"].dtype == torch.uint8
    assert torch.equal(batch["other_image"], batch["image"].roll(-1, dims=0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"X": np.zeros((32, 31, 3, 40), np.uint8)}, r"shape \[32, 31, 3, 40\]"),
        ({"X": np.zeros((40, 3, 32, 32), np.uint8)}, r"shape \[40, 3, 32, 32\]"),
        ({"X": np.zeros((32, 32, 3, 40))}, "type float64"),
        ({"y": np.ones((39, 1), np.uint8)}, "39 labels, not"),
        ({"y": np.zeros((40, 1), np.uint8)}, "labels that are not integers from 1 to 10"),
        ({"y": np.full((40, 1), 11, np.uint8)}, "labels that are not integers from 1 to 10"),
        ({"y": np.full((40, 1), 0.5)}, "labels that are not integers from 1 to 10"),
    ],
)
def test_a_file_of_other_content_is_named(folder, change, message):
    savemat(folder / TRAIN, content(40, 0) | change)
    with pytest.raises(OSError, match=rf"{TRAIN} has .*{message}.*e26dedcc434d2e4c54c9b2d4a06d8373"):
        prepared(folder)


@pytest.mark.parametrize("compressed", [True, False])
def test_a_truncated_file_is_named(folder, compressed):
    savemat(folder / TEST, content(10, 1), do_compression=compressed)
    whole = (folder / TEST).read_bytes()
    for length in (0, 10, 130, 1000, len(whole) // 2, len(whole) - 10):  # the last bytes may be padding
        (folder / TEST).write_bytes(whole[:length])
        with pytest.raises(OSError, match=rf"cannot read .*{TEST} .*eb5a983be6a315427106f1b164d9cef3"):
            prepared(folder)


def test_a_file_without_the_matrices_is_named(folder):
    savemat(folder / TRAIN, {"Z": np.zeros(3)})
    with pytest.raises(OSError, match=rf"cannot read .*{TRAIN} \(KeyError"):
        prepared(folder)


def test_a_failed_download_names_file_folder_and_checksum(folder, monkeypatch):
    closed = {split: ["http://127.0.0.1:9/", *entry[1:]] for split, entry in SVHN.split_list.items()}
    monkeypatch.setattr(SVHN, "split_list", closed)  # nobody listens there
    (folder / TEST).unlink()
    with pytest.raises(OSError, match=r"test_32x32.mat \(md5 eb5a983be6a315427106f1b164d9cef3\)") as caught:
        prepared(folder)
    assert f"to {folder} " in str(caught.value)


@pytest.fixture
def mirror(tmp_path_factory, monkeypatch):
    """A folder, and the address under which this machine serves it."""
    folder = tmp_path_factory.mktemp("mirror")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=folder)) as server:
        threading.Thread(target=server.serve_forever).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_download_is_kept_only_if_its_checksum_is_right(folder, mirror, monkeypatch):
    before = prepared(folder).datasets["test"].images
    served = (folder / TEST).rename(mirror[0] / TEST)
    right = hashlib.md5(served.read_bytes()).hexdigest()
    for md5 in ("0" * 32, right):
        monkeypatch.setitem(SVHN.split_list, "test", [f"{mirror[1]}/{TEST}", TEST, md5])
        if md5 == right:
            assert torch.equal(prepared(folder).datasets["test"].images, before)
        else:
            with pytest.raises(OSError, match=r"cannot download SVHN's test_32x32\.mat"):
                prepared(folder)
        assert (folder / TEST).exists() == (md5 == right)


@pytest.mark.parametrize("val_share", [-0.1, 0.0, 0.001, 1.0, 2.0])
def test_val_share_leaves_images_on_either_side(folder, val_share):
    data = SVHNDataModule(str(folder), val_share=val_share)
    with pytest.raises(ValueError, match=f"val_share {val_share} keeps"):
        data.setup("fit")
