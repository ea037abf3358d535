"""Every command of the README that calls cli.py runs as it stands, shortened by flags."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from mnist_files import write_mnist
from PIL import Image
from test_configs import INVERTER, SHORT

from cli import main

README = (Path(__file__).parents[1] / "README.md").read_text()
COMMANDS = [
    shlex.split(line.split("&&")[-1], comments=True)[2:]
    for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
    if "python cli.py" in line
]


# Resuming in the middle of an epoch starts the epoch's order anew.
@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended")
def test_commands_run_in_the_readmes_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_mnist(Path("data"), num_train=40, num_test=10)
    for name in ("a.png", "b.png"):
        Image.fromarray(np.zeros((28, 28), dtype=np.uint8)).save(name)
    for name in ("classifier_mnist5k.yaml", "classifier_mnist.yaml"):
        main(["fit", "--config", name, *SHORT, *([] if "5k" in name else ["--data.val_split=10"])])
    verbs = set()
    for command in COMMANDS:
        verbs.add(command[0])
        name = next(part for part in command if part.endswith(".yaml"))
        inverter = [] if name.startswith("classifier") else INVERTER
        short = [*SHORT, "--trainer.limit_predict_batches=2", *([] if "5k" in name else ["--data.val_split=10"])]
        main([*command, *short, *inverter])
    assert verbs == {"fit", "test", "predict", "sample", "score"}
