"""The W&B sweeps, as W&B's own agent would run their first combination, without a server."""

import subprocess

import pytest
import yaml
from small_runs import CLI, INVERTER, ROOT, environment_of_its_own, write_short_config
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

SWEEPS = sorted(path.stem for path in (ROOT / "sweeps").glob("*.yaml"))


def agents_command(sweep, values):
    """As wandb/wandb_agent.py puts it together."""
    macros = create_sweep_command_args({"args": {key: {"value": value} for key, value in values.items()}})
    macros |= {"program": [sweep["program"]], "interpreter": ["python"], "env": ["/usr/bin/env"]}
    command = []
    for part in create_sweep_command(list(sweep["command"])):
        command += macros[part[2:-1]] if part.startswith("${") and part.endswith("}") else [part]
    return command


@pytest.mark.parametrize("name", SWEEPS)
def test_the_agents_command_works_as_it_is(name, tmp_path):
    sweep = yaml.safe_load((ROOT / "sweeps" / f"{name}.yaml").read_text())
    assert sweep["method"] == "grid"
    assert sweep["metric"] == {"name": "val/nce_nats", "goal": "maximize"}
    assert all(len(parameter["values"]) > 1 for parameter in sweep["parameters"].values())
    values = {key: parameter["values"][-1] for key, parameter in sweep["parameters"].items()}
    for config in ("classifier_mnist5k", INVERTER):
        write_short_config(tmp_path, config, 2)
    (tmp_path / "cli.py").symlink_to(CLI)
    environment = environment_of_its_own(WANDB_RUN_ID="abc123", WANDB_SWEEP_ID="sweep1")
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
