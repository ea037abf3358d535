"""No step of a training waits for the device, but where a number is shown."""

import math
from types import SimpleNamespace

import pytest
import torch
from pytorch_lightning import Trainer
from pytorch_lightning.loops.training_epoch_loop import _TrainingEpochLoop
from reads import Reads
from small_runs import SMALL
from torch import nn

from callbacks.bits_per_dim import BitsPerDim
from callbacks.cross_entropy import CrossEntropy
from callbacks.step_progress import StepProgress
from callbacks.stop_at_nan import all_finite
from cli import main
from runtime.lightning import end_after_this_step, leave_signals_alone
from runtime.processes import Highest

# Without `fused` Adam counts its steps on the CPU, and reads them there.
CLASSIFIER = ["--config=classifier_mnist5k.yaml", "--trainer.accelerator=cpu", "--model.optimizer.fused=true"]


@pytest.mark.parametrize("arguments", [SMALL, CLASSIFIER])
def test_a_step_reads_values_only_where_they_are_logged(with_classifier, monkeypatch, arguments):
    found, advance, end = {}, _TrainingEpochLoop.advance, _TrainingEpochLoop.on_advance_end

    def counted(method):
        def call(self, fetcher):
            before = self.global_step
            with Reads() as reads:
                method(self, fetcher)
            step = before + (method is advance)
            found[step] = found.get(step, 0) + reads.count

        return call

    monkeypatch.setattr(_TrainingEpochLoop, "advance", counted(advance))
    monkeypatch.setattr(_TrainingEpochLoop, "on_advance_end", counted(end))
    options = ["--trainer.max_steps=7", "--trainer.log_every_n_steps=4", "--test_after_fit=false"]
    main(["fit", *arguments, *options])
    assert found[4] > 0  # which is logged
    assert [found[step] for step in (2, 3, 5, 6)] == [0] * 4


@pytest.mark.parametrize("callback", [BitsPerDim(), CrossEntropy()])
def test_processes_share_a_mean_at_logged_steps_only(callback):
    connector = SimpleNamespace(should_update_logs=False)
    trainer = SimpleNamespace(_logger_connector=connector, fast_dev_run=False, strategy=None)  # which would be asked
    model = SimpleNamespace(log=None)
    callback.on_train_batch_end(trainer, model, {"loss": torch.ones(())}, None, 0)
    connector.should_update_logs = True
    with pytest.raises(AttributeError, match="reduce"):
        callback.on_train_batch_end(trainer, model, {"loss": torch.ones(())}, None, 0)


def test_processes_agree_over_gloo_on_the_cpu_where_the_device_has_another_backend(tmp_path, monkeypatch):
    distributed = torch.distributed
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        assert Highest().group is None
        monkeypatch.setattr(distributed, "get_backend", lambda: "nccl")
        highest = Highest()
        assert distributed.get_backend_config(highest.group).startswith("cpu:gloo")
        assert highest.of_all(15) == 15
    finally:
        distributed.destroy_process_group()


def test_lightnings_own_question_before_each_step_is_left_out():
    """Interruption has its answer; `end_after_this_step` still does what it says."""
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    leave_signals_alone(trainer)
    trainer._signal_connector.received_sigterm = True
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor()  # raises in Lightning's
    end_after_this_step(trainer)
    assert trainer.received_sigterm


def test_the_bar_reads_metrics_only_when_it_is_drawn(monkeypatch):
    now, shown = [0.0], []
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    bar, metrics = StepProgress(), {"train/nce_nats": torch.tensor(-5.0), "train/bits_per_dim": torch.tensor(1.0)}
    trainer = SimpleNamespace(global_step=0, estimated_stepping_batches=9, callback_metrics=metrics)
    bar.on_train_start(trainer, None)
    monkeypatch.setattr(bar.bar, "set_postfix", lambda values, refresh: shown.append(values))
    with Reads() as reads:
        for now[0] in (1.0, 29.0, 31.0, 60.0, 61.5):
            trainer.global_step += 1
            bar.on_train_batch_end(trainer, None, None, None, 0)
    bar._close(trainer, None)
    assert shown == [{"train/nce_nats": "-5"}] * 2
    assert reads.count == 2


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_weights_are_looked_at_in_one_read(wrong):
    model = nn.ModuleList([nn.Linear(3, 5), nn.ParameterList([torch.empty(0)]), nn.Linear(40, 1).double()])
    nn.init.constant_(model[0].weight, 3e38)  # whose squares are none
    with Reads() as reads:
        assert bool(all_finite(model))
    assert reads.count == 1
    with torch.no_grad():
        model[2].weight[0, 39] = wrong
    assert not all_finite(model)
