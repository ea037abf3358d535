"""What a config names is called only where it makes what is asked for."""

from pathlib import Path

import pytest
from small_runs import failure

from commands.parser import ParsedCommand

TOUCH = "{class_path: os.system, init_args: {command: touch called}}"
CLASSIFIER, INVERTER = "classifier_mnist5k.yaml", "inverter_mnist5k_fc3.yaml"
KEYS = [
    (CLASSIFIER, "network", "system is a function, and class_path names a class"),
    (CLASSIFIER, "network.activation", "system is a function, and class_path names a class"),
    (CLASSIFIER, "optimizer", "system is a function, and class_path names a class"),
    (INVERTER, "network", "system is a function, and class_path names a class"),
    (INVERTER, "density", "system is a function, and class_path names a class"),
    (INVERTER, "density.likelihood", "os.system, which is no Likelihood"),
]
OWN = """
import torch
from torch import nn

from inverters import ConvNet


def network(image_shape, num_classes) -> nn.Sequential:
    return ConvNet(image_shape, num_classes, filters=(4, 4))


def unannotated(image_shape, num_classes):
    open("called", "w")


def optimizer(parameters, lr) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=lr, momentum=0.9)


def liar(parameters, lr) -> torch.optim.Optimizer:
    return 3
"""


def nested(key, value):
    """A key with dots as a mapping, in YAML's braces."""
    first, _, rest = key.partition(".")
    inside = {"density": "PixelCNN", "network": "ConvNet"}
    if not rest:
        return f"{first}: {value}"
    return f"{first}: {{class_path: {inside[first]}, init_args: {{{nested(rest, value)}}}}}"


@pytest.mark.parametrize(("config", "key", "sentence"), KEYS)
def test_no_key_calls_what_makes_something_else(tmp_path, monkeypatch, capsys, config, key, sentence):
    monkeypatch.chdir(tmp_path)
    assert sentence in failure(capsys, "fit", f"--config={config}", f"--model.{key}={TOUCH}")
    Path("evil.yaml").write_text(f"model:\n  init_args:\n    {nested(key, TOUCH)}\n")
    assert sentence in failure(capsys, "fit", f"--config={config}", "--config=evil.yaml")
    assert not Path("called").exists()


@pytest.mark.parametrize("key", ["callbacks", "logger", "plugins"])
def test_the_trainer_takes_objects_of_its_kinds_alone(tmp_path, monkeypatch, capsys, key):
    monkeypatch.chdir(tmp_path)
    message = failure(capsys, "fit", f"--config={CLASSIFIER}", f"--trainer.{key}={TOUCH}")
    assert f"--trainer.{key} is os.system, which is no " in message
    assert not Path("called").exists()


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("own_makers.py").write_text(OWN)


@pytest.mark.parametrize(
    ("key", "value"), [("network", "unannotated"), ("optimizer", "unannotated"), ("optimizer", "network")]
)
def test_a_function_says_what_it_makes_or_is_not_called(own_module, capsys, key, value):
    message = failure(capsys, "fit", f"--config={CLASSIFIER}", f"--model.{key}=own_makers.{value}")
    assert f"--model.{key} is own_makers.{value}, which is no " in message
    assert "or a function annotated to return one" in message
    assert not Path("called").exists()


def test_classes_with_arguments_and_annotated_functions_are_called(own_module):
    command = ParsedCommand([
        "fit", f"--config={CLASSIFIER}", "--model.network=own_makers.network", "--model.optimizer=own_makers.optimizer",
    ])  # fmt: skip
    assert command.model.network.conv1[0].out_channels == 4
    assert command.model.configure_optimizers().defaults["momentum"] == 0.9
    elu = "{class_path: torch.nn.ELU, init_args: {alpha: 0.5}}"
    sgd = "{class_path: torch.optim.SGD, init_args: {momentum: 0.8}}"
    command = ParsedCommand([
        "fit", f"--config={CLASSIFIER}", f"--model.network.activation={elu}", f"--model.optimizer={sgd}",
    ])  # fmt: skip
    assert command.model.network.conv1[1].alpha == 0.5
    assert command.model.configure_optimizers().defaults["momentum"] == 0.8


def test_an_optimiser_is_one_in_deed(own_module):
    command = ParsedCommand(["fit", f"--config={CLASSIFIER}", "--model.optimizer=own_makers.liar"])
    with pytest.raises(ValueError, match="optimizer gives an int"):
        command.model.configure_optimizers()


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("density.dropout", "null", "model.density.dropout in wrong.yaml is null; give a value, or leave the key out"),
        ("density.num_filters", "null", "model.density.num_filters in wrong.yaml is null"),
        ("density.sampler", "null", "model.density.sampler in wrong.yaml is null"),
        ("density.likelihood", "null", "model.density.likelihood in wrong.yaml is null"),
        (
            "density.likelihood",
            "{class_path: Categorical, init_args: {num_levels: null}}",
            "model.density.likelihood.num_levels in wrong.yaml is null",
        ),
        ("density.likelihood", "{class_path: Categorical, init_args: {num_levels: 7}}", "7 does not divide 256"),
        ("density.likelihood", "{class_path: LogisticMixture, init_args: {log_scale_floor: -99}}", "give -40 to 5"),
        ("density.num_layers", "2.5", "num_layers in wrong.yaml is 2.5; give a whole number"),
        ("density.dropout", ".nan", "dropout nan is not in [0, 1)"),
        ("network.filters", "null", "model.network.filters in wrong.yaml is null"),
        ("network.filters", "[5]", "filters is [5]; give two numbers"),
        ("network.num_hidden", "1000000000000", "no room for"),
    ],
)  # fmt: skip
def test_a_wrong_argument_is_one_sentence(tmp_path, monkeypatch, capsys, key, value, sentence):
    monkeypatch.chdir(tmp_path)
    Path("wrong.yaml").write_text(f"model:\n  init_args:\n    {nested(key, value)}\n")
    assert sentence in failure(capsys, "fit", f"--config={INVERTER}", "--config=wrong.yaml")
