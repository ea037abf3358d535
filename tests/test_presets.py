"""A preset is given in addition to an experiment's config, and fits every one."""

import re
import shlex

import pytest
from small_runs import INVERTER, failure
from test_configs import CONFIGS
from test_study import plan  # noqa: F401 - a fixture

from cli import main
from commands.completion import command_parser
from commands.config_files import CONFIGS as FOLDER
from commands.config_files import config_names, preset_names
from commands.known_keys import KnownKeys, given_keys
from commands.parser import ParsedCommand
from runtime.silence import silence_lightning

GPU = "--config=presets/gpu.yaml"
silence_lightning()  # as the command does before it parses


def checked(verb, *words):
    """The values of a command's keys, of which the verb has all."""
    given = given_keys(words)
    known = KnownKeys(verb, given)
    for each in given:
        known.check(each)
    return {each.key: each.value for each in given}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_preset_fits_every_config_and_leaves_what_that_says_itself(name):
    own, both = checked("fit", f"--config={name}"), checked("fit", f"--config={name}", GPU)
    assert both["compile"] is True
    assert both["trainer.precision"] == "bf16-mixed"
    assert both["patience"] == own.get("patience", 4)
    assert both["trainer.val_check_interval"] == own.get("trainer.val_check_interval", 5000)
    # Or a preset would change the one of two numbers that belong together.
    assert "patience" in own or "trainer.val_check_interval" not in own


@pytest.mark.parametrize("name", ["classifier_mnist", "mse_svhn_conv2", "unconditional_cifar", "world_glyph"])
def test_the_parser_takes_it_too(name, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["fit", f"--config={name}", GPU, "--print_config"])
    assert caught.value.code == 0
    assert "precision: bf16-mixed" in capsys.readouterr().out


def test_a_preset_names_no_run_wherever_it_stands_and_the_command_line_says_more():
    for words in ([f"--config={INVERTER}", "--patience=7", GPU], [GPU, f"--config={INVERTER}", "--patience=7"]):
        made = ParsedCommand(["fit", *words, "--trainer.accelerator=cpu", "--trainer.precision=32-true"])
        assert made.name == INVERTER
        trainer = made.settings.trainer
        assert (made.settings.patience, trainer.val_check_interval, trainer.precision) == (7, 500, "32-true")
        assert made.settings.compile


def test_alone_it_is_refused(capsys):
    assert "gpu.yaml is a preset, which names no run; give it after an experiment's" in failure(capsys, "fit", GPU)
    assert "did you mean presets/gpu.yaml?" in failure(capsys, "fit", f"--config={INVERTER}", "--config=gpu")


def test_it_is_no_experiment_but_is_completed(capsys):
    assert preset_names() == ["presets/gpu"]
    assert "gpu" not in config_names()
    (verbs,) = command_parser()._subparsers._group_actions
    assert "presets/gpu" in verbs.choices["fit"]._option_string_actions["--config"].choices


def test_the_classifier_on_the_way_gets_it_and_what_decides_its_bits(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    calls = []
    monkeypatch.setattr("commands.classifier._run", lambda call, lock: calls.append(call) or 1)
    given = ["--trainer.accelerator=cpu", "--trainer.deterministic=true"]
    assert "training the classifier failed" in failure(capsys, "fit", f"--config={INVERTER}", GPU, *given)
    ((_, _, verb, *words),) = calls
    assert words[:3] == ["--config", "classifier_mnist5k.yaml", f"--config={FOLDER / 'presets' / 'gpu.yaml'}"]
    values = checked(verb, *words)
    assert (values["trainer.precision"], values["trainer.deterministic"]) == ("bf16-mixed", True)
    assert values["trainer.val_check_interval"] == 100


def test_a_deterministic_run_chooses_no_algorithm_by_its_timing():
    given = ["--trainer.accelerator=cpu", "--trainer.deterministic=true"]
    assert ParsedCommand(["fit", f"--config={INVERTER}", GPU, *given]).settings.trainer.benchmark is False


def test_snakemake_gives_it_to_every_run(plan, tmp_path):  # noqa: F811
    text = plan("paper", "--config", "arguments=--config presets/gpu.yaml")
    commands = re.findall(r"cli\.py (?!report)(.*)", text)
    assert len(commands) > 100
    assert {words.split()[0] for words in commands} == {"fit", "distances", "estimators"}
    assert all(words.endswith("--config presets/gpu.yaml") for words in commands)
    for verb in ("fit", "distances", "estimators"):
        words = next(words for words in commands if words.startswith(verb))
        assert checked(verb, *shlex.split(words)[1:])["compile"] is True
