"""Which layers does all go through? Networks in which that is known."""

from collections import OrderedDict
from typing import NamedTuple

import pytest
import torch
import torchvision
from torch import nn

from inverters.bottleneck import is_bottleneck
from inverters.preprocessing import Preprocessing
from inverters.representation import Representation

IMAGES = torch.randint(256, (4, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def through(network, layer, **more):
    return is_bottleneck(Representation(network, layer, **more), IMAGES)


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(0)
    return torchvision.models.resnet18(num_classes=10)


@pytest.mark.parametrize("layer", ["conv1", "relu", "layer2.0", "layer2.1", "layer2", "layer4.1", "fc"])
def test_stages_and_blocks_of_a_resnet_are_what_all_goes_through(resnet, layer):
    assert through(resnet, layer, preprocessing=Preprocessing(side=32))


@pytest.mark.parametrize("layer", ["layer2.1.conv1", "layer2.1.bn2", "layer2.0.downsample"])
def test_something_goes_past_the_branches_of_a_residual_block(resnet, layer):
    assert not through(resnet, layer, preprocessing=Preprocessing(side=32))


class Pair(NamedTuple):
    wide: torch.Tensor
    narrow: torch.Tensor


class GivesSeveral(nn.Module):
    """A layer that gives its input, which another uses too; and one that gives two tensors in a way of its own."""

    def __init__(self, kind):
        super().__init__()
        self.flat, self.same, self.both, self.out = nn.Flatten(), nn.Identity(), Both(kind), nn.Linear(192, 5)

    def forward(self, x):
        both = self.both(self.flat(x))
        wide, narrow = both.values() if isinstance(both, dict) else both
        return {"scores": self.out(self.same(wide) + wide + narrow)}


class Both(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.kind = kind

    def forward(self, x):
        parts = x[:, :96].repeat(1, 2), x[:, 96:].repeat(1, 2)
        return self.kind(*parts)


KINDS = {
    "tuple": (lambda a, b: (a, b), "[0]"), "list": (lambda a, b: [a, b], "[0]"), "named tuple": (Pair, "[0]"),
    "dict": (lambda a, b: OrderedDict(wide=a, narrow=b), '["wide"]'),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_one_of_two_outputs_is_not_all(kind):
    make, pick = KINDS[kind]
    network = GivesSeveral(make)
    assert through(network, "flat")
    assert not through(network, f"both{pick}")
    assert not through(network, "same")  # whose output is its input, of which the sum has another part


def test_where_it_cannot_be_seen_nothing_is_claimed():
    constant = nn.Sequential(OrderedDict(flat=nn.Flatten(), out=nn.Linear(192, 2)))
    assert through(constant, "flat")
    nn.init.zeros_(constant.out.weight)
    assert not through(constant, "flat")
    assert not through(nn.Sequential(OrderedDict(flat=nn.Flatten(), fails=nn.Linear(5, 2))), "flat")
    assert not through(constant, None)


def test_the_mean_of_tokens_is_not_all_that_comes_after_sees():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.out = nn.Conv2d(3, 8, 4, 4), nn.Linear(32, 2)
            self.tokens = nn.Identity()

        def forward(self, x):
            return self.out(self.tokens(self.embed(x).flatten(2).mT).flatten(1))

    torch.manual_seed(0)
    network = Tokens()
    assert through(network, "tokens")
    assert not through(network, "tokens", tokens="mean")
