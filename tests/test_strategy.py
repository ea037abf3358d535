"""How several processes are set up."""

from datetime import timedelta

import pytest
import torch
from pytorch_lightning.strategies import DDPStrategy

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
