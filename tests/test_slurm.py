"""README's job script on a real SLURM: two tasks, a signal ahead of the limit, a requeue, and the numbers of one go."""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from digests import run_digests
from small_runs import CLI, ROOT, command, environment_of_its_own, the_run, wait_for, write_short_config
from test_ddp import DDP, DIGITS

LONGER = [*DIGITS, "--trainer.max_steps=300", "--trainer.limit_train_batches=50", "--trainer.val_check_interval=20"]


@pytest.fixture
def cluster():
    """Of one node on this machine; needs root and Debian's packages. Munge wants a folder that all may enter."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="slurm") as folder:
        script = [str(Path(__file__).parent / "slurm" / "one_node.sh"), folder]
        subprocess.run(["bash", *script], check=True, timeout=300)
        yield f"{folder}/slurm.conf"
        subprocess.run(["bash", *script, "stop"], check=True, timeout=120)


def job_script():
    """README's, with what this machine has."""
    script = re.search(r"```bash\n(#!/bin/bash\n#SBATCH.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1]
    script = re.sub(r"#SBATCH --(gpus-per-node|time|signal)=.*\n", "", script)
    script = script.replace("--ntasks-per-node=4", "--ntasks-per-node=2").replace("-per-task=4", "-per-task=1")
    script, count = re.subn(
        r"python cli.py fit --config \S+ --trainer.devices 4",
        f"{sys.executable} {CLI} fit {' '.join(LONGER + DDP)}", script,
    )  # fmt: skip
    assert count == 1
    return script


@pytest.mark.slow
def test_a_requeued_job_gives_the_numbers_of_one_go(tmp_path, cluster):
    whole, job = tmp_path / "whole", tmp_path / "job"
    for folder in (whole, job):  # without a classifier, which is trained first, alone
        folder.mkdir()
        write_short_config(folder, "classifier_mnist5k", 3)
    command(whole, "fit", *LONGER, *DDP)
    (job / "job.sh").write_text(job_script())
    environment = environment_of_its_own(SLURM_CONF=cluster)

    def slurm(*call):
        return subprocess.run(call, env=environment, cwd=job, check=True, capture_output=True, text=True).stdout.strip()

    number = slurm("sbatch", "--parsable", "job.sh")
    wait_for(lambda: list((job / "runs").glob("inverter_mnist5k_fc3/*/checkpoints/last.ckpt")))
    slurm("scancel", "--signal=USR1", number)
    wait_for(lambda: re.search(r"Restarts=1\b", slurm("scontrol", "show", "job", number)))
    wait_for(lambda: re.search(r"JobState=(COMPLETED|FAILED)", slurm("scontrol", "show", "job", number)))
    said = (job / f"slurm-{number}.out").read_text()
    assert "JobState=COMPLETED" in slurm("scontrol", "show", "job", number), said
    assert said.count("ended by SIGUSR1 after step") == 1
    assert run_digests(the_run(job)) == run_digests(the_run(whole))
