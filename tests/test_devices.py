"""Which devices a command takes: one, unless it is told otherwise."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from conftest import wants_gpu
from small_runs import INVERTER, ROOT, environment_of_its_own, failure
from test_study import plan  # noqa: F401 - a fixture

from cli import main
from runtime.processes import check_started

ON_A_GPU = [sys.executable, str(ROOT / "runtime" / "one_gpu.py")]
SAYS_IT = [sys.executable, "-c", "import os; print(os.environ.get('CUDA_VISIBLE_DEVICES'), flush=True); input()"]


def begun(folder, gpus):
    environment = {"PATH": str(folder), "TMPDIR": str(folder)}
    if gpus is not None:
        environment["CUDA_VISIBLE_DEVICES"] = gpus
    pipe = subprocess.PIPE
    return subprocess.Popen([*ON_A_GPU, *SAYS_IT], env=environment, stdin=pipe, stdout=pipe, text=True)


def test_every_command_has_a_gpu_of_its_own_and_the_next_waits_for_one(tmp_path):
    first, second = begun(tmp_path, "4, 6"), begun(tmp_path, "4,6")
    assert {first.stdout.readline(), second.stdout.readline()} == {"4\n", "6\n"}
    third = begun(tmp_path, "4,6")
    second.communicate("", timeout=60)
    said, _ = third.communicate("\n", timeout=60)
    assert said in ("4\n", "6\n")
    assert first.poll() is None
    first.communicate("\n", timeout=60)


@pytest.mark.parametrize(("gpus", "said"), [("7", "7\n"), ("", "\n"), (None, "None\n")])
def test_one_gpu_or_none_is_left_as_it_is(tmp_path, gpus, said):
    assert begun(tmp_path, gpus).communicate("\n", timeout=60)[0] == said


def test_all_gpus_of_the_machine_are_to_choose_from(tmp_path):
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\necho GPU-1\necho GPU-2\n")
    driver.chmod(0o755)
    assert begun(tmp_path, None).communicate("\n", timeout=60)[0] == "GPU-1\n"


def test_every_run_of_snakemakes_is_started_on_one(plan):  # noqa: F811
    commands = [line for line in plan("study_mnist5k").splitlines() if "cli.py" in line and "report" not in line]
    assert len(commands) > 20
    assert all("runtime/one_gpu.py" in line for line in commands)


def test_a_run_takes_one_device(capsys):
    with pytest.raises(SystemExit):
        main(["fit", f"--config={INVERTER}", "--print_config"])
    assert "\n  devices: 1\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("launcher", "environment"),
    [
        ("torchrun", {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "4"}),
        ("srun", {"SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_NUM_NODES": "1"}),
    ],
)
def test_several_processes_for_a_run_of_one_are_refused(monkeypatch, capsys, tmp_path, launcher, environment):
    monkeypatch.chdir(tmp_path)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    said = failure(capsys, "fit", f"--config={INVERTER}", "--trainer.accelerator=cpu")
    assert f"{launcher} has started 4 processes on 1 node" in said
    assert "give --trainer.devices 4" in said
    assert not (tmp_path / "runs").exists()


def test_a_shell_on_a_node_starts_its_own_processes(monkeypatch):
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    trainer = SimpleNamespace(num_devices=4, num_nodes=1)
    with pytest.raises(ValueError, match="srun has started 1 processes"):
        check_started(trainer)
    monkeypatch.setenv("SLURM_JOB_NAME", "bash")
    check_started(trainer)


def test_tests_see_a_gpu_only_where_they_ask_for_it():
    assert [wants_gpu(expr) for expr in ("not slow and not gpu", "slow", "", "gpu", "gpu or slow")] == [
        False, False, False, True, True,
    ]  # fmt: skip
    assert os.environ["CUDA_VISIBLE_DEVICES"] == environment_of_its_own()["CUDA_VISIBLE_DEVICES"] == ""
    assert torch.cuda.device_count() == 0
