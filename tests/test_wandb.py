"""What a user of Weights & Biases finds: offline runs, read back with its own reader."""

import csv
import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import wandb
from small_runs import INVERTER, result, run_with_results

from callbacks.listens_to_h import ListensToH
from cli import main
from commands.run_labels import changes, plain
from datamodules import MNIST5kDataModule
from inverters import Inverter, PixelCNN
from runtime.wandb_account import labels, say_if_offline
from runtime.wandb_lineage import log_file, use_file

CLASSIFIER = ["fit", "--config=classifier_mnist5k.yaml", "--trainer.accelerator=cpu", "--test_after_fit=false"]


class Offline:
    """An offline run: its records by kind, as W&B's own reader gives them."""

    def __init__(self, folder):
        self.folder = max(folder.glob("wandb/offline-run-*"), key=lambda path: path.stat().st_mtime)
        (path,) = self.folder.glob("*.wandb")
        reader = Path(sys.executable).parent / "wandb"
        shown = subprocess.run([reader, "leet", "inspect", "--json", path], capture_output=True, text=True, check=True)
        self.records = [json.loads(line) for line in shown.stdout.splitlines()]
        (self.run,) = self.all("run")
        self.config = self.run["config"]["update"]
        self.history = [row["item"] for row in self.all("history")]
        self.summary = {key: value for row in self.all("summary") for key, value in row.get("update", {}).items()}
        self.artifacts = {artifact["name"]: artifact for artifact in self.all("artifact")}

    def all(self, kind):
        return [record[kind] for record in self.records if record["type"] == kind]

    def curve(self, name):
        return [row[name] for row in self.history if name in row]

    def digests(self, name):
        return [content["digest"] for content in self.artifacts[name]["manifest"]["contents"]]


@pytest.fixture(scope="module")
def classifier(trained_runs):
    return Offline(run_with_results("classifier_mnist5k", trained_runs))


@pytest.fixture(scope="module")
def inverter(trained_runs):
    return Offline(run_with_results(INVERTER, trained_runs))


def test_an_offline_run_says_where_it_is_and_how_to_upload_it_and_nothing_of_anonymous(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    logged = ["--trainer.max_steps=2", "--trainer.log_every_n_steps=1", "--trainer.gradient_clip_val=0.001"]
    main([*CLASSIFIER, *logged])
    (folder,) = Path("runs/classifier_mnist5k").glob("*/")
    captured = capfd.readouterr()
    said = captured.out + captured.err
    (line,) = [line for line in said.splitlines() if "Weights & Biases" in line]
    assert f"the run is offline, in {folder}/wandb; to upload it: wandb sync {folder}/wandb/offline-run-*" in line
    assert "anonymous" not in said
    run = Offline(folder)
    assert min(run.curve("train/gradient_norm")) > 0.01  # before it is clipped
    assert len(run.curve("train/images_per_second")) == 2
    # Which is the same of the same run, and so without what a clock says.
    assert "images_per_second" not in (folder / "metrics.csv").read_text()


def test_a_run_without_wandb_says_nothing_of_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(wandb, "run", None)  # which this leaves behind, and others would join
    with wandb.init(mode="disabled") as run:
        say_if_offline(run, tmp_path)
        log_file(run, Path(__file__), "tests", "code")
        use_file(run, Path(__file__), "tests", "code")
    assert capsys.readouterr().out == ""


def test_names_groups_job_types_and_tags_tell_runs_apart(classifier, inverter):
    about = [(run.run["run_group"], run.run["job_type"]) for run in (classifier, inverter)]
    assert about == [("mnist5k", "classifier"), ("mnist5k", "inverter")]
    assert set(inverter.run["tags"]) == {"fc3", "ConvNet", "PixelCNN", "Categorical"}
    assert classifier.run["display_name"] == "classifier_mnist5k max_steps=30"
    assert inverter.run["display_name"].startswith(f"{INVERTER} num_filters=4 num_train=100")


def test_a_name_has_what_decides_the_training_by_its_shortest_key():
    words = [
        "fit", "--config", "a.yaml", "--config=presets/gpu.yaml", "--trainer.accelerator=cpu", "--ckpt_path", "auto",
        "--model.density.init_args.dropout=0.5", "--model.lr", "0.1", "--data.num_workers=2", "--seed_everything=3",
        "--model.network.dropout", "--trainer.limit_val_batches=1",
    ]  # fmt: skip
    assert changes(["fit", "--config", "a.yaml", "--classifier", "b.ckpt"], MNIST5kDataModule()) == [
        "classifier=b.ckpt"
    ]
    expected = ["gpu", "model.density.dropout=0.5", "lr=0.1", "seed_everything=3", "model.network.dropout=true"]
    assert changes(words, MNIST5kDataModule()) == expected


def test_what_the_environment_calls_a_run_holds(monkeypatch):
    for name in ("NAME", "RUN_GROUP", "TAGS"):
        monkeypatch.setenv(f"WANDB_{name}", "mine")
    assert labels(name="a", group="b", job_type="c", tags=["d"]) == {"job_type": "c"}


def test_a_config_has_no_nulls_and_its_numbers_are_numbers(inverter):
    assert plain({"a": None, "b": {"c": None}, "d": [None, Path("x"), True]}) == {"b": {}, "d": [None, "x", True]}
    assert "null" not in json.dumps(inverter.config)
    assert inverter.config["data"]["init_args"]["batch_size"] == 4
    assert inverter.config["layer"] == "fc3"


def test_the_summary_has_the_best_of_each_curve_and_every_number_once(inverter):
    for name, best in (("val/nce_nats", max), ("val/h_gain_nats", max), ("val/bits_per_dim", min)):
        assert inverter.summary[name] == {best.__name__: best(inverter.curve(name))}
    row = result(root=inverter.folder.parents[3])
    assert inverter.summary["test/nce_nats"] == pytest.approx(row["nce_nats"], abs=1e-9)
    assert inverter.summary["test/num_images"] == row["num_images"]
    names = [name.rpartition("/")[2] for name in inverter.summary if name.startswith(("test/nce", "nce"))]
    assert sorted(names) == ["nce_nats", "nce_nats_se"]


def test_curves_of_a_training_are_on_wandb_and_in_the_csv(inverter):
    with (inverter.folder.parents[1] / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    for name in ("train/learning_rate", "train/gradient_norm", "val/shuffled_nce_nats", "val/h_gain_nats"):
        kept = [float(row[name]) for row in rows if row[name]]
        assert kept == pytest.approx(inverter.curve(name))
        assert len(kept) == 2
    assert inverter.curve("train/learning_rate")[0] == pytest.approx(0.004)
    assert min(inverter.curve("train/images_per_second")) > 0


@pytest.mark.parametrize("world_size", [1, 3])
def test_the_gain_is_that_of_the_images_own_h_over_the_next_ones_in_any_number_of_processes(world_size, monkeypatch):
    monkeypatch.setattr("callbacks.listens_to_h.NUM_IMAGES", 8)
    data = MNIST5kDataModule(num_train=100)
    data.setup("fit")
    density = partial(PixelCNN, num_filters=4, num_layers=1)
    model = Inverter("fc3", data.image_shape, 10, density=density).eval()
    with torch.no_grad():
        for weight in model.density.parameters():
            weight.add_(0.1 * torch.randn_like(weight))  # h counts
    image = data.datasets["val"].first(8)["image"]
    with torch.no_grad():
        own = model.log_prob({"image": image}).double()
        other = model.log_prob({"image": image, "context_image": image.roll(-1, 0)}).double()
    sums = []
    for rank in range(world_size):
        strategy = SimpleNamespace(reduce=lambda x, reduce_op: sums.append(x) or x)
        trainer = SimpleNamespace(datamodule=data, global_rank=rank, world_size=world_size, strategy=strategy)
        model.log = lambda name, value: None
        ListensToH().on_validation_epoch_end(trainer, model)
    assert torch.allclose(sum(sums), torch.stack([own.sum(), other.sum()]), atol=1e-3)
    assert (own - other).abs().mean() > 0.1


def test_a_table_has_images_draws_and_log_p_and_captions_say_layer_and_step(inverter):
    (table,) = inverter.folder.glob("files/media/table/test/draws*.json")
    its = json.loads(table.read_text())
    assert its["columns"] == ["index", "input", "draw 1", "log p, nats"]
    run = inverter.folder.parents[1]
    assert [row[3] for row in its["data"]] == pytest.approx(np.load(run / "log_prob.npy")[:2], abs=1e-3)
    assert inverter.curve("test/samples.caption") == ["draws from p(x | fc3), step 2: input, then 1 of each"]


def test_lineage_goes_from_classifier_to_inverter_to_report(classifier, inverter, trained_runs, tmp_path, capsys):
    main(["report", str(trained_runs), "--output", str(tmp_path / "out" / "report.html")])
    assert "Weights & Biases: the run is offline, in " in capsys.readouterr().out
    report = Offline(tmp_path / "out")
    for made, used, name in (
        (classifier, inverter, "classifier_mnist5k"),
        (classifier, report, "classifier_mnist5k-results"),
        (inverter, report, f"{INVERTER}-results"),
    ):
        assert made.digests(name) == used.digests(name)
        assert (made.artifacts[name].get("use_after_commit"), used.artifacts[name]["use_after_commit"]) == (None, True)
    assert inverter.artifacts[INVERTER]["type"] == "model"
    assert report.artifacts["report"]["type"] == "report"
    (page,) = report.folder.glob("files/media/html/report*.html")
    assert page.read_bytes() == (tmp_path / "out" / "report.html").read_bytes()
    assert report.run["job_type"] == "report"
