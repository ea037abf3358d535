"""Every command of the README that calls cli.py runs as it stands, shortened by flags.

test_benchmarks.py and test_study.py have its other commands.
"""

import itertools
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from dataset_files import write_data_sets
from PIL import Image
from small_runs import OWN_NETWORK, ROOT, result
from test_configs import CONFIGS, shortened

from cli import main
from commands import SKIPPED, WITHOUT_CONFIG

README = (ROOT / "README.md").read_text()
LINES = [
    shlex.split(line.split("&&")[-1], comments=True)
    for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
]
COMMANDS = [line[2:] for line in LINES if line[:2] == ["python", "cli.py"] and "--trainer.devices" not in line]
DISTRIBUTED = [line[line.index("cli.py") + 1 :] for line in LINES if "--trainer.devices" in line]


def test_commands_run_in_the_readmes_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_data_sets(tmp_path, monkeypatch)
    monkeypatch.syspath_prepend(tmp_path)
    Path("my_nets.py").write_text(re.search("```python\n(# my_nets.py.*?)```", README, re.DOTALL)[1])
    Path("my_inverter.yaml").write_text(re.search("```yaml\n(# my_inverter.yaml.*?)```", README, re.DOTALL)[1])
    (making_weights,) = (line[2] for line in LINES if line[:2] == ["python", "-c"])
    exec(making_weights)
    for name in ("a.png", "b.png"):
        Image.fromarray(np.zeros((28, 28), dtype=np.uint8)).save(name)
    for name in ("classifier_mnist5k.yaml", "classifier_mnist.yaml", "classifier_images_small.yaml"):
        main(["fit", *shortened(name)])
    for command in COMMANDS:
        if command[0] in WITHOUT_CONFIG:
            few = ["--num_images=4", "--num_draws=1", "--num_shown=2", "--num_candidates=2"]
            main([*command, *(few if command[0] == "diff" else [])])
            continue
        name = command[command.index("--config") + 1].removesuffix(".yaml")
        short = [] if command[0] == "layers" else shortened(f"{name}.yaml")[2:]
        short += {
            "predict": ["--trainer.limit_predict_batches=2"],
            "compare": ["--num_images=6", "--num_samples=2"],
            "compress": ["--num_images=6"],
            "contrast": ["--num_images=8"],
            "rates": ["--num_images=8"],
            "distances": ["--num_images=6", "--num_samples=2", "--num_queries=1", "--num_candidates=8"],
        }.get(command[0], [])
        main([*command, *short])
    assert Path("runs/report.html").is_file()
    verbs = {command[0] for command in COMMANDS}
    assert {*SKIPPED, *WITHOUT_CONFIG} - verbs <= {"validate", "download", "configs", "completion"}


def test_the_readmes_own_data_set_is_trained_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("my_file.py").write_text(re.search("```python\n(.*?)```", README, re.DOTALL)[1])
    Path("network_for_stripes.py").write_text(OWN_NETWORK)
    own = ["--data=my_file.Stripes", "--model.network=network_for_stripes.TwoStages"]
    main(["fit", "--config=classifier_mnist5k", *own, "--trainer.max_steps=300", "--trainer.logger=false"])
    assert result("classifier_mnist5k")["accuracy"] > 0.9  # and its labels are those of its images


@pytest.mark.parametrize("command", DISTRIBUTED, ids=" ".join)
def test_commands_for_several_processes_are_understood(command, capsys):
    """test_ddp.py and test_slurm.py run such ones."""
    with pytest.raises(SystemExit) as caught:
        main([*command, "--print_config"])
    assert caught.value.code == 0
    assert "devices: '4'" in capsys.readouterr().out


def test_names_in_the_readme_are_configs():
    table = README[README.index("## The published experiments") : README.index("**Own data set or density**")]
    names = {name for pattern in re.findall(r"`([a-z0-9_{},]+)`", table) for name in expanded(pattern)}
    kinds = ("classifier", "inverter", "mse", "perceptual", "gan", "pixels", "deconvnet", "unconditional", "world")
    names = {name for name in names if name.split("_")[0] in kinds}
    assert len(names) > 45
    assert names == {name.removesuffix(".yaml") for name in CONFIGS}


def expanded(pattern):
    """The names that a shell would make of braces."""
    parts = [part.split(",") for part in re.split(r"[{}]", pattern)]
    return ["".join(choice) for choice in itertools.product(*parts)]
