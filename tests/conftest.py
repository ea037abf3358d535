"""What all tests share."""

import os
import signal
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ["WANDB_MODE"] = "offline"
# Small tensors are faster on one thread, a machine's other work does not disturb it, and its sums are always the same.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # of the commands that tests start
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell takes from its background jobs


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _one_thread():
    """Whatever a test has done to the number of threads."""
    yield
    torch.set_num_threads(1)
