"""Kill a command with SIGKILL at random moments, begin it again until it ends, and compare all files with those of a
command that nobody killed.

The moments are those of the whole command, the classifier's training with it, and as many of the inverter's training.

python tests/kill_trial.py --kills 50
"""

import argparse
import random
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from digests import every_file
from small_runs import SMALL, started, write_short_config

# A validation, and with it two checkpoints, after every second step.
FIT = [
    "fit", *SMALL, "--model.density.dropout=0.3", "--sample_grid.every_n_steps=1000000", "--patience=1000000",
    "--trainer.val_check_interval=2", "--trainer.limit_train_batches=7", "--trainer.limit_val_batches=1",
    "--trainer.limit_test_batches=1", "--ckpt_path=auto",
]  # fmt: skip


def trial(folder: Path, num_kills: int, max_steps: int, seed: int = 0) -> int:
    """Returns how many kills the run has survived.

    Args:
        folder: Empty, to work in.
        num_kills: After so many the run may end; it is begun anew, in a copy, where it ends before.
        max_steps: Of the run.
        seed: Of the moments.

    Raises:
        AssertionError: A resumed run failed, or came to other numbers.
    """
    generator = random.Random(seed)
    whole, killed = folder / "whole", folder / "killed"
    fit = [*FIT, f"--trainer.max_steps={max_steps}"]
    with (folder / "log.txt").open("w") as log:
        start = time.monotonic()
        whole.mkdir(parents=True)
        write_short_config(whole, "classifier_mnist5k", max_steps=3)
        assert started(whole, *fit, stdout=log, stderr=log).wait() == 0
        duration, expected = time.monotonic() - start, every_file(whole / "runs")
        kills = 0
        while True:
            shutil.rmtree(killed, ignore_errors=True)
            killed.mkdir()
            write_short_config(killed, "classifier_mnist5k", max_steps=3)
            while True:
                process = started(killed, *fit, stdout=log, stderr=log)
                moment = generator.uniform(0, duration)
                if kills % 2:
                    wait_until_it_trains(process, killed)
                    moment = generator.uniform(0, 3)
                try:
                    process.wait(moment if kills < num_kills else None)
                    break
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                    kills += 1
                    print(f"kill {kills} after {time.monotonic() - start:.0f} s", flush=True)
            assert process.returncode == 0, (folder / "log.txt").read_text()[-2000:]
            found = every_file(killed / "runs")
            different = {name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name)}
            assert not different, different
            if kills >= num_kills:
                return kills


def wait_until_it_trains(process: subprocess.Popen[str], folder: Path) -> None:
    """Until it has opened its metrics, or a minute at most: starting Python takes the most of a short life."""
    newest = 0.0
    begin = time.time()
    while process.poll() is None and newest < begin and time.time() < begin + 60:
        files = folder.glob("runs/inverter_mnist5k_fc3/*/wandb/*run-*")
        newest = max((file.stat().st_mtime for file in files), default=0.0)
        time.sleep(0.02)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--max_steps", type=int, default=200)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        print(f"{trial(Path(directory), given.kills, given.max_steps)} kills survived, and the same numbers")
