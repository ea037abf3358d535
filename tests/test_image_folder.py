import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules.image_folder import ImageFolderDataModule


def write_images(root: Path, folders: dict[str, int], size: tuple[int, int] = (8, 8)) -> None:
    """PNGs of random colours, (width, height)."""
    random = np.random.default_rng(0)
    for folder, n in folders.items():
        (root / folder).mkdir(parents=True)
        for i in range(n):
            pixels = random.integers(256, size=(size[1], size[0], 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / folder / f"{i:02}.png")


def zipped(root: Path, wrapping: str = "") -> str:
    path = root.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(root.rglob("*.*")):
            archive.write(file, wrapping + file.relative_to(root).as_posix())
    return str(path)


def loaded(path: Path | str, **kwargs) -> ImageFolderDataModule:
    data = ImageFolderDataModule(str(path), **{"side": 8, **kwargs})
    data.setup("fit")
    return data


@pytest.fixture
def pets(tmp_path):
    root = tmp_path / "pets"
    write_images(root, {"dog": 12, "cat": 18})
    return root


def test_folders_are_divided_80_10_10_and_share_no_image(pets):
    data = loaded(pets)
    assert (data.name, data.classes, data.num_classes) == ("images:pets", ["cat", "dog"], 2)
    assert data.class_names == data.classes
    assert data.image_shape == (3, 8, 8)
    assert [len(data.datasets[s]) for s in ("train", "val", "test")] == [24, 3, 3]
    index = torch.cat([d.index for d in data.datasets.values()])
    assert torch.equal(index.sort().values, torch.arange(30))


def test_index_finds_the_pixels_in_the_sorted_list_of_files(pets):
    files = sorted(pets.rglob("*.png"))
    for dataset in loaded(pets).datasets.values():
        for image, label, i in zip(dataset.images, dataset.labels, dataset.index, strict=True):
            assert np.array_equal(image.permute(1, 2, 0), np.asarray(Image.open(files[i])))
            assert ["cat", "dog"][label] == files[i].parent.name


def test_a_zip_gives_what_the_folder_gives_wrapped_or_not(pets):
    folder = loaded(pets)
    for wrapping in ("", "some set/"):
        archive = loaded(zipped(pets, wrapping))
        assert archive.name == folder.name
        for split, dataset in folder.datasets.items():
            assert torch.equal(dataset.images, archive.datasets[split].images)
            assert torch.equal(dataset.labels, archive.datasets[split].labels)


@pytest.mark.parametrize("wrapping", ["", "cifar/"])
def test_folders_train_and_test_are_used(tmp_path, wrapping):
    write_images(tmp_path / "x", {"train/b": 20, "train/a": 10, "test/b": 4, "test/a": 3})
    data = loaded(zipped(tmp_path / "x", wrapping))
    assert [len(data.datasets[s]) for s in ("train", "val", "test")] == [27, 3, 7]
    assert data.classes == ["a", "b"]
    index = torch.cat([data.datasets[s].index for s in ("train", "val")])
    assert torch.equal(index.sort().values, torch.arange(30))
    assert torch.equal(data.datasets["test"].labels, (data.datasets["test"].index >= 3).long())


def test_splits_are_functions_of_the_seed(pets):
    index = [loaded(pets, seed=seed).datasets["train"].index.tolist() for seed in (0, 0, 1)]
    assert index[0] == index[1] != index[2]


def test_the_test_split_has_other_images(pets):
    batch = next(iter(loaded(pets).test_dataloader()))
    assert torch.equal(batch["other_image"], batch["image"].roll(-1, 0))


def test_crop_keeps_the_middle_and_resize_stretches(tmp_path):
    """Black, white and black thirds side by side: the crop to a square is white."""
    pixels = np.zeros((8, 24), dtype=np.uint8)
    pixels[:, 8:16] = 255
    (tmp_path / "one").mkdir()
    for i in range(10):
        Image.fromarray(pixels).save(tmp_path / "one" / f"{i}.png")
    crop = loaded(tmp_path, channels=1).datasets["train"].images[0]
    assert crop.shape == (1, 8, 8)
    assert (crop == 255).all()
    resized = loaded(tmp_path, channels=1, fit="resize").datasets["train"].images[0, 0]
    assert (resized[:, 0] < 30).all()
    assert (resized[:, 3:5] > 225).all()
    assert (resized[:, 7] < 30).all()


def test_sides_may_differ_and_grey_becomes_three_equal_channels(tmp_path):
    (tmp_path / "grey").mkdir()
    for i in range(10):
        Image.new("L", (9, 5), 10 * i).save(tmp_path / "grey" / f"{i}.png")
    data = loaded(tmp_path, side=(4, 12))
    assert data.image_shape == data.datasets["train"].images.shape[1:] == (3, 4, 12)
    train = data.datasets["train"]
    assert torch.equal(train.images, (10 * train.index).byte().view(-1, 1, 1, 1).expand_as(train.images))


def test_large_photographs_lie_upright_as_their_camera_says(tmp_path):
    """A JPEG, so large that it is decoded at a fraction of its size, with its top marked to be on the right."""
    (tmp_path / "photo").mkdir()
    picture = Image.new("L", (600, 400), 255)
    picture.paste(0, (0, 0, 300, 400))  # black on the left, which turned clockwise is on top
    exif = Image.Exif()
    exif[0x0112] = 6
    for i in range(10):
        picture.save(tmp_path / "photo" / f"{i}.JPG", exif=exif)
    image = loaded(tmp_path, channels=1).datasets["val"].images[0, 0]
    assert (image[:3] < 10).all()
    assert (image[5:] > 245).all()


def test_hidden_files_and_other_files_are_ignored(pets):
    (pets / "README.txt").write_text("pets")
    (pets / "cat" / "._00.png").write_text("a Mac's")
    (pets / "__MACOSX" / "cat").mkdir(parents=True)
    (pets / "__MACOSX" / "cat" / "00.png").write_text("a Mac's")
    (pets / ".cache").mkdir()
    for path in (pets, zipped(pets)):
        assert sum(map(len, loaded(path).datasets.values())) == 30


def test_nothing_of_a_zip_is_unpacked(pets, tmp_path):
    path = zipped(pets)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../cat/outside.png", b"")
    shutil.rmtree(pets)
    before = sorted(tmp_path.rglob("*"))
    assert sum(map(len, loaded(path).datasets.values())) == 30
    assert sorted(tmp_path.rglob("*")) == before


def test_a_corrupt_image_is_named_in_a_folder_and_in_a_zip(pets):
    file = pets / "dog" / "03.png"
    file.write_bytes(file.read_bytes()[:60])
    for path in (str(pets), zipped(pets)):
        with pytest.raises(OSError, match=r"cannot read the image dog/03.png in .*pets.* replace it or take it out"):
            loaded(path)


def test_a_bad_checksum_in_a_zip_names_the_image(pets):
    path = Path(zipped(pets))
    content = bytearray(path.read_bytes())
    content[content.index(b"IDAT") + 20] ^= 1  # in the first image of the zip
    path.write_bytes(content)
    with pytest.raises(OSError, match=r"cannot read the image cat/00.png .*Bad CRC-32"):
        loaded(path)


def test_more_than_8_bits_are_refused(pets):
    Image.fromarray(np.full((8, 8), 3000, dtype=np.uint16)).save(pets / "cat" / "deep.png")
    with pytest.raises(OSError, match=r"cat/deep.png .*more than 8 bits"):
        loaded(pets)


def test_a_truncated_zip_and_a_missing_path_are_named(pets, tmp_path):
    path = Path(zipped(pets))
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(OSError, match=f"cannot read {path} .*give a folder or a whole .zip"):
        loaded(path)
    with pytest.raises(FileNotFoundError, match=r"there is no .*nowhere; give a folder"):
        loaded(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        ({"cat": 0}, "holds no image; those with the extensions .bmp"),
        ({"cat": 12, "dog": 0}, "the class folder dog in .* holds no image"),
        ({"cat": 5, "dog": 4}, "holds 9 images to train with; at least 10 are needed"),
        ({"train/cat": 12, "test/dog": 2}, "the class folder test/dog in .* has none of its name in train"),
        ({"train/cat": 12, "train/dog": 0, "test/cat": 2}, "the class folder train/dog in .* holds no image"),
        ({"train/cat": 12, "test/cat": 2, "val/cat": 2}, "holds val beside train and test"),
        ({"cat": 12, ".": 1}, "00.png in .* lies in no class folder"),
    ],
)
def test_wrong_folders_are_told_apart(tmp_path, folders, message):
    root = tmp_path / "x"
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
        for i in range(folders[folder]):
            Image.new("RGB", (8, 8)).save(root / folder / f"{i:02}.png")
    with pytest.raises(ValueError, match=message):
        ImageFolderDataModule(str(root), side=8)
