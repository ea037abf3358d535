"""The average of the weights."""

from pathlib import Path
from types import SimpleNamespace

import torch
from reads import Reads
from small_runs import INVERTER, SHORT, checkpoint_of
from torch import nn
from torch.optim.swa_utils import AveragedModel

from callbacks.weight_averaging import WarmWeightAveraging
from cli import main
from runtime.checkpoints import load_checkpoint


def test_the_average_is_its_recursion_to_the_last_place_and_frozen_weights_stay_bit_for_bit():
    """(1 + t) / (10 + t) is below 0.5 up to t = 8."""
    model = nn.Sequential(nn.Linear(30, 50), nn.Linear(5, 2).requires_grad_(False), nn.BatchNorm1d(3))
    callback, trainer = WarmWeightAveraging(decay=0.7), SimpleNamespace(global_step=0)
    callback._average_model = AveragedModel(model)
    callback.on_train_start(trainer, model)
    averaged, frozen = callback._average_model.module, model[1].weight.clone()
    for t in range(30):
        nn.init.normal_(model[0].weight)
        model[2].running_mean = torch.full((3,), float(t))
        old, now = averaged[0].weight.double(), model[0].weight.double()
        trainer.global_step += 1
        callback.on_train_batch_end(trainer, model, None, None, t)
        expected = now if t == 0 else old + (now - old) * (1 - min(0.7, (1 + t) / (10 + t)))
        unit = torch.finfo(torch.float32).eps * torch.maximum(old.abs(), now.abs())
        assert ((averaged[0].weight - expected).abs() <= unit).all()
        assert torch.equal(averaged[2].running_mean, model[2].running_mean)
    assert torch.equal(averaged[1].weight, frozen)
    assert callback._average_model.n_averaged == 30


def test_a_run_in_float64_goes_on_as_if_uninterrupted(with_classifier):
    wide = [*SHORT, "--trainer.precision=64-true", "--test_after_fit=false", "--trainer.enable_progress_bar=false"]
    main(["fit", *wide, "--trainer.max_steps=2"])
    main(["fit", *wide, "--trainer.max_steps=3", "--ckpt_path=last"])
    interrupted = load_checkpoint(checkpoint_of())
    main(["fit", *wide, "--trainer.max_steps=3", "--name=whole"])
    whole = load_checkpoint(Path("runs", INVERTER, "whole", "checkpoints", "last.ckpt"))
    for weights in ("state_dict", "current_model_state"):  # the average, and what is trained
        for name, value in whole[weights].items():
            assert value.dtype != torch.float32
            assert torch.equal(interrupted[weights][name], value), name


def test_the_average_goes_to_the_model_s_device():
    """Lightning makes it before the model is there."""
    model = nn.Linear(3, 5)
    callback = WarmWeightAveraging()
    callback._average_model = AveragedModel(model)
    callback.on_fit_start(None, SimpleNamespace(device=torch.device("meta")))
    assert callback._average_model.module.weight.is_meta
    assert callback._average_model.n_averaged.device.type == "cpu"  # where it is counted without a wait


def test_averaging_reads_no_tensor_after_the_first_step():
    """A GPU would be waited for."""
    model = nn.Linear(3, 5)
    callback, trainer = WarmWeightAveraging(), SimpleNamespace(global_step=0)
    callback._average_model = AveragedModel(model)
    callback.on_train_start(trainer, model)
    with Reads() as reads:
        for trainer.global_step in range(1, 4):
            callback.on_train_batch_end(trainer, model, None, None, 0)
    assert reads.count == 0


def test_a_checkpoint_does_not_say_which_steps_are_averaged():
    """A step far ahead would end the averaging without a word."""
    averaging, model = WarmWeightAveraging(), nn.Linear(3, 5)
    averaging._average_model = AveragedModel(model)
    averaging.load_state_dict({"latest_update_step": 10**30})
    averaging.on_train_start(SimpleNamespace(global_step=7), model)
    assert averaging.state_dict() == {"latest_update_step": 7}
