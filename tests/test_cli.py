"""The command line, driven as a user would."""

import csv
import itertools
import json
import shutil
import signal
import subprocess
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from small_runs import OWN_NETWORK, SHORT, command, failure, result, run_with_results, write_short_config

from cli import main
from datamodules.mnist import MNIST5kDataModule
from evaluations.estimators import all_estimates
from evaluations.results import ClassifierResult, InverterResult
from inverters.inverter import Inverter
from inverters.pixelcnn import PixelCNN
from runtime.run import Run

INVERTER, SMALL = SHORT[:1], SHORT[1:]


def run_folders(name):
    """Of the runs that have trained; one that was refused leaves an empty folder."""
    return sorted(path.parent.parent for path in Path("runs", name).glob("*/checkpoints/best.ckpt"))


@pytest.fixture(scope="module")
def workspace(trained_runs, tmp_path_factory):
    """A folder with a trained classifier and a trained inverter, which all tests of this file go on with."""
    folder = tmp_path_factory.mktemp("workspace")
    shutil.copytree(trained_runs, folder / "runs", symlinks=True)
    return folder


@pytest.fixture
def here(workspace, monkeypatch):
    monkeypatch.chdir(workspace)


def test_fit_leaves_everything_in_its_run_folder(here):
    (folder,) = run_folders("inverter_mnist5k_fc3")
    for file in ("config.yaml", "checkpoints/last.ckpt", "checkpoints/best.ckpt", "metrics.csv", "samples.png"):
        assert (folder / file).is_file(), file
    assert (folder / "samples_step000002.png").is_file()
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["model"]["init_args"]["layer"] == "fc3"
    assert config["data"]["init_args"]["batch_size"] == 4
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {"train/nce_nats", "val/nce_nats", "val/bits_per_dim", "test/nce_nats"} <= rows[0].keys()
    assert [row["step"] for row in rows if row["val/nce_nats"]] == ["0", "1"]  # validation by steps fires


def test_results_of_an_inverter(here):
    row = result()
    log_prob = np.load(run_with_results() / "log_prob.npy")
    index = np.load(run_with_results() / "index.npy")
    assert InverterResult.from_json(row).to_json() == row
    about = {
        "name": "inverter_mnist5k_fc3", "dataset": "mnist5k", "kind": "inverter", "network": "ConvNet", "layer": "fc3",
        "depth": 3, "bottleneck": True, "density": "PixelCNN", "classifier": "classifier_mnist5k",
        "classifier_updates": 30,
    }  # fmt: skip
    assert about.items() <= row.items()
    assert row["split"] == "test"
    assert row["num_images"] == len(log_prob) == len(set(index)) == 10
    assert row["nce_nats"] == pytest.approx(log_prob.mean(), rel=1e-6)
    assert row["nce_nats_se"] == pytest.approx(log_prob.std(ddof=1) / 10**0.5, rel=1e-5)
    assert row["bits_per_dim"] == pytest.approx(-row["nce_nats"] / 784 / np.log(2))
    per_pixel = np.load(run_with_results() / "log_prob_per_pixel.npy")
    assert per_pixel.shape == (10, 28, 28)
    assert np.array_equal(per_pixel.sum(axis=(1, 2), dtype=np.float64).round(9), log_prob.round(9))
    assert row["shuffled_nce_nats"] != row["nce_nats"]
    assert row["num_samples"] == 3
    assert (row["class_agreement"] * 3) % 1 == pytest.approx(0, abs=1e-9)
    assert Path(row["checkpoint"]).is_file()


def test_results_of_a_classifier(here):
    row = result("classifier_mnist5k")
    assert ClassifierResult.from_json(row).to_json() == row
    assert row["published"] == dict.fromkeys(("accuracy", "nce_nats", "im_s_ratio", "im_nn_ratio", "note"))
    assert row["num_images"] == 500
    assert row["accuracy"] > 0.5  # 30 steps learn something
    assert row["accuracy_se"] == pytest.approx((row["accuracy"] * (1 - row["accuracy"]) / 499) ** 0.5)


def test_the_inverters_classifier_is_the_trained_one_and_did_not_drift(here):
    (classifier,) = Path("runs/classifier_mnist5k").glob("*/checkpoints/best.ckpt")
    (inverter,) = Path("runs/inverter_mnist5k_fc3").glob("*/checkpoints/best.ckpt")
    trained = torch.load(classifier, weights_only=True)["state_dict"]
    checkpoint = torch.load(inverter, weights_only=True)
    for state in (checkpoint["state_dict"], checkpoint["current_model_state"]):
        frozen = {k.removeprefix("representation."): v for k, v in state.items() if k.startswith("representation.")}
        assert len(frozen) == 8
        assert all(torch.equal(value, trained[name]) for name, value in frozen.items())


def test_checkpoint_scores_the_same_in_a_new_process_without_the_classifier(here, tmp_path):
    row = result()
    moved = tmp_path / "elsewhere.ckpt"
    moved.write_bytes(Path(row["checkpoint"]).read_bytes())
    command(tmp_path, "test", *INVERTER, *SMALL, f"--ckpt_path={moved}", "--trainer.logger=false")
    again = result(root=tmp_path / "runs")
    assert again["checkpoint"] == str(moved)
    # Of what training a file is that lies elsewhere nobody knows.
    of_run = {"checkpoint", "training_images", "training_flop", "recipe"}
    assert {k: v for k, v in again.items() if k not in of_run} == {k: v for k, v in row.items() if k not in of_run}


def test_test_takes_the_best_checkpoint_of_the_newest_run(here, capsys):
    main(["test", *INVERTER, *SMALL])
    printed = capsys.readouterr().out
    assert str(run_folders("inverter_mnist5k_fc3")[-1] / "checkpoints" / "best.ckpt") in printed
    assert "nats an image (standard error" in printed
    assert len(run_folders("inverter_mnist5k_fc3")) == 1  # no folder of its own


def test_a_limit_of_1_0_is_one_batch_as_that_of_1(here):
    main(["test", *INVERTER, *SMALL, "--trainer.limit_test_batches=1.0"])
    assert result()["num_images"] == 10


def test_validate_reports_the_validation_nce(here, capsys):
    main(["validate", *INVERTER, *SMALL, "--ckpt_path", "last"])
    assert "val/nce_nats" in capsys.readouterr().out


def test_predict_gives_samples_or_class_probabilities(here):
    main(["predict", *INVERTER, *SMALL, "--trainer.limit_predict_batches=2"])
    (path,) = Path("runs/inverter_mnist5k_fc3").glob("*/predictions.npy")
    samples = np.load(path)
    assert samples.shape == (20, 1, 28, 28)
    assert samples.dtype == np.uint8
    main(["predict", "--config", "classifier_mnist5k.yaml"])
    (path,) = Path("runs/classifier_mnist5k").glob("*/predictions.npy")
    probabilities = np.load(path)
    assert probabilities.shape == (500, 10)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)


def test_sample_draws_a_grid_that_the_seed_decides(here):
    (folder,) = run_folders("inverter_mnist5k_fc3")
    draws = []
    for seed in (5, 5, 6):
        main(["sample", *INVERTER, *SMALL, "--num_images=3", "--num_draws=2", f"--seed={seed}"])
        draws.append(np.load(folder / "draws.npy"))
    assert draws[0].shape == (3, 2, 1, 28, 28)
    assert np.array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])
    with Image.open(folder / "draws.png") as grid:
        assert grid.width > 200


def test_a_test_keeps_its_pictures_as_arrays(here):
    arrays = np.load(run_with_results() / "samples.npz")
    assert arrays["draws"].shape == (2, 1, 1, 28, 28)
    main(["sample", *INVERTER, *SMALL, "--num_images=2", "--num_draws=1"])
    assert np.array_equal(np.load(run_folders("inverter_mnist5k_fc3")[-1] / "draws.npy"), arrays["draws"])


def loaded(folder):
    """The inverter as a library gives it, and its data."""
    with (folder / "checkpoints/best.ckpt").open("rb") as file:
        weights = torch.load(file, weights_only=True)["state_dict"]
    beyond = {"decoder_filters": 32, "level_features": 8, "palette": True, "companions": 7}  # the paper's
    density = partial(PixelCNN, num_filters=4, num_layers=1, dropout=0, **beyond)
    inverter = Inverter("fc3", (1, 28, 28), 10, density=density)
    inverter.load_state_dict(weights)
    data = MNIST5kDataModule(num_train=100)
    data.setup("fit")
    return inverter.eval(), data


DISTANCES = [*INVERTER, *SMALL, "--num_images=8", "--num_samples=3", "--num_queries=2", "--num_candidates=12"]


@pytest.mark.parametrize("space", ["layer", "pixels"])
def test_distances_agree_with_numpy_s(here, capsys, space):
    main(["distances", *DISTANCES, f"--space={space}"])
    assert "IM-NN nearest sample" in capsys.readouterr().out
    folder = run_with_results()
    row, shown = json.loads((folder / "distances.json").read_text()), np.load(folder / "nearest.npz")
    tested = json.loads((folder / "results.json").read_text())
    assert {key: row[key] for key in ("network_digest", "density_digest")}.items() <= tested.items()
    inverter, data = loaded(folder)
    h = [inverter.representation(data.datasets[split].images).double().numpy() for split in ("test", "train")]
    one_nn = [abs(one - h[1]).mean(axis=1).min() for one in h[0][:8]]
    assert row["one_nn"] == pytest.approx(np.mean(one_nn), rel=1e-5)
    images, index = data.datasets["test"].images[:8], data.datasets["test"].index[:8].tolist()
    draws = inverter.draws(images, index, 3)
    of_draws = inverter.representation(draws.flatten(0, 1)).double().numpy().reshape(8, 3, -1)
    to_draws = abs(of_draws - h[0][:8, None]).mean(axis=2)
    assert (row["im_s"], row["im_nn"]) == pytest.approx((to_draws.mean(), to_draws.min(axis=1).mean()), rel=1e-5)
    assert (row["num_images"], row["num_samples"]) == (8, 3)
    classes = [inverter.representation.class_probabilities(x).argmax(1) for x in (images, draws.flatten(0, 1))]
    assert row["class_agreement"] == pytest.approx((classes[1].view(8, 3) == classes[0][:, None]).double().mean())
    assert np.array_equal(shown["inputs"], images[:2])
    assert shown["samples"].shape == shown["training"].shape == shown["blind"].shape == (2, 6, 1, 28, 28)
    encode = inverter.representation if space == "layer" else torch.Tensor.double
    shown_of = {"training": data.datasets["train"].images, "sample": inverter.draws(images[:1], index[:1], 12)[0]}
    for name, among in shown_of.items():
        far = (encode(among).double() - encode(images[:1]).double()).abs().flatten(1).mean(dim=1)
        assert shown[f"{name}_distances"][0] == pytest.approx(far.sort().values[:6].numpy(), rel=1e-5)


def test_distances_need_a_layer(here, capsys):
    unconditional = ["--config", "unconditional_mnist5k.yaml", *SMALL]
    main(["fit", *unconditional, "--trainer.max_steps=1"])
    assert "an unconditional model has no layer" in failure(capsys, "distances", *unconditional)


def test_estimators_are_asked_of_the_same_layer(here, capsys):
    main(["estimators", *INVERTER, *SMALL, "--num_images=100"])
    rows = json.loads((run_with_results() / "estimators.json").read_text())
    printed = capsys.readouterr().out
    assert all(row["estimator"] in printed for row in rows)
    inverter, data = loaded(run_with_results())
    h = inverter.representation(data.datasets["test"].images[:100])
    digest = result()["network_digest"]
    assert rows == [result.to_json() for result in all_estimates(h, digest)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_sampling_keeps_what_is_finished(here, monkeypatch, capsys, number):
    (folder,) = run_folders("inverter_mnist5k_fc3")
    arguments = [*INVERTER, *SMALL, "--num_images=2", "--num_draws=2", "--model.sample_batch_size=1"]
    main(["sample", *arguments])
    interrupt_at_draw(3, number, monkeypatch)
    with pytest.raises(SystemExit) as caught:
        main(["sample", *arguments])
    assert caught.value.code == 130
    assert "interrupted with 2 draws finished" in capsys.readouterr().out
    finished = np.load(folder / "draws_finished.npy")
    assert np.array_equal(finished, np.load(folder / "draws.npy")[0])


def test_interrupted_prediction_keeps_what_is_finished(here, monkeypatch, capsys):
    (folder,) = run_folders("inverter_mnist5k_fc3")
    arguments = [*INVERTER, *SMALL, "--trainer.limit_predict_batches=2"]
    main(["predict", *arguments])
    whole = np.load(folder / "predictions.npy")
    interrupt_at_draw(2, signal.SIGINT, monkeypatch)
    with pytest.raises(SystemExit):
        main(["predict", *arguments])
    assert "interrupted after samples [10, 1, 28, 28]" in capsys.readouterr().out
    assert np.array_equal(np.load(folder / "predictions.npy"), whole[:10])


def interrupt_at_draw(n, number, monkeypatch):
    """Send this process a signal when a batch of images is drawn for the n-th time."""
    calls = itertools.count(1)
    sample = PixelCNN.sample

    def interrupted(*args):
        if next(calls) == n:
            signal.raise_signal(number)
        return sample(*args)

    monkeypatch.setattr(PixelCNN, "sample", interrupted)


def test_bfloat16_is_a_key_of_the_training(here, capsys):
    (classifier,) = Path("runs/classifier_mnist5k").glob("*/checkpoints/best.ckpt")
    main(["fit", *INVERTER, *SMALL, "--trainer.max_steps=2", "--trainer.precision=bf16-mixed",
          f"--classifier={classifier}", "--trainer.default_root_dir=other"])  # fmt: skip
    rounded = result(root="other")
    main(["test", *INVERTER, *SMALL, "--trainer.default_root_dir=other"])
    exact = result(root="other")
    assert rounded["nce_nats"] == exact["nce_nats"]  # a test is in float32


def test_score_gives_the_matrix_of_images_and_contexts(here, capsys, tmp_path):
    paths = []
    for i in range(3):
        paths.append(str(tmp_path / f"{i}.png"))
        Image.fromarray(np.random.default_rng(i).integers(256, size=(28, 28), dtype=np.uint8)).save(paths[-1])
    listed = "[" + ",".join(paths) + "]"
    main(["score", *INVERTER, *SMALL, f"--images={listed}", f"--contexts={listed}"])
    (folder,) = run_folders("inverter_mnist5k_fc3")

    def matrix():
        with (folder / "scores.csv").open() as file:
            return np.array([[float(cell) for cell in row[1:]] for row in list(csv.reader(file))[1:]])

    full = matrix()
    assert full.shape == (3, 3)
    assert len(np.unique(full)) == 9
    assert f"{full[0, 1]:.3f}" in capsys.readouterr().out
    main(["score", *INVERTER, *SMALL, f"--images={listed}"])
    np.testing.assert_allclose(matrix()[:, 0], np.diag(full), atol=2e-3)


def test_score_refuses_images_of_another_size(here, capsys, tmp_path):
    Image.new("L", (20, 28)).save(tmp_path / "thin.png")
    message = failure(capsys, "score", *INVERTER, *SMALL, f"--images=[{tmp_path / 'thin.png'}]")
    assert "thin.png (ValueError: it is 20x28 pixels, and must be 28x28)" in message
    (tmp_path / "text.png").write_text("not a picture")
    assert "text.png" in failure(capsys, "score", *INVERTER, *SMALL, f"--images=[{tmp_path / 'text.png'}]")


def test_resume_goes_on_in_its_folder_and_adds_to_its_metrics(here):
    before = run_folders("inverter_mnist5k_fc3")
    with (before[0] / "metrics.csv").open() as file:
        old = [row for row in csv.DictReader(file) if not row["test/nce_nats"]]  # the test is of the longer run now
    main(["fit", *INVERTER, *SMALL, "--ckpt_path=last", "--trainer.max_steps=4", "--trainer.val_check_interval=2"])
    assert run_folders("inverter_mnist5k_fc3") == before
    with (before[0] / "metrics.csv").open() as file:
        new = list(csv.DictReader(file))
    assert new[: len(old)] == old
    assert [row["step"] for row in new[len(old) :] if row["val/nce_nats"]] == ["3"]
    assert torch.load(before[0] / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 4


def test_classifier_is_kept_after_exactly_these_updates(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main(["fit", "--config", "classifier_mnist5k.yaml", "--trainer.max_steps=5", "--keep_updates=[0, 2, 5]",
          "--model.optimizer=torch.optim.SGD", "--test_after_fit=false"])  # fmt: skip
    kept = {path.stem: path for path in Path("runs").glob("*/*/checkpoints/update_*.ckpt")}
    assert sorted(kept) == ["update_000000", "update_000002", "update_000005"]
    checkpoints = [torch.load(kept[name], weights_only=True) for name in sorted(kept)]
    assert [c["global_step"] for c in checkpoints] == [0, 2, 5]
    weights = [c["state_dict"]["network.logits.weight"] for c in checkpoints]
    assert not torch.equal(weights[0], weights[1])
    assert "momentum" in str(checkpoints[2]["optimizer_states"])  # of SGD, which was asked for
    main(["fit", *INVERTER, *SMALL, "--trainer.max_steps=1", f"--classifier={kept['update_000002']}"])
    (best,) = Path("runs/inverter_mnist5k_fc3").glob("*/checkpoints/best.ckpt")
    inverter = torch.load(best, weights_only=True)["state_dict"]
    assert torch.equal(inverter["representation.network.logits.weight"], weights[1])


def test_show_makes_a_contact_sheet(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(["show", "--config", "classifier_photos.yaml", "--split=val", "--num_images=25"])
    assert "photos: train 5600, val 800, test 800 images of [3, 32, 32]" in capsys.readouterr().out
    with Image.open("runs/classifier_photos/contact_sheet_val.png") as sheet:
        assert sheet.width > sheet.height > 300
    message = failure(capsys, "show", "--config", "classifier_photos.yaml", "--split=tset")
    assert "no split 'tset'; there are train, val, test" in message


def test_two_runs_never_share_a_folder(tmp_path):
    with ExitStack() as stack:
        runs = [stack.enter_context(Run.new(tmp_path, "name")) for _ in range(4)]
        assert len({run.folder for run in runs}) == 4
    assert not (tmp_path / "name").exists()  # as nothing was written


def test_missing_classifier_is_trained_first_once(tmp_path, monkeypatch, capfd):
    """Shortened by a config of the same name in the working folder."""
    monkeypatch.chdir(tmp_path)
    write_short_config(tmp_path, "classifier_mnist5k", 3)
    for said in (True, False):
        main(["fit", *INVERTER, *SMALL, "--trainer.max_steps=1", "--test_after_fit=false"])
        out = capfd.readouterr().out
        assert ("training it first: python cli.py fit --config classifier_mnist5k" in out) == said
        assert "cost: at most 1 steps of 4 images" in out
        assert len(run_folders("classifier_mnist5k")) == 1


def test_command_line_wins_over_the_checkpoint(here, capsys):
    message = failure(capsys, "test", *INVERTER, *SMALL, "--model.density.num_filters=8")
    assert "is the checkpoint of another model" in message
    assert "num_filters" not in message


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--model.layr=fc3"], "no key --model.layr; did you mean --model.layer?"),
        (["--model.density.num_filter=3"], "did you mean --model.density.num_filters?"),
        (["--data.batch_sze=3"], "did you mean --data.batch_size?"),
        (["--patiense=3"], "did you mean --patience?"),
        (["--trainer.max_step=3"], "did you mean --trainer.max_steps?"),
        (["--model.lr=fast"], '--model.lr is "fast"; give a number'),
        (["--lr=0.1"], "no key --lr; did you mean --model.lr?"),
        (["--data=MNIST5kData"], "did you mean 'MNIST5kDataModule'?"),
        (["--classifier=absent.ckpt"], "no checkpoint at absent.ckpt"),
        (["--ckpt_path=absent.ckpt"], "no checkpoint at absent.ckpt"),
        (["--config=inverter_mnist5k_fc4.yaml"], "did you mean inverter_mnist5k_fc3.yaml?"),
    ],
)
def test_a_mistake_is_answered_with_one_clear_sentence(here, capsys, arguments, expected):
    message = failure(capsys, "fit", *INVERTER, *SMALL, *arguments)
    assert expected in message
    assert len(message) < 400


@pytest.mark.parametrize(
    ("arguments", "missing", "made_by"),
    [
        (["fit", *SMALL, "--train_classifier=false"], "classifier_mnist5k", "classifier_mnist5k"),
        (["test", "--ckpt_path=best"], "no best checkpoint in runs/inverter_mnist5k_fc3", "inverter_mnist5k_fc3"),
        (["test", "--ckpt_path=last"], "no last checkpoint in runs/inverter_mnist5k_fc3", "inverter_mnist5k_fc3"),
    ],
)
def test_what_is_not_there_yet_is_said_with_the_command_that_makes_it(
    tmp_path, monkeypatch, capsys, arguments, missing, made_by
):
    monkeypatch.chdir(tmp_path)
    message = failure(capsys, arguments[0], *INVERTER, *arguments[1:])
    assert missing in message
    assert f"python cli.py fit --config {made_by}.yaml" in message


def test_a_classifier_of_another_kind_is_refused(here, capsys, tmp_path):
    (path,) = Path("runs/classifier_mnist5k").glob("*/checkpoints/best.ckpt")
    good = torch.load(path, weights_only=True)

    def refused(name, change):
        checkpoint = {**good, **change}
        torch.save(checkpoint, tmp_path / name)
        return failure(capsys, "fit", *INVERTER, *SMALL, f"--classifier={tmp_path / name}")

    assert "was trained on svhn, not on mnist5k" in refused("data.ckpt", {"MNIST5kDataModule": {"dataset": "svhn"}})
    other = good["architecture"].replace("ReLU", "Tanh")
    assert "Tanh() where this config has" in refused("tanh.ckpt", {"architecture": other})
    fewer = {k: v for k, v in good["state_dict"].items() if "logits" not in k}
    assert "it lacks logits.weight" in refused("short.ckpt", {"state_dict": fewer})
    (inverter,) = Path("runs/inverter_mnist5k_fc3").glob("*/checkpoints/best.ckpt")
    message = failure(capsys, "fit", *INVERTER, *SMALL, f"--classifier={inverter}")
    assert "is not the checkpoint of a classifier" in message


def test_checkpoint_of_another_layer_is_refused(here, capsys):
    (path,) = Path("runs/inverter_mnist5k_fc3").glob("*/checkpoints/best.ckpt")
    checkpoint = torch.load(path, weights_only=True)
    torch.save({**checkpoint, "layer": "conv1"}, "conv1.ckpt")  # conv1 and conv2 differ in no tensor's shape
    for verb in ("test", "sample"):
        message = failure(capsys, verb, *INVERTER, *SMALL, "--ckpt_path=conv1.ckpt")
        assert "inverts layer conv1; this config asks for fc3" in message


def test_several_configs_merge_and_the_first_names_the_run(here, tmp_path, capsys):
    (tmp_path / "more.yaml").write_text("data:\n  init_args:\n    batch_size: 2\n")
    with pytest.raises(SystemExit) as caught:
        main(["fit", *INVERTER, "--config", str(tmp_path / "more.yaml"), "--print_config"])
    assert caught.value.code == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["data"]["init_args"]["batch_size"] == 2
    assert printed["model"]["init_args"]["layer"] == "fc3"


def test_wandb_holds_metrics_pictures_config_and_summary(here):
    """The offline run is read back with W&B's own reader."""
    (folder,) = run_folders("inverter_mnist5k_fc3")
    run = sorted((folder / "wandb").glob("offline-run-*"))[0]
    (log,) = run.glob("*.wandb")
    reader = Path(sys.executable).parent / "wandb"
    done = subprocess.run([reader, "leet", "inspect", "--json", log], capture_output=True, text=True, check=True)
    shown = done.stdout
    row = result()
    for text in ("train/nce_nats", "val/nce_nats", "test/samples", "inverter_mnist5k_fc3", "mnist5k", "ConvNet", "fc3"):
        assert text in shown, text
    assert str(row["num_samples"]) in shown
    assert list(run.glob("files/media/images/test/samples*.png"))


def test_activations_are_kept_once_for_all_runs(here, capsys):
    short = ["--data.num_train=100", "--trainer.max_steps=1", "--trainer.limit_val_batches=1", "--test_after_fit=false"]
    for _ in range(2):
        main(["fit", "--config", "mse_mnist5k_logits.yaml", *short, "--cache_activations=float16"])
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("making runs/activations/logits_train_") for line in lines) == 1
    (path,) = Path("runs/activations").glob("logits_*.npy")
    h = np.load(path, mmap_mode="r")
    assert (h.shape, h.dtype) == ((100, 10), np.float16)


def test_the_report_is_one_file_and_a_wandb_run(here, capsys):
    main(["report"])
    assert "runs: runs/report.html" in capsys.readouterr().out
    assert "inverter_mnist5k_fc3" in Path("runs/report.html").read_text()
    media = sorted(Path("runs/wandb").glob("offline-run-*"))[-1] / "files" / "media"
    (accuracy,) = [path for path in media.rglob("*.table.json") if "Accuracy" in path.name]
    row = result("classifier_mnist5k")
    told = json.loads(accuracy.read_text())["data"][0][4]
    assert told.startswith(f"{100 * row['accuracy']:.2f} [{100 * row['accuracy_low']:.2f}, ")
    assert list(media.rglob("*.png"))


def test_the_report_says_what_it_lacks(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert "no folder runs" in failure(capsys, "report")
    Path("runs").mkdir(exist_ok=True)
    assert "no results.json in runs; make one with: python cli.py fit" in failure(capsys, "report")
    Path("runs/results.json").write_text("{")
    assert "runs/results.json cannot be read" in failure(capsys, "report")


def test_a_network_of_ones_own_is_named_by_its_import_path(tmp_path, monkeypatch):
    """No file of ours knows it; agreement is asked of whatever gives a score for each class."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("own_network.py").write_text(OWN_NETWORK)
    own = ["--model.network=own_network.TwoStages", "--model.network.num_units=3"]
    main(["fit", "--config", "classifier_mnist5k.yaml", *own, "--trainer.max_steps=2"])
    main(["fit", *INVERTER, *SMALL, *own, "--model.layer=first", "--trainer.max_steps=1"])
    row = result()
    assert (row["network"], row["layer"], row["depth"], row["num_samples"]) == ("TwoStages", "first", 1, 3)
    assert row["class_agreement"] is not None


def test_what_decides_which_image_is_where_reaches_the_classifier_that_is_trained_on_the_way(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_short_config(tmp_path, "classifier_mnist5k", 2)
    data = ["--data.num_train=200", "--data.seed=3"]
    main(["fit", *INVERTER, *SMALL, *data, "--trainer.max_steps=1", "--test_after_fit=false"])
    (classifier,) = Path("runs/classifier_mnist5k").glob("*/checkpoints/best.ckpt")
    state = torch.load(classifier, weights_only=True)["MNIST5kDataModule"]
    assert state["identity"] == {"num_train": 200, "seed": 3}
    assert state["images"]["train"] == 200


def test_a_world_that_cannot_know_the_truth_is_refused_before_it_is_trained(tmp_path, monkeypatch, capsys):
    """Each cell of this h is a function of three pixels."""
    monkeypatch.chdir(tmp_path)
    arguments = ["--config=world_bit_drop.yaml", "--model.network=EverySecondPixel", "--model.layer=pixels"]
    failure(capsys, "fit", *arguments, "--model.density.num_filters=4", "--trainer.max_steps=1")
    assert not list(Path("runs").glob("*/*/checkpoints/*"))
