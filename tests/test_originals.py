"""A network that sees the pictures at a side of their own, and a density of smaller ones."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from dataset_files import loaded, write_images
from digests import tensors
from PIL import Image
from small_runs import command, failure, result, run_with_results, the_run

from cli import main
from commands.parser import ParsedCommand
from datamodules.image_folder import ImageFolderDataModule
from evaluations.report import sections
from evaluations.report.page import Section
from evaluations.report.tested_runs import runs_under
from runtime.activations import cached_activations

NETWORK = {"class_path": "ConvNet", "init_args": {"filters": [3, 4], "num_hidden": 8}}
DENSITY = {"class_path": "PixelCNN", "init_args": {"likelihood": "LogisticMixture", "num_filters": 4, "num_layers": 1}}
INVERTER = {
    "model": {"class_path": "Inverter", "init_args": {"layer": "fc3", "network": NETWORK, "density": DENSITY}},
    "data": {"class_path": "ImageFolderDataModule", "init_args": {"path": "pets", "side": 8, "batch_size": 8}},
    "classifier": "classifier.yaml", "num_agreement": 3, "sample_grid": {"num_images": 2, "num_draws": 1},
    "trainer": {"max_steps": 4, "val_check_interval": 2, "accelerator": "cpu", "logger": False},
}  # fmt: skip
CLASSIFIER = {
    "model": {"class_path": "Classifier", "init_args": {"network": NETWORK}},
    "data": {"class_path": "ImageFolderDataModule", "init_args": {"path": "pets", "side": 16, "batch_size": 8}},
    "trainer": {"max_steps": 2, "val_check_interval": 2, "accelerator": "cpu", "logger": False},
}
OWN = ["--data.side=8", "--data.original_side=16"]
FIT = ["fit", "--config=inverter.yaml", *OWN]


def picture(i):
    """Smooth, so that it is nearly the same at every size; 20x30."""
    pixels = np.random.default_rng(i).integers(256, size=(3, 4, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((30, 20), Image.Resampling.BICUBIC)


def working_folder(folder):
    write_images(folder / "pets", {"cat": 25, "dog": 25}, picture)
    for name, config in (("inverter", INVERTER), ("classifier", CLASSIFIER)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(config))
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A working folder with a classifier that has seen 16x16 pictures, and an inverter that models them at 8x8."""
    folder = working_folder(tmp_path_factory.mktemp("originals"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        main(["fit", "--config=classifier.yaml", *OWN])
        main(FIT)
    return folder


@pytest.fixture
def copied(trained, tmp_path, monkeypatch):
    folder = tmp_path / "copy"
    shutil.copytree(trained, folder, symlinks=True)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def run(copied):
    """The run, its inverter with the weights that were tested, and its data."""
    folder = run_with_results("inverter")
    made = ParsedCommand(["test", *FIT[1:]])
    made.datamodule.setup("test")
    saved = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    made.model.load_state_dict(saved["state_dict"])
    return folder, made.model.eval(), made.datamodule


def tensors_of(checkpoint):
    """Weights, averages and moments, each as bytes."""
    saved = torch.load(checkpoint, weights_only=True)
    kept = {key: saved[key] for key in ("state_dict", "current_model_state", "optimizer_states")}
    return [(name, x.numpy().tobytes()) for name, x in tensors(kept) if isinstance(x, torch.Tensor)]


def both(path, **more):
    """The same folder with and without originals."""
    return (loaded(ImageFolderDataModule(str(path), side=8, **more, original_side=side)) for side in (None, 16))


@pytest.mark.parametrize("folders", [{"cat": 15, "dog": 15}, {"train/cat": 20, "val/cat": 3, "test/cat": 4}])
def test_x_is_the_same_to_the_last_bit_and_the_network_sees_the_same_part(tmp_path, folders):
    path = write_images(tmp_path / "pets", folders, picture)
    for k, file in enumerate(path.rglob("*.png")):  # a large JPEG is decoded at a fraction of its size
        picture(k).resize((900, 600)).save(file.with_suffix(".jpg"))
        file.unlink()
    plain, data = both(path)
    for name, split in data.datasets.items():
        batch, its = split.first(99), plain.datasets[name].first(99)
        assert "context_image" not in its
        assert all(torch.equal(its[key], batch[key]) for key in ("image", "label", "index"))
        assert batch["context_image"].shape == (len(split), 3, 16, 16)
        small = F.avg_pool2d(batch["context_image"].float(), 2)
        assert (small - batch["image"]).abs().mean() < 3  # another picture is 60 away, and another part of it 20
    test = data.datasets["test"].first(99)
    assert torch.equal(test["other_image"], test["context_image"].roll(-1, dims=0))


def test_a_batch_with_h_from_disk_does_not_bring_the_originals(tmp_path):
    data = loaded(ImageFolderDataModule(str(working_folder(tmp_path) / "pets"), side=8, original_side=16))
    train = data.datasets["train"]
    assert train.seen is train.originals
    train.h = torch.arange(len(train))
    assert set(train.first(3)) == {"image", "label", "index", "h"}


def test_a_checkpoint_knows_what_its_network_saw_and_one_of_before_saw_x(tmp_path):
    path = str(working_folder(tmp_path) / "pets")
    plain, data = (ImageFolderDataModule(path, side=8, original_side=side) for side in (None, 16))
    of_before = {**plain.state_dict(), "identity": {k: v for k, v in plain.identity.items() if k != "original_side"}}
    for ours, theirs, was in (
        (plain, data.state_dict(), 16),
        (data, plain.state_dict(), "null"),
        (data, of_before, "null"),
    ):
        with pytest.raises(ValueError, match=rf"x.ckpt was trained with --data.original_side {was}, not"):
            ours.check({"data": theirs}, "x.ckpt")
    for ours, theirs in ((plain, of_before), (data, data.state_dict())):
        ours.check({"data": theirs}, "x.ckpt")


def test_other_proportions_and_more_than_the_memory_are_refused(tmp_path):
    path = str(working_folder(tmp_path) / "pets")
    with pytest.raises(
        ValueError, match=r"original_side is 16x24, which has other proportions than side, 8x8, .*--data.fit resize"
    ):
        ImageFolderDataModule(path, side=8, original_side=(16, 24))
    assert ImageFolderDataModule(path, side=(4, 8), original_side=(16, 32)).seen_shape == (3, 16, 32)
    assert ImageFolderDataModule(path, side=8, original_side=(16, 24), fit="resize").shapes == [(3, 8, 8), (3, 16, 24)]
    with pytest.raises(
        ValueError, match=r"50 images of 8x8 and 1000000x1000000 take 300000.00 GB .* --data.original_side"
    ):
        ImageFolderDataModule(path, side=8, original_side=1_000_000)


def test_the_number_is_of_the_small_picture_under_the_h_of_the_original(run, capsys):
    folder, inverter, data = run
    batch, row = data.datasets["test"].first(99), result("inverter")
    assert inverter.density.image_shape == (3, 8, 8)
    h = inverter.context(batch["context_image"])
    with torch.no_grad():
        log_prob = inverter.density.log_prob(batch["image"], h)
        shuffled = inverter.density.log_prob(batch["image"], h.roll(-1, dims=0))
    assert np.load(folder / "log_prob.npy") == pytest.approx(log_prob.numpy(), rel=1e-5)
    assert row["shuffled_nce_nats"] == pytest.approx(shuffled.mean().item(), rel=1e-5)
    assert (row["sees"], row["seen_shape"], row["image_shape"]) == ("original", [3, 16, 16], [3, 8, 8])
    assert (row["preprocessing"], row["class_agreement"], row["num_samples"]) == (None, None, 0)
    assert np.load(folder / "samples.npz")["draws"].shape == (2, 1, 3, 8, 8)
    train = data.datasets["train"].first(99)["context_image"]
    assert inverter.context_mean.numpy() == pytest.approx(inverter.representation(train).mean(0).numpy(), abs=1e-5)
    main(["test", *FIT[1:]])
    bound = "h is of the pictures at 16x16: a lower bound on what the layer tells about the 8x8 picture"
    assert bound in capsys.readouterr().out


NOT_NUMBERS = ("checkpoint", "files", "recipe")  # which says the data's arguments


def test_where_the_original_is_x_every_number_is_that_of_x(tmp_path, monkeypatch):
    monkeypatch.chdir(working_folder(tmp_path))
    network = ["--classifier=null", "--model.weights=untrained"]
    found = []
    for root, more in (("x", []), ("original", ["--data.original_side=16"])):
        steps = ["--trainer.max_steps=2", f"--trainer.default_root_dir={root}"]
        main(["fit", "--config=inverter.yaml", "--data.side=16", *network, *steps, *more])
        folder = run_with_results("inverter", root)
        weights = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        row = {key: value for key, value in result("inverter", root).items() if key not in NOT_NUMBERS}
        found.append((row, {k: v.tolist() for k, v in weights.items()}, np.load(folder / "log_prob.npy").tolist()))
    assert found[0] == found[1]
    assert found[0][0]["sees"] == "x"
    assert found[0][0]["class_agreement"] is not None


def test_h_on_disk_is_not_that_of_warped_originals(run, copied, capsys):
    warped = ["--model.density.decoder_filters=2", "--model.density.companions=1", "--model.warp=1"]
    with pytest.raises(SystemExit):
        main([*FIT, *warped, "--cache_activations=float32", "--name=warped"])
    assert "--model.warp takes h of warped pictures" in capsys.readouterr().err
    main([*FIT, *warped, "--name=without_disk"])


def test_h_on_disk_is_of_the_originals_and_changes_no_weight(run, copied):
    folder, inverter, data = run
    shutil.move("runs/inverter", "before")
    main([*FIT, "--cache_activations=float32"])
    before = tensors_of(copied / "before" / folder.name / "checkpoints" / "last.ckpt")
    assert tensors_of(the_run(copied, "inverter") / "checkpoints" / "last.ckpt") == before
    (kept,) = Path("runs/activations").glob("fc3_train_*.npy")
    h = inverter.representation(data.datasets["train"].seen)
    assert np.load(kept) == pytest.approx(h.numpy(), abs=1e-5)
    assert (
        cached_activations(inverter.representation, data.datasets["train"].seen, "train", kept.parent).filename
        == kept.resolve()
    )


def test_a_resumed_run_is_the_uninterrupted_one(trained, copied):
    shutil.rmtree("runs/inverter")
    main([*FIT, "--trainer.max_steps=2", "--test_after_fit=false"])
    main([*FIT, "--ckpt_path=last"])
    runs = [the_run(folder, "inverter") for folder in (trained, copied)]
    whole, resumed = (tensors_of(run / "checkpoints" / "last.ckpt") for run in runs)
    assert whole == resumed


def test_every_verb_takes_h_of_the_originals(run, capsys):
    folder, inverter, data = run
    batch = data.datasets["test"].first(3)
    main(["sample", *FIT[1:], "--num_images=3", "--num_draws=2"])
    assert np.array_equal(
        np.load(folder / "draws.npy"), inverter.draws(batch["context_image"], batch["index"].tolist(), 2)
    )
    assert np.array_equal(np.load(folder / "inputs.npy"), batch["image"])
    main(["predict", *FIT[1:]])
    assert np.load(folder / "predictions.npy").shape == (5, 3, 8, 8)
    main(["validate", *FIT[1:]])
    main(["estimators", *FIT[1:]])
    assert (folder / "estimators.json").is_file()
    capsys.readouterr()
    main(["score", *FIT[1:], "--images=[pets/cat/00.png, pets/dog/03.png]", "--contexts=[pets/cat/00.png]"])
    x, seen = (
        torch.stack(each)
        for each in zip(
            *(data.pictures(Path(f"pets/{name}.png").read_bytes()) for name in ("cat/00", "dog/03")), strict=True
        )
    )
    with torch.no_grad():
        log_prob = inverter.density.log_prob(x, inverter.context(seen[:1].expand_as(seen)))
    rows = (folder / "scores.csv").read_text().splitlines()[1:]
    assert [float(row.split(",")[1]) for row in rows] == pytest.approx(log_prob.tolist(), abs=0.01)
    said = failure(capsys, "distances", *FIT[1:])
    assert (
        "fc3 sees the pictures at 16x16, and draws have 8x8 pixels, so that there is no distance between their h"
        in said
    )
    said = failure(
        capsys, "test", "--config=inverter.yaml", f"--ckpt_path={folder}/checkpoints/best.ckpt", "--data.side=16"
    )
    assert "was trained with --data." in said


def test_show_has_a_sheet_of_what_the_network_sees(copied, capsys):
    main(["show", *FIT[1:], "--model.preprocessing.side=20", "--model.preprocessing.mean=imagenet"])
    said = capsys.readouterr().out
    assert "the network sees pictures of their own resolution, [3, 20, 20], less mean 0.485, 0.456, 0.406, over" in said
    assert Path("runs/inverter/contact_sheet_train_as_seen.png").is_file()
    main(["show", "--config=classifier.yaml"])
    assert "the network sees pictures, [3, 16, 16], less mean 0, over standard deviation 1\n" in capsys.readouterr().out
    assert not Path("runs/classifier/contact_sheet_train_as_seen.png").exists()


def test_two_processes_find_what_one_finds(trained, copied):
    (before,) = Path(trained, "runs", "inverter").glob("*/log_prob.npy")
    drawn = np.load(before.with_name("samples.npz"))["draws"]
    command(copied, "test", *FIT[1:], "--trainer.devices=2", "--trainer.strategy=ddp")
    folder = run_with_results("inverter")
    assert np.load(folder / "log_prob.npy") == pytest.approx(np.load(before), rel=1e-6)
    assert np.array_equal(np.load(folder / "samples.npz")["draws"], drawn)


def test_the_report_tells_the_two_ways_to_see_apart(copied):
    folder = run_with_results("inverter")
    small = Path("runs/inverter_x") / folder.name
    shutil.copytree(folder, small)
    row = json.loads((small / "results.json").read_text())
    change = {
        "name": "inverter_x",
        "sees": "x",
        "seen_shape": [3, 8, 8],
        "checkpoint": row["checkpoint"].replace("inverter", "inverter_x"),
    }
    (small / "results.json").write_text(json.dumps(row | change))
    said = sections(runs_under([Path("runs")]), [])
    text = "\n".join(str(part) for section in said if isinstance(section, Section) for part in section.parts)
    assert (
        "fc3, seen at 16x16: h is of the pictures at 16x16: a lower bound on what the layer tells about the 8x8" in text
    )
    assert "Some networks see the pictures at a side of their own" in text
    kept = next(
        part for section in said for part in section.parts if getattr(part, "caption", "").startswith("What the layers")
    )
    assert sorted(row[0] for row in kept.rows) == ["fc3", "fc3, seen at 16x16"]
    assert "Differences of NCE, nats." not in text  # neither is a function of the other
