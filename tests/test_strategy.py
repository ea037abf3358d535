"""How several processes are set up."""

import subprocess
import sys
from datetime import timedelta

import pytest
import torch
from pytorch_lightning.strategies import DDPStrategy
from small_runs import ROOT

from commands.parser import ParsedCommand
from runtime.lightning import set_up_processes

TWO = ["--trainer.accelerator=cpu", "--trainer.devices=2"]
BY_CLASS = "{class_path: pytorch_lightning.strategies.DDPStrategy, init_args: {process_group_backend: gloo}}"


@pytest.mark.parametrize(
    ("config", "strategy", "expected"),
    [
        ("inverter_mnist5k_fc3", "auto", {"gradient_as_bucket_view": True, "broadcast_buffers": False}),
        ("mse_mnist5k_logits", "ddp", {"gradient_as_bucket_view": True, "broadcast_buffers": True}),
        ("classifier_mnist5k", "ddp", {"gradient_as_bucket_view": True, "broadcast_buffers": True}),
        ("inverter_mnist5k_fc3", BY_CLASS, {"gradient_as_bucket_view": False}),
    ],
)
def test_processes_of_a_named_strategy_share_what_they_must(monkeypatch, config, strategy, expected):
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # Lightning's to answer
    command = ParsedCommand(["fit", f"--config={config}.yaml", *TWO, f"--trainer.strategy={strategy}"])
    assert expected.items() <= command.trainer.strategy._ddp_kwargs.items()


@pytest.mark.parametrize(("device", "minutes"), [("cuda", 10), ("cpu", 30)])
def test_a_dead_process_ends_the_others_in_minutes_where_nobody_notices_it(device, minutes):
    strategy = DDPStrategy(parallel_devices=[torch.device(device, i) for i in range(2)])
    set_up_processes(strategy, buffers_are_equal=True)
    assert strategy._timeout == timedelta(minutes=minutes)


def test_a_process_whose_child_is_killed_ends_with_a_sentence_and_not_by_a_signal():
    program = """
import subprocess, time
from lightning_fabric.strategies.launchers.subprocess_script import _ChildProcessObserver
from runtime.lightning import say_before_killing
import os
say_before_killing(seconds=0.1)
children = [subprocess.Popen(["sleep", "60"]) for _ in range(2)]
children[0].kill()
_ChildProcessObserver(os.getpid(), children, sleep_period=0).start()
try:
    time.sleep(60)  # as in a collective that nobody answers
finally:
    print("left")
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: another process of this run has ended; if it does not say")
