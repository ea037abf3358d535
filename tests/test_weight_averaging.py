"""The average of the weights."""

from types import SimpleNamespace

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from callbacks.weight_averaging import WarmWeightAveraging


def test_the_average_is_its_recursion_and_frozen_weights_stay_bit_for_bit():
    model = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2).requires_grad_(False))
    averaged = AveragedModel(model, **WarmWeightAveraging(decay=0.5)._kwargs)
    frozen = model[1].weight.clone()
    expected = None
    for t in range(30):
        nn.init.normal_(model[0].weight)
        averaged.update_parameters(model)
        now = model[0].weight.detach().double()
        # From the first weights on; (1 + t) / (10 + t) is below 0.5 up to t = 8.
        expected = now if expected is None else expected + (now - expected) * (1 - min(0.5, (1 + t) / (10 + t)))
        torch.testing.assert_close(averaged.module[0].weight.double(), expected, rtol=0, atol=1e-6)
    assert torch.equal(averaged.module[1].weight, frozen)


def test_a_checkpoint_does_not_say_which_steps_are_averaged():
    """A step far ahead would end the averaging without a word."""
    averaging = WarmWeightAveraging()
    averaging.load_state_dict({"latest_update_step": 10**30})
    averaging.on_train_start(SimpleNamespace(global_step=7), None)
    assert averaging.state_dict() == {"latest_update_step": 7}
