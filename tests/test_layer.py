"""Any layer of any network: by its path, as what it gives, and refused where that is not clear."""

from collections import OrderedDict
from functools import partial

import pytest
import torch
from torch import nn

from inverters import Inverter, LogisticMixture, PixelCNN
from inverters.layer import Layer
from inverters.reading import as_read
from inverters.representation import Representation

SHAPE = (3, 16, 16)
IMAGE = torch.randint(256, (4, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
TINY = partial(PixelCNN, likelihood=LogisticMixture(), num_filters=2, num_layers=1)


class Own(nn.Module):
    """Knows nothing of us: a forward of its own, an in-place activation, outputs of several kinds."""

    def __init__(self):
        super().__init__()
        self.conv, self.relu = nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=True)
        self.rnn, self.rows_first = nn.LSTM(64, 5, batch_first=True), nn.LSTM(64, 5)
        self.pair, self.named, self.labels, self.noise = Pair(), Named(), Labels(), Noise()
        self.norm, self.alone = nn.BatchNorm2d(4, track_running_stats=False), nn.Linear(3, 3)
        self.head = nn.ModuleDict({"a": nn.Linear(16 * 5, 6)})

    def forward(self, x):
        x = self.relu(self.conv(x))
        x = self.relu(self.norm(x) + x)
        rows = x.movedim(1, 2).flatten(2)  # [B, 16, 64]
        self.pair(x), self.named(x), self.labels(x), self.noise(x), self.rows_first(rows.transpose(0, 1))
        return {"scores": self.head["a"](self.rnn(rows)[0].flatten(1))}


class Pair(nn.Module):
    def forward(self, x):
        return x.mean(1), None, [x.amax((2, 3))]


class Named(nn.Module):
    def forward(self, x):
        return {"last_hidden_state": x.flatten(1), "nested": (x,), "one": {"tensor": x}}


class Labels(nn.Module):
    def forward(self, x):
        return x.flatten(1).argmax(1)


class Noise(nn.Module):
    def forward(self, x):
        return x + torch.rand_like(x)


def representation(layer, network=None):
    made = Representation(network or Own(), layer)
    made.try_on(SHAPE)
    return made


def test_an_in_place_activation_behind_a_layer_does_not_change_it():
    network = Own()
    expected = network.conv(IMAGE.float() / 255)
    assert expected.min() < 0
    assert torch.equal(representation("conv", network)(IMAGE), expected)


def test_nothing_behind_the_layer_is_run():
    network = Own()
    found = representation("conv", network)
    network.relu.register_forward_hook(lambda *_: pytest.fail("it was run"))
    assert found(IMAGE).shape == (4, 4, 16, 16)


def test_a_network_that_fails_behind_the_layer_can_be_inverted_up_to_it():
    network = nn.Sequential(OrderedDict(conv=nn.Conv2d(3, 4, 3), flat=nn.Flatten(), fc=nn.Linear(7, 2)))
    assert representation("conv", network).num_scores is None
    with pytest.raises(ValueError, match=r"cannot be used on images of 3x16x16: mat1 and mat2 .*preprocessing.side"):
        representation("fc", network)


@pytest.mark.parametrize(("layer", "shape"), [
    ("pair[0]", (16, 16)), ("pair[2]", (4,)), ("pair[-1][0]", (4,)), ('named["last_hidden_state"]', (1024,)),
    ("named['nested'][0]", (4, 16, 16)), ("named[nested]", (4, 16, 16)), ("named[one]", (4, 16, 16)),
    ("head.a", (6,)), ("norm", None),
])  # fmt: skip
def test_what_is_picked_from_a_tuple_or_a_dict(layer, shape):
    network = Own()
    place = Layer.of(layer, network)
    assert shape in (None, tuple(place.chosen(place.output(network, IMAGE.float() / 255)).shape[1:]))


@pytest.mark.parametrize(("layer", "sentence"), [
    ("pair", r"gives 2 tensors; choose one of pair\[0\] \(16x16\), pair\[2\]\[0\] \(4\)"),
    ("rnn", r"gives 3 tensors; choose one of rnn\[0\] \(16x5\), rnn\[1\]\[0\]"),
    ("pair[1]", r"layer pair gives no \[1\]"),
    ("pair[7]", r"layer pair gives no \[7\]"),
    ("conv[0]", r"layer conv gives no \[0\]; leave it out"),
    ("named[absent]", r"layer named gives no \['absent'\]"),
    ("relu", "the module relu is run 2 times for one batch, so that its name is no one layer; give another one"),
    ("rows_first[0]", r"first axis of what layer rows_first\[0\] gives, \[16, 3, 5\], is not that of a batch of 3"),
    ("labels", "gives torch.int64, not floats"),
    ("noise", "gives two answers for one batch"),
    ("norm", "gives an image another h where other images are beside it"),
    ("alone", "is not run when the network sees an image; python cli.py layers"),
    ("con", r"no layer 'con' in this Own; did you mean conv\? \(python cli.py layers"),
    ("xyz", r"no layer 'xyz' in this Own; it has conv, relu, "),
    ("head.b", r"no layer 'head.b' in this Own; did you mean head.a"),
    ("conv]", "no layer"),
    ("", "no layer ''"),
])  # fmt: skip
def test_what_is_no_one_layer_is_refused_with_what_to_write(layer, sentence):
    with pytest.raises(ValueError, match=sentence):
        representation(layer)


def test_trying_changes_neither_the_network_nor_the_random_numbers():
    network = Own()
    before, after = {k: v.clone() for k, v in network.state_dict().items()}, torch.get_rng_state()
    made = representation("conv", network)
    needed = made.needed(SHAPE)
    assert needed == {"conv.weight", "conv.bias"}
    assert torch.equal(torch.get_rng_state(), after)
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())
    assert not any(p.requires_grad for p in network.parameters())


class Functional(nn.Module):
    """Uses the weights of a module that it does not call, a parameter of its own, and one later."""

    def __init__(self):
        super().__init__()
        self.unused, self.first, self.last = nn.Linear(768, 4), nn.Linear(768, 4), nn.Linear(4, 2)
        self.token, self.later = nn.Parameter(torch.ones(4)), nn.Parameter(torch.ones(2))
        self.middle = nn.Tanh()

    def forward(self, x):
        h = self.middle(nn.functional.linear(x.flatten(1), self.first.weight, self.first.bias) + self.token)
        return self.last(h) + self.later


def test_needed_is_what_h_depends_on_and_no_more():
    assert representation("middle", Functional()).needed(SHAPE) == {"first.weight", "first.bias", "token"}


def test_depth_follows_the_order_of_execution():
    names = ["conv", "norm", "rnn[0]", "head.a"]
    depths = []
    for name in names:
        network = Own()
        network.norm = nn.BatchNorm2d(4)
        depths.append(representation(name, network).depth)
    assert depths == sorted(depths)
    assert len(set(depths)) == 4


class Alike(nn.Module):
    """The same as named stages in an nn.Sequential, with a forward of its own."""

    def __init__(self, image_shape, num_classes):
        super().__init__()
        for name, stage in staged(image_shape, num_classes).named_children():
            self.add_module(name, stage)

    def forward(self, x):
        return self.scores(torch.flatten(self.second(self.first(x)), 1))


def staged(image_shape, num_classes):
    torch.manual_seed(5)
    return nn.Sequential(OrderedDict(
        first=nn.Conv2d(image_shape[0], 4, 3, stride=2), second=nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU()),
        scores=nn.Sequential(nn.Flatten(), nn.Linear(100, num_classes)),
    ))  # fmt: skip


def test_named_stages_and_an_imported_module_give_the_same_nce_to_the_last_digit():
    log_probs = []
    for factory in (staged, Alike):
        torch.manual_seed(0)
        inverter = Inverter("second", SHAPE, 10, factory, TINY)
        torch.manual_seed(0)
        inverter.density = TINY(SHAPE, (4, 5, 5))
        inverter.initialise([IMAGE], IMAGE)
        log_probs.append(inverter.eval().log_prob({"image": IMAGE}))
        assert inverter.representation.depth == 2
    assert torch.equal(*log_probs)


@pytest.mark.parametrize(("number", "num_prefix"), [(16, 0), (17, 1), (18, 2), (20, 4), (21, 5), (1, 0), (2, 1)])
def test_tokens_become_a_map_and_nothing_is_lost(number, num_prefix):
    raw = torch.randn(2, number, 3)
    h = as_read(raw, "blocks.5", nn.Identity(), (224, 224))
    side = h.shape[-1]
    assert h.shape == (2, 3 * (1 + num_prefix), side, side)
    patches, prefix = h[:, :3].flatten(2).transpose(1, 2), h[:, 3:, 0, 0].unflatten(1, (num_prefix, 3))
    assert torch.equal(torch.cat([prefix, patches], dim=1), raw)
    assert torch.equal(h[:, 3:], h[:, 3:, :1, :1].expand_as(h[:, 3:]))
    assert torch.equal(as_read(raw, "", nn.Identity(), (9, 9), "map"), h[:, :3])
    torch.testing.assert_close(as_read(raw, "", nn.Identity(), (9, 9), "mean"), patches.mean(1))
    if num_prefix:
        assert torch.equal(as_read(raw, "", nn.Identity(), (9, 9), "prefix"), prefix.flatten(1))


def test_a_network_says_how_many_of_its_tokens_are_prefixes():
    network = nn.Identity()
    network.num_prefix_tokens = 9
    assert as_read(torch.zeros(1, 25, 2), "", network, (32, 32)).shape == (1, 2 * 10, 4, 4)
    assert as_read(torch.zeros(1, 16, 2), "", network, (32, 32)).shape == (1, 2, 4, 4)  # before they are put in front


def test_patches_of_an_oblong_image_are_an_oblong_map():
    assert as_read(torch.zeros(1, 9, 2), "", nn.Identity(), (32, 64)).shape[2:] == (2, 4)
    assert as_read(torch.zeros(1, 15, 2), "", nn.Identity(), (96, 160)).shape[2:] == (3, 5)


@pytest.mark.parametrize(("size", "seen", "read"), [
    ((7, 7, 5), (224, 224), (5, 7, 7)), ((5, 7, 7), (224, 224), (5, 7, 7)), ((7, 7, 7), (32, 32), (7, 7, 7)),
    ((4, 8, 5), (32, 64), (5, 4, 8)), ((5, 4, 8), (32, 64), (5, 4, 8)), ((1, 1, 5), (32, 32), (5, 1, 1)),
    ((5,), (32, 32), (5,)), ((), (32, 32), (1,)),
])  # fmt: skip
def test_vectors_stay_and_maps_have_their_channels_first(size, seen, read):
    raw = torch.randn(2, *size)
    h = as_read(raw, "x", nn.Identity(), seen)
    assert tuple(h.shape[1:]) == read
    assert torch.equal(h.flatten().sort().values, raw.flatten().sort().values)


@pytest.mark.parametrize(("size", "tokens", "sentence"), [
    ((28, 5), "all", "28 tokens are no grid of patches of an image of 32x32, .* --model.tokens mean"),
    ((16, 5), "prefix", "patches alone; give map or mean"),
    ((5, 4, 4), "map", "tokens is map, and layer x gives 5x4x4, which are no tokens; leave it out"),
    ((5,), "mean", "which are no tokens"),
    ((2, 3, 4, 5), "all", "gives 2x3x4x5, which is neither a vector, a map nor tokens"),
])  # fmt: skip
def test_what_cannot_be_read_is_refused(size, tokens, sentence):
    with pytest.raises(ValueError, match=sentence):
        as_read(torch.zeros(2, *size), "x", nn.Identity(), (32, 32), tokens)


def test_the_mean_of_any_tokens_can_be_had():
    raw = torch.randn(2, 28, 5)
    assert torch.equal(as_read(raw, "x", nn.Identity(), (32, 32), "mean"), raw.mean(1))


def test_a_vector_that_is_too_large_for_the_memory_is_refused_before_it_is_made():
    with pytest.raises(ValueError, match=r"h enters as 1000000000 channels, which takes .* GB .* gives fewer"):
        PixelCNN((1, 28, 28), (10**9,))
