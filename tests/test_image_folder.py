import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from dataset_files import loaded, write_images, zipped
from PIL import Image
from small_runs import failure

from cli import main
from datamodules.image_folder import ImageFolderDataModule
from datamodules.split import Split


def splits(path: Path | str, **kwargs) -> dict[str, Split]:
    return loaded(ImageFolderDataModule(str(path), **{"side": 8, **kwargs})).datasets


@pytest.fixture
def pets(tmp_path):
    return write_images(tmp_path / "pets", {"dog": 12, "cat": 18})


def test_folders_are_divided_80_10_10_and_index_finds_the_image_in_the_sorted_list_of_files(pets):
    data = loaded(ImageFolderDataModule(str(pets), side=8))
    assert (data.name, data.class_names, data.num_classes) == ("images:pets", ["cat", "dog"], 2)
    assert data.image_shape == (3, 8, 8)
    assert [len(dataset) for dataset in data.datasets.values()] == [24, 3, 3]
    index = torch.cat([dataset.index for dataset in data.datasets.values()])
    assert torch.equal(index.sort().values, torch.arange(30))
    files = sorted(pets.rglob("*.png"))
    for dataset in data.datasets.values():
        for image, label, i in zip(dataset.images, dataset.labels, dataset.index, strict=True):
            assert np.array_equal(image.permute(1, 2, 0), np.asarray(Image.open(files[i])))
            assert data.class_names[label] == files[i].parent.name


def test_a_zip_gives_what_the_folder_gives_wrapped_or_not(pets):
    for is_wrapped in (False, True):
        archive = zipped(pets, is_wrapped)
        assert ImageFolderDataModule(archive, side=8).name == "images:pets"
        for ours, theirs in zip(splits(pets).values(), splits(archive).values(), strict=True):
            assert torch.equal(ours.images, theirs.images)
            assert torch.equal(ours.labels, theirs.labels)


@pytest.mark.parametrize("is_wrapped", [False, True])
def test_folders_train_and_test_are_used(tmp_path, is_wrapped):
    root = write_images(tmp_path / "x", {"train/b": 20, "train/a": 10, "test/b": 4, "test/a": 3})
    train, val, test = splits(zipped(root, is_wrapped)).values()
    assert (len(train), len(val), len(test)) == (27, 3, 7)
    assert torch.equal(torch.cat((train.index, val.index)).sort().values, torch.arange(30))
    assert torch.equal(train.labels, (train.index >= 10).long())
    assert torch.equal(test.labels, (test.index >= 3).long())


def test_crop_keeps_the_middle_and_resize_stretches(tmp_path):
    """Black, white and black thirds side by side: the crop to a square is white."""
    pixels = np.zeros((8, 24), dtype=np.uint8)
    pixels[:, 8:16] = 255
    write_images(tmp_path, {"one": 10}, lambda i: Image.fromarray(pixels))
    crop = splits(tmp_path, channels=1)["train"].images[0]
    assert torch.equal(crop, torch.full((1, 8, 8), 255).byte())
    resized = splits(tmp_path, channels=1, fit="resize")["train"].images[0, 0]
    assert (resized[:, 0] < 30).all()
    assert (resized[:, 3:5] > 225).all()
    assert (resized[:, 7] < 30).all()


def test_sides_may_differ_and_grey_becomes_three_equal_channels(tmp_path):
    write_images(tmp_path, {"grey": 10}, lambda i: Image.new("L", (9, 5), 10 * i))
    train = splits(tmp_path, side=(4, 12))["train"]
    assert ImageFolderDataModule(str(tmp_path), side=(4, 12)).image_shape == (3, 4, 12)
    assert torch.equal(train.images, (10 * train.index).byte().view(-1, 1, 1, 1).expand(-1, 3, 4, 12))


def test_large_photographs_lie_upright_as_their_camera_says(tmp_path):
    """A JPEG, so large that it is decoded at a fraction of its size, with its top marked to be on the right."""
    (tmp_path / "photo").mkdir()
    picture = Image.new("L", (600, 400), 255)
    picture.paste(0, (0, 0, 300, 400))  # black on the left, which turned clockwise is on top
    exif = Image.Exif()
    exif[0x0112] = 6
    for i in range(10):
        picture.save(tmp_path / "photo" / f"{i}.JPG", exif=exif)
    image = splits(tmp_path, channels=1)["val"].images[0, 0]
    assert (image[:3] < 10).all()
    assert (image[5:] > 245).all()


def test_hidden_files_and_other_files_are_ignored(pets):
    (pets / "README.txt").write_text("pets")
    (pets / "cat" / "._00.png").write_text("a Mac's")
    (pets / "__MACOSX" / "cat").mkdir(parents=True)
    (pets / "__MACOSX" / "cat" / "00.png").write_text("a Mac's")
    (pets / ".cache").mkdir()
    for path in (pets, zipped(pets)):
        assert sum(map(len, splits(path).values())) == 30


def test_nothing_of_a_zip_is_unpacked(pets, tmp_path):
    path = zipped(pets)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../cat/outside.png", b"")
    shutil.rmtree(pets)
    before = sorted(tmp_path.rglob("*"))
    assert sum(map(len, splits(path).values())) == 30
    assert sorted(tmp_path.rglob("*")) == before


def test_a_corrupt_image_is_named_in_a_folder_and_in_a_zip(pets):
    file = pets / "dog" / "03.png"
    file.write_bytes(file.read_bytes()[:60])
    for path in (str(pets), zipped(pets)):
        with pytest.raises(OSError, match=r"cannot read the image dog/03.png in .*pets.* replace it or take it out"):
            splits(path)


def test_a_bad_checksum_in_a_zip_names_the_image(pets):
    path = Path(zipped(pets))
    with zipfile.ZipFile(path) as archive:
        checksum = archive.getinfo("cat/00.png").CRC.to_bytes(4, "little")
    content = bytearray(path.read_bytes())
    content[content.rindex(checksum)] ^= 1  # in the zip's directory
    path.write_bytes(content)
    with pytest.raises(OSError, match=r"cannot read the image cat/00.png .*Bad CRC-32"):
        splits(path)


def test_more_than_8_bits_are_refused(pets):
    Image.fromarray(np.full((8, 8), 3000, dtype=np.uint16)).save(pets / "cat" / "deep.png")
    with pytest.raises(OSError, match=r"cat/deep.png .*more than 8 bits"):
        splits(pets)


def test_a_truncated_zip_and_a_missing_path_are_named(pets, tmp_path):
    path = Path(zipped(pets))
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(OSError, match=f"cannot read {path} .*give a folder or a whole .zip"):
        splits(path)
    with pytest.raises(FileNotFoundError, match=r"there is no .*nowhere; give a folder"):
        splits(tmp_path / "nowhere")


@pytest.mark.parametrize(("folders", "message"), [
    ({"cat": 0}, "holds no image; those with the extensions .bmp"),
    ({"cat": 12, "dog": 0}, "the class folder dog in .* holds no image"),
    ({"cat": 5, "dog": 4}, "holds 9 images to train with; at least 10 are needed"),
    ({"train/cat": 12, "test/dog": 2}, "the class folder test/dog in .* has none of its name in train"),
    ({"train/cat": 12, "train/dog": 0, "test/cat": 2}, "the class folder train/dog in .* holds no image"),
    ({"train/cat": 12, "test/cat": 2, "extra/cat": 2}, "holds extra beside train, test, which would not be read"),
    ({"train/cat": 12, "val/cat": 2, "valid/cat": 2}, "holds train, val, valid, of which two say the same"),
    ({"test/cat": 12, "val/cat": 2}, "holds val, test, and no folder train"),
    ({"train/cat": 12, "val/cat": 2, "test/dog": 2}, "the class folder test/dog in .* has none of its name in train"),
])  # fmt: skip
def test_wrong_folders_are_told_apart(tmp_path, folders, message):
    with pytest.raises(ValueError, match=message):
        splits(write_images(tmp_path / "x", folders))


@pytest.mark.parametrize(("folders", "sizes"), [
    ({"train/b": 20, "train/a": 10, "test/b": 4}, (27, 3, 4)),
    ({"train/b": 20, "train/a": 10, "valid/a": 5}, (27, 5, 3)),
    ({"Train/b": 20, "Train/a": 10, "validation/a": 5, "Test/a": 4}, (30, 5, 4)),
    ({"train": 10, "bus": 20}, (24, 3, 3)),  # classes
])  # fmt: skip
def test_folders_of_splits_are_the_splits_and_what_is_missing_is_a_tenth_of_training(tmp_path, folders, sizes):
    data = loaded(ImageFolderDataModule(str(write_images(tmp_path / "x", folders)), side=8))
    assert data.num_classes == 2
    assert tuple(map(len, data.datasets.values())) == sizes
    pictures = torch.cat([dataset.images for dataset in data.datasets.values()]).flatten(1)
    assert len(pictures.unique(dim=0)) == sum(sizes)
    own = {top.lower() for top in (path.split("/")[0] for path in folders)}
    one_list = ["train", *(name for name in ("val", "test") if not own & {name, f"{name}id", f"{name}idation"})]
    index = torch.cat([data.datasets[name].index for name in one_list])
    assert torch.equal(index.sort().values, torch.arange(len(index)))


def test_every_class_is_trained_on_and_no_other_split_changes(tmp_path):
    path = write_images(tmp_path / "x", {"many": 40, **{f"one{k}": 1 for k in range(5)}})
    order = torch.randperm(45, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0] * 40 + [1, 2, 3, 4, 5])
    assert (labels[order[:8]] > 0).any()  # which a plain division would hold out
    train, val, test = (split.index for split in splits(path).values())
    assert set(labels[train].tolist()) == set(range(6))
    assert torch.equal(torch.cat((train, val, test)).sort().values, torch.arange(45))
    moved = (torch.cat((val, test, train)) != order).sum()
    assert moved == 2 * (labels[order[:8]] > 0).sum()
    with pytest.raises(
        ValueError, match="10 images of 10 classes, which is too few to train on one of each and hold out 2"
    ):
        splits(write_images(tmp_path / "few", {f"one{k}": 1 for k in range(10)}))


def test_links_are_followed_and_every_file_is_taken_once(pets, tmp_path):
    before = splits(pets)
    (pets / "self").symlink_to(".")
    (pets / "cat" / "up").symlink_to("../..")
    (pets / "cat" / "again.png").symlink_to("00.png")
    (pets / "dog").rename(tmp_path / "elsewhere")
    (pets / "dog").symlink_to("../elsewhere")
    data = loaded(ImageFolderDataModule(str(pets), side=8))
    assert data.class_names == ["cat", "dog"]
    for name, dataset in before.items():
        assert torch.equal(data.datasets[name].images, dataset.images)


def test_what_is_skipped_is_counted_and_named_once(pets, capsys):
    for name in ("notes.txt", ".hidden.png", "cat/clip.mp4", "dog/x.txt"):
        (pets / name).write_text("")
    for path in (str(pets), zipped(pets)):
        data = ImageFolderDataModule(path, side=8)
        data.prepare_data()
        data.prepare_data()
        said = capsys.readouterr().out
        assert said.count("\n") == 1
        assert said.startswith("images:pets: skipped 4 that are hidden")
        assert said.endswith(".hidden.png, cat/clip.mp4, dog/x.txt and 1 more\n")


def test_other_pictures_of_the_same_name_are_told_apart(pets, tmp_path):
    data = ImageFolderDataModule(str(pets), side=8)
    checkpoint = {"data": data.state_dict()}
    ImageFolderDataModule(zipped(pets, is_wrapped=True), side=8).check(checkpoint, "x.ckpt", classifier=True)
    same_classes = write_images(tmp_path / "b" / "pets", {"dog": 12, "cat": 19})
    with pytest.raises(
        ValueError, match=r"x.ckpt was trained on other data of the name images:pets, with the files \"\w"
    ):
        ImageFolderDataModule(str(same_classes), side=8).check(checkpoint, "x.ckpt", classifier=True)
    other = write_images(tmp_path / "c" / "pets", {"bird": 12, "cat": 18})
    message = r'with the class names \["cat", "dog"\], not \["bird", "cat"\]; give the data that it was trained on'
    with pytest.raises(ValueError, match=message):
        ImageFolderDataModule(str(other), side=8).check(checkpoint, "x.ckpt")
    old = {key: value for key, value in data.identity.items() if key not in ("class_names", "files")}
    ImageFolderDataModule(str(other), side=8).check({"data": {**data.state_dict(), "identity": old}}, "x.ckpt")


def test_more_than_the_memory_is_refused_before_anything_is_read(pets, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    message = failure(capsys, "fit", "--config=classifier_images.yaml", f"--data.path={pets}", "--data.side=1000000")
    assert "30 images of 1000000x1000000 take 180000.00 GB of memory, and " in message
    assert "give a smaller --data.side" in message


def test_a_folder_that_cannot_be_read_is_no_empty_one(pets, monkeypatch):
    def scandir(path):
        if str(path).endswith("dog"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    real = os.scandir
    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(OSError, match=r"cannot read the folder .*dog \(Permission denied\); allow it or take it out"):
        splits(pets)


def test_a_zip_that_never_ends_or_unpacks_to_gigabytes_is_refused(pets, tmp_path, monkeypatch):
    monkeypatch.setattr("datamodules.pictures.MOST_BYTES", 10_000)
    with zipfile.ZipFile(zipped(pets), "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("cat/huge.png", bytes(10_001))
    with pytest.raises(OSError, match=r"cat/huge.png in .*it has 10001 bytes, more than 10000"):
        splits(f"{pets}.zip")
    os.mkfifo(tmp_path / "pipe.zip")
    with pytest.raises(OSError, match=r"cannot read .*pipe.zip .*is no regular file"):
        splits(tmp_path / "pipe.zip")


def test_class_names_are_shown_as_they_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folders = {"$x^$": 5, "a_$b$": 8, os.fsdecode(b"caf\xe9"): 5}
    path = write_images(tmp_path / "$_$", folders)
    main(["show", "--config=classifier_images.yaml", f"--data.path={path}"])
    assert list(tmp_path.rglob("contact_sheet_train.png"))
