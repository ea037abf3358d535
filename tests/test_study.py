"""The graphs of runs, as the workflow engine reads them, without running anything."""

import itertools
import re
import subprocess
import sys

import pytest
from dataset_files import write_images
from small_runs import ROOT
from test_readme import LINES

PROGRAM = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
# What the README gives for each target; the cluster's plugin is an extra of its own.
README = {line[-1]: [part for part in line[1:-1] if part not in ("--executor", "slurm")]
          for line in LINES if line[:1] == ["snakemake"]}  # fmt: skip


@pytest.fixture
def plan(tmp_path):
    """The engine's dry run of a target."""

    def run(target, *more):
        command = [*PROGRAM, *README.get(target, []), "--dry-run", "--printshellcmds", target, *more]
        found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        return found.stdout + found.stderr

    return run


def configs(plan, verb="fit"):
    return re.findall(rf"cli\.py {verb} --name study(?: --ckpt_path auto)? --config (\w+)\.yaml", plan)


def test_these_are_the_readmes():
    assert README.keys() == {"study_mnist5k", "worlds", "paper"}


def test_the_paper_is_so_many_runs(plan):
    names = configs(plan("paper"))
    kinds = [name.split("_")[0] for name in names]
    counts = {kind: kinds.count(kind) for kind in ("inverter", "mse", "unconditional", "classifier")}
    assert counts == {"inverter": 55, "mse": 15, "unconditional": 4, "classifier": 8}
    assert all((ROOT / "configs" / f"{name}.yaml").is_file() for name in names)


def test_the_small_study_asks_every_layer(plan):
    text = plan("study_mnist5k")
    layers = {f"inverter_mnist5k_{layer}" for layer in ("conv1", "conv2", "fc3", "logits")}
    assert set(configs(text, "distances")) == set(configs(text, "estimators")) == layers
    assert len([name for name in configs(text) if name.startswith("inverter")]) == 4 + 12
    assert "report --output runs/study_mnist5k.html" in text
    for kind, number in itertools.product(("updates", "overfitted"), (0, 100, 1000)):
        classifier = rf"runs/classifier_mnist5k_{kind}/study/checkpoints/update_{number:06d}\.ckpt"
        root = f"runs/updates/{kind}_{number:06d}"
        assert len(re.findall(rf"--classifier {classifier} --trainer.default_root_dir {root} ", text)) == 2


@pytest.mark.parametrize(
    ("target", "classifiers", "inverters"),
    [("learning_rate_and_dropout", 1, 9), ("network", 12, 12), ("optimizer", 4, 4)],
)
def test_a_sweep_is_so_many_runs_without_wandb_too(plan, target, classifiers, inverters):
    names = configs(plan(target))
    assert names.count("classifier_mnist5k") == classifiers
    assert names.count("inverter_mnist5k_fc3") == inverters
    assert len(names) == classifiers + inverters


def test_what_is_done_is_not_done_again_and_what_was_interrupted_goes_on(plan, tmp_path):
    """A decoder and its classifier are trained for real, and the decoder again after its result is lost."""
    result = "runs/mse_mnist5k_logits/study/results.json"
    short = "--trainer.max_steps 1 --trainer.limit_test_batches 1 --sample_grid.num_images 1 --num_agreement 1"
    command = [*PROGRAM, "--cores", "1", result, "--config", f"arguments={short}"]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert "Nothing to be done" in plan(result)
    (tmp_path / result).unlink()
    assert configs(plan(result)) == ["mse_mnist5k_logits"]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert (tmp_path / result).is_file()
    assert len(list(tmp_path.glob("runs/mse_mnist5k_logits/*/checkpoints"))) == 1  # it went on in its folder


IMAGES = "runs/images/my_pictures"


def test_own_pictures_are_one_target(plan, tmp_path):
    zip_file = tmp_path / "my pictures.zip"
    zip_file.touch()
    text = plan("images", "--config", f"path={zip_file}", "layers=conv1, fc3,logits")
    fits = re.findall(r"--name (\S+) --ckpt_path auto --config (\w+)\.yaml (.*)", text)
    layers = {(layer, f"{kind}_images_small") for kind in ("inverter", "mse") for layer in ("conv1", "fc3", "logits")}
    alone = {("study", "classifier_images_small"), ("study", "unconditional_images_small")}
    assert {(name, config) for name, config, _ in fits} == layers | alone
    for name, config, rest in fits:
        assert f"--data.path '{zip_file}' --trainer.default_root_dir {IMAGES}" in rest
        classifier = f"--model.layer {name} --classifier {IMAGES}/classifier_images_small/study/checkpoints/best.ckpt "
        assert (classifier in rest) == ((name, config) in layers)
        assert (ROOT / "configs" / f"{config}.yaml").is_file()
    assert f"report {IMAGES} --output {IMAGES}/report.html" in text
    large = plan("images", "--config", f"path={zip_file}", "size=large", "mse=false")
    assert set(re.findall(r"--config (\w+)\.yaml", large)) == {
        "classifier_images", "unconditional_images", "inverter_images",
    }  # fmt: skip


@pytest.mark.slow  # a minute
def test_the_promised_number_is_had_for_own_pictures(plan, tmp_path):
    """A real run, of pictures of which one is none; then nothing is left to do."""
    write_images(tmp_path / "my_pictures", {"a": 20, "b": 20})
    (tmp_path / "my_pictures" / "a" / "bad.png").touch()
    short = "--data.skip_bad true --trainer.max_steps 1 --trainer.limit_test_batches 1 --sample_grid.num_images 1"
    given = ["images", "--config", "path=my_pictures", "layers=fc3", f"arguments={short} --num_agreement 1"]
    subprocess.run([*PROGRAM, "--cores", "1", *given], cwd=tmp_path, check=True)
    report = (tmp_path / IMAGES / "report.html").read_text()
    assert "estimate of I(x; h)" in report
    assert "1 of its 41 pictures cannot be read and are left out." in report
    assert "Nothing to be done" in plan(*given)


@pytest.mark.parametrize(("given", "message"), [
    ([], "error: no pictures at None; give --config path=FOLDER, or a .zip"),
    (["path=absent.zip"], "error: no pictures at absent.zip; give"),
    (["path=.", "size=big"], "error: size is big; give small or large"),
])  # fmt: skip
def test_no_pictures_are_one_sentence(tmp_path, given, message):
    command = [*PROGRAM, "--dry-run", "images", *(["--config", *given] if given else [])]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert found.returncode
    assert message in found.stderr


def test_every_world_has_its_run(plan):
    worlds = {path.stem for path in (ROOT / "configs").glob("world_*.yaml")}
    text = plan("worlds")
    assert set(configs(text)) == worlds
    (folders,) = re.findall(r"cli\.py report (.*) --output runs/worlds\.html", text)
    assert set(folders.split()) == {f"runs/{world}/study" for world in worlds}
