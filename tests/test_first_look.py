"""What is answered before torch is imported, and that nothing is refused which the parser would take."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from jsonargparse import ArgumentParser
from small_runs import OWN_NETWORK, ROOT, at_most, failure

import datamodules
import inverters
from cli import main
from commands import SKIPPED, WITHOUT_CONFIG
from commands.config_files import DEEPEST, MOST_BYTES, MOST_VALUES, config_names
from commands.first_look import first_look
from commands.known_keys import KnownKeys
from commands.parser import ParsedCommand
from commands.signatures import arguments, class_names, place_of

FIT = ["fit", "--config=inverter_mnist5k_fc3"]


@pytest.mark.parametrize("words", [
    ["fti"], ["fit"], [*FIT, "--lr=1"], ["fit", "--config=inverter_mnist5k_fc4"], [*FIT, "--ckpt_path=absent.ckpt"],
    [*FIT, "--classifier=absent.ckpt"], [*FIT, "--data=MNIST5kDataModul"], ["configs", "nothing_like_it"],
    ["score", *FIT[1:], "--images=[absent.png]"],
])  # fmt: skip
def test_a_mistake_is_answered_before_anything_heavy_is_imported(tmp_path, words):
    code = f"import sys, cli\ntry:\n  cli.main({words})\nfinally:\n  print(*{{'torch', 'numpy'}} & set(sys.modules))"
    call = [sys.executable, "-c", code]
    done = subprocess.run(call, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "\n")
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_help_has_every_verb_with_a_line_and_imports_nothing_heavy(tmp_path):
    code = "import sys, cli; cli.main(['--help']); assert not {'torch', 'numpy'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines() if line.startswith("  ")}
    assert set(lines) == {*SKIPPED, *WITHOUT_CONFIG}
    assert all(len(words) > 4 for words in lines.values())


def test_the_report_needs_no_lightning(tmp_path):
    code = "import sys, cli; cli.main(['report', '--help'])"
    code = f"try:\n  {code}\nfinally:\n  print('pytorch_lightning' in sys.modules, 'wandb' in sys.modules)"
    call = [sys.executable, "-c", code]
    done = subprocess.run(call, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.stdout.endswith("False True\n"), done.stderr


class Unparsed(ParsedCommand):
    """With its parser, and no more."""

    def parse_arguments(self, parser, args):
        raise InterruptedError


@pytest.mark.parametrize("verb", SKIPPED)
def test_the_keys_that_are_known_are_those_of_the_parser(verb):
    command = Unparsed.__new__(Unparsed)
    with pytest.raises(InterruptedError):
        command.__init__([verb])
    parsers = {action.dest for action in command.subparser(verb)._actions}
    assert {key for key in parsers if not key.endswith(".help")} == set(KnownKeys(verb, []).names)


@pytest.mark.parametrize("name", sorted(class_names()))
def test_the_arguments_of_our_classes_are_known(name):
    parser = ArgumentParser()
    parser.add_class_arguments(getattr(inverters, name, None) or getattr(datamodules, name), fail_untyped=False)
    keys = {action.dest.partition(".")[0] for action in parser._actions if "help" not in action.dest}
    assert keys <= set(arguments(place_of(name)))


@pytest.mark.parametrize("name", config_names())
def test_every_config_passes(name):
    first_look(["fit", "--config", name, "--print_config"])


@pytest.mark.parametrize("name", ["inverter_cifar_conv1", "world_markov", "classifier_affnist_pool", "mse_mnist5k_fc3"])
def test_what_a_run_keeps_as_its_config_passes(tmp_path, capsys, name):
    with pytest.raises(SystemExit):
        main(["fit", "--config", name, "--print_config"])
    (tmp_path / "config.yaml").write_text(capsys.readouterr().out)
    first_look(["fit", "--config", str(tmp_path / "config.yaml"), "--print_config"])


@pytest.mark.parametrize("words", [
    ["--model=Classifier", "--model.optimizer=torch.optim.SGD", "--model.optimizer.momentum=0.9"],
    ["--model.network=my.Net", "--model.network.anything=1"],
    ["--data={class_path: my.Data, init_args: {anything: 1}}"],
    ["--model.density.anything=1", "--model.density=my.Density"],
    ["--trainer.callbacks+=my.Callback", "--trainer.callbacks.anything=1"],
    ["--trainer.logger.anything=1"],
    ["--model.density.likelihood=LogisticMixture", "--model.density.likelihood.num_components=3"],
    ["--model.dict_kwargs.anything=1"],
    ["--model.layer=null"],
    ["--trainer=trainer.yaml"],
    ["--model", "my_model.yaml", "--model.anything", "1"],
    ["--help", "--lr=1"],
    ["--data.help", "MNISTDataModule"],
])  # fmt: skip
def test_what_cannot_be_known_is_left_to_the_parser(words):
    first_look([*FIT, *words, "--print_config"])


def test_without_lightning_nothing_is_refused(monkeypatch):
    monkeypatch.setattr("commands.first_look.TRAINER", ("pytorch_lightning.absent", "Trainer"))
    first_look([*FIT, "--trainer.anything=1", "--ckpt_path=last"])


@pytest.mark.parametrize(("text", "expected"), [
    ("sample_grid: 1", "sample_grid in mine.yaml is 1; give the keys below it"),
    ("trainer: 5", "trainer in mine.yaml is 5; give the keys below it"),
    ("trainer: {1: 2}", "trainer.1 in mine.yaml: the key 1 is no name"),
    ("null: 2", "the key None is no name"),
    ("model: null", "model in mine.yaml is null; give a value, or leave the key out"),
    ("data: []", "data in mine.yaml is []; give a class"),
    ("model: {init_args: 5}", "model in mine.yaml is 5; give a class"),
    ("model: {class_path: {a: 1}}", "model.class_path in mine.yaml is {'a': 1}; give the name of a class"),
    ("model: {init_args: {network: {init_args: {filters: []}}}}", "filters is []; give two numbers"),
    (f"patience: {10**30}", "give a number of at most 18 digits"),
    ("model: {init_args: {network: {init_args: {filters: 5}}}}", "model.network.filters in mine.yaml is 5; give"),
    ("model: {init_args: {density: {init_args: {dropout: null}}}}", "model.density.dropout in mine.yaml is null"),
    ("model: {init_args: {layr: fc3}}", "no key model.layr in mine.yaml; did you mean model.layer?"),
    ("patience: text", 'patience in mine.yaml is "text"; give a whole number'),
    ("model: {init_args: {betas: 5}}", "model.betas in mine.yaml is 5; give a list"),
])  # fmt: skip
def test_a_value_of_another_kind_is_one_sentence(tmp_path, monkeypatch, capsys, text, expected):
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(text)
    assert expected in failure(capsys, *FIT, "--config=mine.yaml")


BOMB = "a0: &a0 [1, 2]\n" + "".join(f"a{i + 1}: &a{i + 1} [{f'*a{i}, ' * 10}]\n" for i in range(9))


@pytest.mark.parametrize(("text", "expected"), [
    (BOMB, f"more than {MOST_VALUES} values"),
    ("a: &a [*a]\n", "contains itself"),
    ("a: &a {<<: *a}\n", "mine.yaml"),
    ("a: " + "[" * 5000 + "]" * 5000, f"more than {DEEPEST} values inside of each other"),
    ("a: " + "{b: " * 60 + "1" + "}" * 60, f"more than {DEEPEST} values inside of each other"),
    ("- " * 5000, "mine.yaml"),
    ("#" * (MOST_BYTES + 1), f"give one of at most {MOST_BYTES}"),
    ("[" * MOST_BYTES, "mine.yaml"),
    ("model:\n\tlr: 1\n", "indent with spaces"),
    ("? [a]\n: b\n", "mine.yaml"),
    ("a: " + "9" * 5000, "mine.yaml"),
], ids=range(11))  # fmt: skip
def test_yaml_by_malice_is_answered_at_once(tmp_path, monkeypatch, capsys, text, expected):
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(text)
    with at_most(60):  # it takes a second or two on a free core
        assert expected in failure(capsys, "fit", "--config=mine.yaml")


OWN = "import os\nclass NoData: pass\n" + OWN_NETWORK


@pytest.mark.parametrize(("argument", "expected"), [
    ("--data=absent_module.X", "--data: no module absent_module in this folder, on PYTHONPATH or installed"),
    ("--model.network=own_one.TwoStage", "the module own_one has no TwoStage; did you mean own_one.TwoStages?"),
    ("--data=own_one.NoData", "--data is own_one.NoData, which is no ImageDataModule; give a subclass"),
    ("--model.network=os.system", "--model.network is os.system, which is no Module; give a subclass"),
    ("--model.network=own_broken.X", "own_broken cannot be imported: ZeroDivisionError (division by zero) in line 2"),
    ("--model.density=own_one", "no class 'own_one'; a class that is not ours is given as module.Class"),
])  # fmt: skip
def test_a_class_of_ones_own_that_cannot_be_had_is_one_sentence(tmp_path, monkeypatch, capsys, argument, expected):
    """In the working folder, which need not be on the path."""
    monkeypatch.chdir(tmp_path)
    Path("own_one.py").write_text(OWN)
    Path("own_broken.py").write_text("x = 0\n1 / x\n")
    assert expected in failure(capsys, *FIT, argument)


OWN_DATA = """from datamodules import MNIST5kDataModule


class Data(MNIST5kDataModule):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        {}["absent"]
"""


def test_a_mistake_in_a_class_of_ones_own_is_told_with_its_place(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("own_wrong.py").write_text(OWN_DATA)
    said = failure(capsys, "fit", "--config=classifier_mnist5k", "--data=own_wrong.Data")
    assert f"KeyError ('absent') in line 7 of {tmp_path}/own_wrong.py, which is no file of this application" in said


def test_configs_are_listed_with_data_cost_and_number(capsys):
    main(["configs", "mnist5k", "FC3", "NCE"])
    printed = capsys.readouterr().out
    listed = {line for line in printed.splitlines() if line[:1].strip()}
    assert "inverter_mnist5k_fc3" in listed
    assert not listed & {"inverter_mnist5k_conv1", "inverter_mnist_fc3", "classifier_mnist5k"}
    for text in ("data      MNIST5kDataModule", "cost      7 to 14 minutes", "expected  test NCE -467.2 nats"):
        assert text in printed
    main(["configs"])
    assert [line for line in capsys.readouterr().out.splitlines() if line[:1].strip()] == config_names()


def test_data_is_downloaded_and_verified_beforehand(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(["download", "--config=inverter_photos_conv2"])
    assert "photos: train 5600, val 800, test 800 images of [3, 32, 32]; no files" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr("torchvision.datasets.mnist.MNIST.mirrors", ["http://127.0.0.1:9/"])
    assert "cannot download what is missing or damaged of mnist in" in failure(
        capsys, "download", "--config=classifier_mnist"
    )


def test_a_shell_completes_verbs_keys_and_names(capsys):
    main(["completion", "bash"])
    script = capsys.readouterr().out
    for word in ("distances", "--model.density.num_filters", "--data.val_split", "mse_mnist5k_fc3", "PhotosDataModule"):
        assert word in script
    assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0
    assert "completion is for one of bash, zsh, tcsh" in failure(capsys, "completion", "fish")


def test_the_wheel_has_every_config_and_every_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    setuptools = project["tool"]["setuptools"]
    packages = {path.parent.relative_to(ROOT).as_posix().replace("/", ".") for path in ROOT.glob("*/**/__init__.py")}
    assert set(setuptools["packages"]) == {*packages, "configs"}
    configs = ROOT / "configs"
    packed = {path for pattern in setuptools["package-data"]["configs"] for path in configs.glob(pattern)}
    assert packed == {path for path in configs.rglob("*") if path.is_file()}
    assert project["project"]["scripts"] == {"inverters": "cli:main"}


@pytest.mark.slow
def test_the_wheel_runs_in_an_empty_folder(tmp_path):
    """Built with what is installed, and with nothing of the checkout on the path."""
    pip = [sys.executable, "-m", "pip"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True)
    (wheel,) = tmp_path.glob("inverters-*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", str(tmp_path / "site"), str(wheel)], check=True)
    (tmp_path / "empty").mkdir()
    environment = {"PYTHONPATH": str(tmp_path / "site"), "WANDB_MODE": "offline"}
    call = [str(tmp_path / "site/bin/inverters"), "fit", "--config=classifier_mnist5k", "--trainer.max_steps=2"]
    subprocess.run(call, cwd=tmp_path / "empty", env=environment, check=True)
    assert list((tmp_path / "empty/runs/classifier_mnist5k").glob("*/results.json"))


@pytest.mark.parametrize(("argument", "expected"), [
    ("--class_path=Inverter", "class_path stands outside of model and data in the command; put it below one of them"),
    ("--keep_updates=often", "--keep_updates is \"often\"; give a list"),
    ("--data.batch_size=1.5k", "--data.batch_size is \"1.5k\"; give a whole number"),
])  # fmt: skip
def test_a_value_of_the_wrong_kind_is_no_module(with_inverter, capsys, argument, expected):
    assert expected in failure(capsys, *FIT, argument)
