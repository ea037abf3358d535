"""The graphs of runs, as the workflow engine reads them, without running anything."""

import hashlib
import itertools
import re
import subprocess
import sys

import pytest
import yaml
from dataset_files import write_images
from small_runs import ROOT, write_short_config
from test_readme import LINES

PROGRAM = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
# What the README gives for each target, before and after it; the cluster's plugin is an extra of its own.
SNAKEMAKE = [line[: line.index("--config")] if "--config" in line else line
             for line in LINES if line[:1] == ["snakemake"]]  # fmt: skip
README = {line[-1]: [part for part in line[1:-1] if part not in ("--executor", "slurm")] for line in SNAKEMAKE}
KEYS = {line[line.index("--config") - 1]: line[line.index("--config") :]
        for line in LINES if line[:1] == ["snakemake"] and "--config" in line}  # fmt: skip


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
    assert README.keys() == {
        "study_mnist5k",
        "study_mnist",
        "study_affnist",
        "compare_mnist5k",
        "rates_mnist5k",
        "audit_mnist5k",
        "worlds",
        "paper",
        "images",
        "profile",
        "budget",
    }


def test_the_readmes_profile_and_own_pictures_are_planned(plan, tmp_path):
    (tmp_path / "pictures.zip").touch()
    for target in ("images", "profile", "budget"):
        assert "cli.py report" in plan(target, *KEYS[target])


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


def test_the_studies_of_all_of_mnist_and_of_affnist_are_of_small_models_alone_with_small_classifiers(plan):
    text = plan("study_mnist")
    layers = ("conv1", "conv2", "fc3", "logits")
    inverters = {f"inverter_mnist_{layer}_small" for layer in layers}
    runs = inverters | {f"mse_mnist_{layer}_small" for layer in layers}
    runs |= {"classifier_mnist_small", "unconditional_mnist_small"}
    assert set(configs(text)) == runs
    assert text.count("--classifier runs/classifier_mnist_small/study/checkpoints/best.ckpt") == 8
    asked = {frozenset(configs(text, verb)) for verb in ("distances", "estimators", "contrast")}
    assert asked == {frozenset(inverters)}
    (folders,) = re.findall(r"cli\.py report (.*) --output runs/study_mnist\.html", text)
    assert set(folders.split()) == {f"runs/{name}/study" for name in runs}
    text = plan("study_affnist")
    assert len(configs(text)) == 6
    for net in ("conv", "pool", "fc"):
        classifier = f"--classifier runs/classifier_affnist_{net}_small/study/checkpoints/best.ckpt"
        assert f"--config inverter_affnist_{net}_fc3_small.yaml {classifier}" in text


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


def of_pictures(path):
    """The folder of their runs, which others of the same name do not share."""
    return f"runs/images/my_pictures_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}"


def test_own_pictures_are_one_target(plan, tmp_path):
    zip_file = tmp_path / "my pictures.zip"
    zip_file.touch()
    folder = of_pictures(zip_file)
    text = plan("images", "--config", f"path={zip_file}", "layers=[conv1, fc3,logits,fc3]")
    fits = re.findall(r"--name (\S+) --ckpt_path auto --config (\w+)\.yaml (.*)", text)
    layers = {(layer, f"{kind}_images_small") for kind in ("inverter", "mse") for layer in ("conv1", "fc3", "logits")}
    alone = {("study", "classifier_images_small"), ("study", "unconditional_images_small")}
    assert {(name, config) for name, config, _ in fits} == layers | alone
    for name, config, rest in fits:
        assert f"--data.path '{zip_file}' --trainer.default_root_dir {folder}" in rest
        classifier = f"--model.layer {name} --classifier {folder}/classifier_images_small/study/checkpoints/best.ckpt "
        assert (classifier in rest) == ((name, config) in layers)
        assert (ROOT / "configs" / f"{config}.yaml").is_file()
    assert f"report {folder} --output {folder}/report.html" in text
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
    report = (tmp_path / of_pictures(tmp_path / "my_pictures") / "report.html").read_text()
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


PROFILE = ("--config", "inverter=inverter_mnist5k_fc3")


def runs_of_a_profile(text):
    """The names of its runs, by layer."""
    return {
        layer.strip("'"): name
        for name, layer in re.findall(r"fit --name (profile_\S+) --ckpt_path auto .*--model\.layer ('.*?'|\S+)", text)
    }


def test_a_profile_is_a_run_of_every_layer_once_after_the_classifier_and_p_x(plan):
    text = plan("profile", *PROFILE, "layers=conv1, fc3,conv1")
    assert runs_of_a_profile(text) == {"conv1": "profile_conv1", "fc3": "profile_fc3"}
    assert text.count("--trainer.fast_dev_run true") == 1  # which trains the classifier on the way
    assert text.count("fit --name profile --ckpt_path auto --config unconditional_mnist5k") == 1
    (folders,) = re.findall(r"cli\.py report (.*) --output runs/profile_inverter_mnist5k_fc3\.html", text)
    names = ["inverter_mnist5k_fc3/profile_conv1", "inverter_mnist5k_fc3/profile_fc3", "unconditional_mnist5k/profile"]
    assert folders.split() == [f"runs/{name}" for name in names]
    assert "cli.py distances" not in text


def test_layers_of_any_name_have_folders_of_their_own(plan):
    names = ["layer2.1", "blocks.5[0]", "blocks.5[1]", 'encoder["a,b"]', "encoder['a_b']", "a" * 200, "a" * 201]
    text = plan("profile", *PROFILE, f"layers={','.join(names)}", "distances=true")
    found = runs_of_a_profile(text.replace("'\"'\"'", "@"))
    assert {name.replace("@", "'") for name in found} == set(names)
    assert len(set(found.values())) == len(names)
    assert all(re.fullmatch(r"profile_[\w.-]{1,90}", name, re.ASCII) for name in found.values())
    assert text.count("cli.py distances --name profile_") == len(names)


def test_what_is_of_the_network_is_not_given_to_p_x(plan):
    more = "arguments=--model.weights 'my net.pth' --data.seed 3 --model.network torchvision:resnet18 --classifier null"
    text = plan("profile", *PROFILE, "layers=layer2.1", "unconditional=my_p_x.yaml", more)
    (p_x,) = re.findall(r"fit --name profile --ckpt_path auto (.*)", text)
    assert p_x.strip() == "--config my_p_x.yaml --data.seed 3"
    assert "runs/my_p_x/profile" in text
    small = plan("profile", "--config", "inverter=inverter_images_small", "layers=conv1")
    assert "--config unconditional_images_small\n" in small.replace(" \n", "\n")
    assert "--name profile" not in plan("profile", *PROFILE, "layers=fc3", "unconditional=none").replace("profile_", "")


@pytest.mark.parametrize(
    ("keys", "words"),
    [([], "profile needs two keys"), (PROFILE[1:], "profile needs two keys"), (["layers=a"], "profile needs two keys"),
     ([*PROFILE[1:], "layers=,"], "names no layer"), ([*PROFILE[1:], "layers=1.10"], "in brackets, as layers=[1.10]")],
)  # fmt: skip
def test_a_profile_that_cannot_be_is_one_sentence(keys, words, tmp_path):
    given = ["--config", *keys] if keys else []
    found = subprocess.run([*PROGRAM, "--cores", "1", "profile", *given], cwd=tmp_path, capture_output=True, text=True)
    assert found.returncode == 1
    errors = [line for line in (found.stdout + found.stderr).splitlines() if "error" in line.lower()]
    assert len(errors) == 1
    assert errors[0].startswith("error: ")
    assert words in errors[0]


def test_a_profile_goes_on_where_it_was_and_further_layers_are_added_to_it(plan, tmp_path):
    write_short_config(tmp_path, "classifier_mnist5k", 2)
    short = "--trainer.max_steps 1 --trainer.limit_test_batches 1 --sample_grid.num_images 1 --sample_grid.num_draws 1 "
    short += "--num_agreement 1 --model.density.num_filters 2 --data.num_train 100 --trainer.limit_val_batches 1"
    keys = [*PROFILE, "layers=logits,fc3", "unconditional=none", f"arguments={short}"]
    subprocess.run([*PROGRAM, "--cores", "2", "profile", *keys], cwd=tmp_path, check=True)
    runs, of_inverter = tmp_path / "runs", tmp_path / "runs" / "inverter_mnist5k_fc3"
    assert len(list(runs.glob("classifier_mnist5k/*/"))) == 1
    assert {path.name for path in of_inverter.glob("*/")} == {"profile_logits", "profile_fc3"}
    page = (runs / "profile_inverter_mnist5k_fc3.html").read_text()
    assert "Nats by depth: mnist5k, ConvNet (classifier_mnist5k)." in page
    assert "Nothing to be done" in plan("profile", *keys)
    keys[2] = "layers=conv1,logits,fc3"
    assert runs_of_a_profile(plan("profile", *keys)) == {"conv1": "profile_conv1"}
    keys[2] = "layers=fc3,logits"
    (of_inverter / "profile_fc3" / "results.json").unlink()
    assert runs_of_a_profile(plan("profile", *keys)) == {"fc3": "profile_fc3"}


def test_p_x_of_a_small_config_is_the_small_one(plan):
    text = plan("profile", "--config", "inverter=inverter_mnist_fc3_small", "layers=fc3")
    assert "--config unconditional_mnist_small" in text


BUDGET = ("--config", "inverter=inverter_mnist5k_fc3")


def steps_of(text, config):
    """Of the runs that are planned at budgets of a config."""
    runs = re.findall(rf"fit --name study --ckpt_path auto --config runs/budgets/budget_{config}_(\d+)\.yaml", text)
    return sorted(map(int, runs))


def test_a_budget_is_four_times_the_one_before_with_p_x_at_the_same(plan):
    text = plan("budget", *BUDGET, "arguments=--data.seed 3 --model.layer conv1")
    assert steps_of(text, "inverter_mnist5k_fc3") == steps_of(text, "unconditional_mnist5k") == [39, 156, 625, 2500]
    assert text.count("--trainer.fast_dev_run true") == 1  # which trains the classifier on the way
    assert len(re.findall(r"budget_unconditional_mnist5k_\d+\.yaml --data.seed 3\n", text)) == 4
    assert len(re.findall(r"budget_inverter_mnist5k_fc3_\d+\.yaml --data.seed 3 --model.layer conv1\n", text)) == 4
    (folders,) = re.findall(r"cli\.py report (.*) --output runs/budget_inverter_mnist5k_fc3\.html", text)
    assert len(folders.split()) == 8
    alone = plan("budget", *BUDGET, "steps=50", "budgets=2", "unconditional=none")
    assert (steps_of(alone, "inverter_mnist5k_fc3"), steps_of(alone, "unconditional_mnist5k")) == ([12, 50], [])


@pytest.mark.parametrize(
    ("keys", "words"),
    [([], "budget needs a key"), ([*BUDGET, "steps=60"], "60 steps are too few for 4 budgets"),
     ([*BUDGET, "arguments=--trainer.max_steps 3"], "give steps=N")],
)  # fmt: skip
def test_budgets_that_cannot_be_are_one_sentence(keys, words, tmp_path):
    found = subprocess.run([*PROGRAM, "--dry-run", "budget", *keys], cwd=tmp_path, capture_output=True, text=True)
    assert found.returncode == 1
    (error,) = [line for line in (found.stdout + found.stderr).splitlines() if "error" in line.lower()]
    assert error.startswith("error: ")
    assert words in error


def test_budgets_are_trained_and_validated_at_their_ends_and_more_are_added_to_them(plan, tmp_path):
    write_short_config(tmp_path, "unconditional_mnist5k", 8)
    config = tmp_path / "unconditional_mnist5k.yaml"
    config.write_text(config.read_text().replace("val_check_interval: 500", "val_check_interval: 3"))
    short = "--data.num_train 100 --data.batch_size 4 --data.eval_batch_size 10 --sample_grid.num_images 0"
    short += " --trainer.logger false"
    keys = ["--config", "inverter=unconditional_mnist5k", "budgets=2", f"arguments={short}"]
    subprocess.run([*PROGRAM, "--cores", "2", "budget", *keys], cwd=tmp_path, check=True)
    runs = tmp_path / "runs"
    trainers = [yaml.safe_load(path.read_text())["trainer"] for path in sorted(runs.glob("budgets/*.yaml"))]
    # Every 3 of 8 steps would not be validated at the end.
    assert [(its["max_steps"], its["val_check_interval"]) for its in trainers] == [(2, 1), (8, 4)]
    page = (runs / "budget_unconditional_mnist5k.html").read_text()
    assert "mnist5k: NCE against budget" in page
    assert any(f"log p(x) {words}" in page for words in ("is still moving", "has settled", "is within its error"))
    assert "Nothing to be done" in plan("budget", *keys)
    assert steps_of(plan("budget", *keys, "steps=32"), "unconditional_mnist5k") == [32]


def test_every_way_to_invert_is_compared_by_one_judge_and_one_prior(plan):
    text = plan("compare_mnist5k", "--config", "entropy_weights=[0,10]")
    ways = {f"{way}_mnist5k_fc3" for way in ("inverter", "mse", "perceptual", "gan", "pixels", "deconvnet")}
    assert set(configs(text, "compare")) == ways
    assert ways | {"classifier_mnist5k", "unconditional_mnist5k"} == set(configs(text))
    judges = "--judge runs/judge/classifier_mnist5k/study/checkpoints/best.ckpt"
    assert text.count(f"{judges} --prior runs/unconditional_mnist5k/study/checkpoints/best.ckpt") == 6 + 2
    assert "--seed_everything 1 --trainer.default_root_dir runs/judge" in text
    for weight in (0, 10):  # trained, and asked, with it
        assert len(re.findall(rf"--model\.density\.entropy_weight {weight} .*runs/entropy_{weight} ", text)) == 2
    assert len(re.findall(r"cli\.py report .* --output runs/compare_mnist5k\.html", text)) == 1


@pytest.mark.parametrize(
    ("rule", "key", "example"),
    [("compare_mnist5k", "entropy_weights=0.3", "[0,0.3]"), ("rates_mnist5k", "alone_bits=3", "[1,3,8]")],
)
def test_a_number_where_a_list_is_asked_is_refused_in_a_sentence(tmp_path, rule, key, example):
    found = subprocess.run([*PROGRAM, "-n", rule, "--config", key], cwd=tmp_path, capture_output=True, text=True)
    assert found.returncode
    assert f"--config {key} is no list; give one, as {key.partition('=')[0]}={example}" in found.stderr + found.stdout


def test_rates_are_planned_with_p_x_and_with_inverters_of_one_rate_where_they_are_asked(plan):
    said = plan("rates_mnist5k", "--config", "alone_bits=[1,3]")
    assert configs(said, "rates") == ["inverter_mnist5k_fc3_rates"]
    assert sorted(re.findall(r"--model\.channel\.bits '\[(\d+)\]'", said)) == ["1", "3"]  # in no order
    assert "--prior runs/unconditional_mnist5k/study/checkpoints/best.ckpt" in said
    alone = [f"runs/bits_{bits}/inverter_mnist5k_fc3_rates/study/checkpoints/best.ckpt" for bits in (1, 3)]
    assert f"--alone '[{','.join(alone)}]'" in said
    assert "--alone '[]'" in plan("rates_mnist5k")


def test_the_audit_asks_all_of_one_layer_and_names_it_first(plan):
    text = plan("audit_mnist5k")
    inverters = {"inverter_mnist5k_fc3", "inverter_mnist5k_conv2", "inverter_mnist5k_fc3_rates"}
    assert set(configs(text)) == inverters | {"classifier_mnist5k", "unconditional_mnist5k"}
    for verb in ("contrast", "ledger", "compress"):
        assert set(configs(text, verb)) == {"inverter_mnist5k_fc3"}
    without = "--data.left_out_classes '[8, 9]' --trainer.default_root_dir runs/without_8_9"
    assert text.count(without) == 2  # trained, and asked
    assert f"contrast --name study --config inverter_mnist5k_fc3.yaml {without} --num_images 256" in text
    assert configs(text, "rates") == ["inverter_mnist5k_fc3_rates"]
    assert "contrast --name study --config inverter_mnist5k_fc3.yaml --num_images 256" in text
    assert "--num_images 500 --output runs/inverter_mnist5k_fc3/study/images.nats" in text
    assert "cli.py diff runs/inverter_mnist5k_fc3/study runs/inverter_mnist5k_conv2/study" in text
    assert re.search(r"report --for audit runs/inverter_mnist5k_fc3/study .* --output runs/audit_mnist5k\.html", text)
    assert "--num_images 256" not in plan("study_mnist")
