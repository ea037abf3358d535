"""The W&B sweeps, as W&B's own agent would run their first combination, without a server."""

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

ROOT = Path(__file__).parents[1]
SWEEPS = sorted(path.stem for path in (ROOT / "sweeps").glob("*.yaml"))


def agents_command(sweep, values):
    """As wandb/wandb_agent.py puts it together."""
    macros = create_sweep_command_args({"args": {key: {"value": value} for key, value in values.items()}})
    macros |= {"program": [sweep["program"]], "interpreter": ["python"], "env": ["/usr/bin/env"]}
    command = []
    for part in create_sweep_command(list(sweep["command"])):
        command += macros[part[2:-1]] if part.startswith("${") and part.endswith("}") else [part]
    return command


def write_short_configs(folder):
    """They come before those of the same name in configs/."""
    for name in ("classifier_mnist5k", "inverter_mnist5k_fc3"):
        text = (ROOT / "configs" / f"{name}.yaml").read_text()
        text, count = re.subn(r"max_steps: \d+", "max_steps: 2\n  limit_test_batches: 1\n  limit_val_batches: 1", text)
        assert count == 1
        (folder / f"{name}.yaml").write_text(text.replace("num_filters: 24", "num_filters: 4"))
    (folder / "cli.py").symlink_to(ROOT / "cli.py")


@pytest.mark.parametrize("name", SWEEPS)
def test_the_agents_command_works_as_it_is(name, tmp_path):
    sweep = yaml.safe_load((ROOT / "sweeps" / f"{name}.yaml").read_text())
    assert sweep["method"] == "grid"
    assert sweep["metric"] == {"name": "val/nce_nats", "goal": "maximize"}
    assert all(len(parameter["values"]) > 1 for parameter in sweep["parameters"].values())
    values = {key: parameter["values"][-1] for key, parameter in sweep["parameters"].items()}
    write_short_configs(tmp_path)
    environment = {k: v for k, v in os.environ.items() if "WANDB" not in k}
    environment |= {
        "WANDB_RUN_ID": "abc123",
        "WANDB_SWEEP_ID": "sweep1",
        "WANDB_MODE": "offline",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(agents_command(sweep, values), cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    (folder,) = tmp_path.glob("runs/**/inverter_mnist5k_fc3/*/checkpoints")
    saved = [yaml.safe_load(path.read_text()) for path in tmp_path.glob("runs/**/config.yaml")]
    for key, value in values.items():
        name, *keys = key.split(".")[1:]
        assert any(value == _found(config["model"]["init_args"], [name, *keys]) for config in saved), key
    (run,) = folder.parent.glob("wandb/offline-run-*")
    assert run.name.endswith("-abc123")  # the sweep's; the classifier's is another
    (run,) = tmp_path.glob("runs/**/classifier_mnist5k/*/wandb/offline-run-*")
    assert not run.name.endswith("-abc123")


def _found(arguments, keys):
    """The value of a nested key, past class_path and init_args."""
    for key in keys:
        if not isinstance(arguments, dict):
            return None
        arguments = arguments.get(key, arguments.get("init_args", {}).get(key) if "init_args" in arguments else None)
    return arguments.get("class_path", arguments) if isinstance(arguments, dict) else arguments
