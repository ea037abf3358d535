"""A user's own pictures, from any folder to a score."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from dataset_files import loaded, write_images, zipped
from PIL import Image
from small_runs import failure, result, run_with_results

from cli import main
from commands.score import load_images
from datamodules import MNIST5kDataModule
from datamodules.image_folder import ImageFolderDataModule
from inverters.networks import ConvNet

TINY = [
    "--data.path=pictures", "--data.side=8", "--data.batch_size=4", "--model.density.num_filters=4",
    "--trainer.max_steps=1", "--trainer.accelerator=cpu", "--sample_grid.num_images=1", "--sample_grid.num_draws=1",
    "--num_agreement=1", "--trainer.logger=false",
]  # fmt: skip


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def wide(i):
    """A picture of another size and shape than any model's."""
    return Image.fromarray(np.random.default_rng(i).integers(256, size=(20, 30, 3), dtype=np.uint8))


def sizes(path, **arguments):
    data = loaded(ImageFolderDataModule(str(path), side=8, **arguments))
    return data, tuple(map(len, data.datasets.values()))


def test_scores_of_a_folder_are_the_tests_numbers_of_an_unconditional_model_without_classes(here):
    """Pictures of another size, in a folder without class folders: prepared alike, they have the same log p."""
    write_images(here / "pictures", {".": 15, "more/of/them": 15}, wide)
    main(["fit", "--config=unconditional_images_small", *TINY])
    run = run_with_results("unconditional_images_small")
    wanted = np.load(run / "log_prob.npy")
    for images in ("pictures", zipped(here / "pictures")):
        main(["score", "--config=unconditional_images_small", *TINY, f"--images={images}"])
        _, *rows = csv.reader((run / "scores.csv").read_text().splitlines())
        files = sorted(str(path.relative_to("pictures")) for path in Path("pictures").rglob("*.png"))
        assert [name for name, _ in rows] == [f"{images}/{file}" for file in files]
        found = np.array([float(value) for _, value in rows])
        assert np.allclose(found[np.load(run / "index.npy")], wanted, atol=2e-3)
    main(["score", "--config=unconditional_images_small", *TINY, "--images=pictures/03.png"])
    (_, (name, value)) = csv.reader((run / "scores.csv").read_text().splitlines())
    assert (name, float(value)) == ("pictures/03.png", found[3])


@pytest.mark.parametrize("fit", ["crop", "resize"])
def test_a_picture_is_scored_as_it_would_be_trained_on(here, fit):
    write_images(here / "pictures", {"a": 10}, wide)
    data, _ = sizes("pictures", fit=fit, channels=1)
    for dataset in data.datasets.values():
        paths = [f"pictures/a/{i:02}.png" for i in dataset.index]
        names, images, seen = load_images(paths, data)
        assert names == paths
        assert torch.equal(images, dataset.images)
        assert torch.equal(seen, images)


def test_pictures_are_the_same_when_they_are_loaded_again(here):
    write_images(here / "pictures", {"a": 12, "b": 12})
    data = ImageFolderDataModule("pictures", side=8)
    first, again = data.load(), data.load()
    assert all(torch.equal(first[name].images, again[name].images) for name in first)
    other = ImageFolderDataModule("pictures", side=12)
    assert data.pictures_digest != other.pictures_digest


def test_a_data_set_that_never_scales_names_all_pictures_of_another_size(here):
    write_images(here / "x", {".": 2}, lambda i: Image.new("L", (28, 28 + i)))
    with pytest.raises(OSError, match=r"image x/01.png .*it is 28x29 pixels, and must be 28x28"):
        load_images("x", MNIST5kDataModule())
    assert torch.equal(load_images(["x/00.png"] * 2, MNIST5kDataModule())[1], torch.zeros(2, 1, 28, 28).byte())


@pytest.fixture
def with_bad(here):
    """Of 40 pictures 12 that are none, and of another folder the other 28."""
    write_images(here / "pictures", {"a": 20, "b": 20}, wide)
    shutil.copytree("pictures", "clean/pictures")
    for name in [f"a/{i:02}.png" for i in range(7)] + [f"b/{i:02}.png" for i in range(5)]:
        Path("pictures", name).write_bytes(b"no picture")
        Path("clean/pictures", name).unlink()
    return here


def test_bad_pictures_are_all_named_at_once(with_bad):
    for path in ("pictures", zipped(with_bad / "pictures")):
        with pytest.raises(OSError, match=r"cannot read 12 of 40 images in .*pictures.*: a/00.png .*b/02.png ") as e:
            sizes(path)
        assert str(e.value).endswith("and 2 more; replace them or take them out, or give --data.skip_bad true")
        with pytest.raises(OSError, match=r"12 of 40 images: .*a/00.png .* and 2 more; replace them or take them out$"):
            load_images(path, sizes("clean/pictures")[0])


def test_what_is_left_without_bad_pictures_is_the_data_that_has_none(with_bad, capsys):
    clean, wanted = sizes("clean/pictures")
    for path in ("pictures", zipped(with_bad / "pictures")):
        before = ImageFolderDataModule(path, side=8, skip_bad=True).identity  # a checkpoint's, before its pictures are
        assert "images:pictures: left out 12 of 40 images, which cannot be read: a/00.png (" in capsys.readouterr().out
        data, found = sizes(path, skip_bad=True)
        assert data.identity == before == clean.identity
        assert found == wanted
        for name, dataset in clean.datasets.items():
            assert torch.equal(data.datasets[name].images, dataset.images)
            assert torch.equal(data.datasets[name].index, dataset.index)
        assert data.note == "12 of its 40 pictures cannot be read and are left out."
    everything = ImageFolderDataModule("pictures", side=8)
    with pytest.raises(ValueError, match="trained on other data of the name images:pictures, with the files"):
        everything.check({"data": {"dataset": data.name, "identity": data.identity}}, "x.ckpt")


def test_bad_pictures_do_not_decide_what_the_classes_are(here):
    """For which the model was made before one was read."""
    for name, folders in (("x", {"a": 20, "b": 1}), ("y", {"a": 20, "b": 20, ".": 1})):
        write_images(here / name, folders, wide)
    Path("x/b/00.png").write_bytes(b"no picture")
    Path("y/00.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="the class folder b in x holds no image; fill it or take it out"):
        sizes("x", skip_bad=True)
    with pytest.raises(ValueError, match=r"without the 1 of its images .* y has other classes .*take them out: 00.png"):
        sizes("y", skip_bad=True)


@pytest.mark.parametrize(("folders", "names", "wanted", "is_mixed"), [
    ({".": 30}, ["unlabelled"], (24, 3, 3), False),
    ({".": 1, "a": 15, "b": 14}, ["unlabelled"], (24, 3, 3), True),
    ({"train": 30, "test": 4}, ["unlabelled"], (27, 3, 4), False),
    ({"train/a": 29, "train": 1, "test/b": 4}, ["unlabelled"], (27, 3, 4), True),
    ({"2024/05": 15, "2024": 5, "2025/a/b": 10}, ["2024", "2025"], (24, 3, 3), False),
    ({"a": 30}, ["a"], (24, 3, 3), False),
])  # fmt: skip
def test_where_a_picture_lies_in_no_class_folder_there_are_no_classes(here, capsys, folders, names, wanted, is_mixed):
    for path in (write_images(here / "x", folders), zipped(here / "x")):
        data, found = sizes(path)
        assert (data.class_names, data.num_classes, found) == (names, len(names), wanted)
        assert ("are of one class" in capsys.readouterr().out) == is_mixed
        assert {int(label) for dataset in data.datasets.values() for label in dataset.labels} == set(range(len(names)))


def test_a_classifier_needs_two_classes_and_says_so_before_any_picture_is_read(here, capsys, monkeypatch):
    monkeypatch.setattr(ImageFolderDataModule, "picture", lambda *_: pytest.fail("one was read"))
    write_images(here / "pictures", {"a": 15, "b": 15, ".": 1})
    for config in ("classifier_images", "inverter_images_small"):
        message = failure(capsys, "fit", f"--config={config}", "--data.path=pictures")
        assert (
            "the images are of one class, and a classifier tells two or more apart; put those of each class" in message
        )
        assert not Path("runs", "classifier_images_small").exists()


@pytest.mark.parametrize("weights", ["untrained", "net.pth"])
def test_an_inverter_of_weights_of_its_own_needs_no_classes(here, weights):
    write_images(here / "pictures", {".": 30}, wide)
    torch.save(ConvNet((3, 16, 16), 10, filters=(64, 128)).state_dict(), "net.pth")
    network = [f"--model.weights={weights}", "--classifier=null", "--data.side=16", "--model.density.num_layers=1"]
    main(["fit", "--config=inverter_images_small", *TINY, *network])
    row = result("inverter_images_small")
    assert row["class_agreement"] is None
    assert row["shuffled_nce_nats"] is not None


def test_a_side_that_cannot_be_is_refused_before_any_picture_is_read(here, capsys, monkeypatch):
    monkeypatch.setattr(ImageFolderDataModule, "picture", lambda *_: pytest.fail("one was read"))
    write_images(here / "pictures", {"a": 15, "b": 15})
    for config, side, reason in (
        ("inverter_images_small", 30, "multiples of 4, not 30x30"), ("inverter_images", 12, "too small for ConvNet"),
        ("unconditional_images", 30, "multiples of 4, not 30x30"), ("mse_images_small", 12, "too small for ConvNet"),
        ("classifier_images_small", 12, "it needs at least 16x16"),
    ):  # fmt: skip
        message = failure(capsys, "fit", f"--config={config}", "--data.path=pictures", f"--data.side={side}")
        assert reason in message
    assert not list(Path().glob("runs/*/*/checkpoints"))
    assert not Path("runs/classifier_images_small").exists()
    monkeypatch.undo()
    monkeypatch.chdir(here)
    main(["download", "--config=classifier_images_small", "--data.path=pictures", "--data.side=30"])  # its own are fine


def test_a_cpu_is_told_of_the_small_experiment_before_a_classifier_is_trained(here, capsys):
    write_images(here / "pictures", {"a": 15, "b": 15})
    inverter = [
        "--data.path=pictures", "--data.side=16", "--model.density.num_filters=4", "--model.density.num_layers=1",
        "--trainer.accelerator=cpu", "--train_classifier=false", "--trainer.max_steps=1000000000",
    ]  # fmt: skip
    with pytest.raises(SystemExit):
        main(["fit", "--config=inverter_images", *inverter])
    said = capsys.readouterr()
    assert "cost: at most 1000000000 steps of 128 images would take " in said.out
    assert " days here; --config inverter_images_small is for such a machine\n" in said.out
    assert "no classifier trained on this data" in said.err
    with pytest.raises(SystemExit):
        main(["fit", "--config=inverter_images_small", *inverter])
    assert "cost:" not in capsys.readouterr().out


def test_the_identity_of_a_folder_is_that_of_version_0_7(here):
    for i in range(12):
        path = Path("x", "ab"[i % 2], f"{i:02}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * i)
    arguments = {"channels": 3, "fit": "crop", "seed": 0, "side": 8, "original_side": None}  # the last came later
    of_files = {"class_names": ["a", "b"], "files": "43caba99b31807c5"}
    assert ImageFolderDataModule("x", side=8).identity == arguments | of_files
