from functools import partial

import pytest
import torch
from torch import nn

from inverters import Classifier, Inverter
from inverters.networks import ConvNet, FullyConnectedNet, Residual


def shapes(network, image_shape):
    """The shape of every stage's output, without the batch axis."""
    x, result = torch.rand(2, *image_shape), {}
    for name, stage in network.named_children():
        x = stage(x)
        result[name] = tuple(x.shape[1:])
    return result


@pytest.mark.parametrize(
    ("image_shape", "filters", "conv1", "conv2"),
    [
        ((1, 28, 28), (32, 32), (32, 12, 12), (32, 4, 4)),
        ((3, 32, 32), (64, 128), (64, 14, 14), (128, 5, 5)),
        ((1, 40, 40), (32, 32), (32, 18, 18), (32, 7, 7)),
    ],
)
@pytest.mark.parametrize("options", [{}, {"global_pooling": True}, {"batch_norm": True, "residual": True}])
def test_layers_have_the_papers_shapes(image_shape, filters, conv1, conv2, options):
    network = ConvNet(image_shape, 10, filters, **options)
    assert shapes(network, image_shape) == {"conv1": conv1, "conv2": conv2, "fc3": (256,), "logits": (10,)}


def test_too_small_images_are_refused():
    with pytest.raises(ValueError, match="at least 16x16"):
        ConvNet((1, 12, 12), 10)


def test_fully_connected_layers_have_the_papers_shapes():
    network = FullyConnectedNet((1, 40, 40), 10)
    assert shapes(network, (1, 40, 40)) == {"fc1": (2048,), "fc2": (2048,), "fc3": (256,), "logits": (10,)}


def test_global_pooling_forgets_a_shift_by_the_stride_of_the_pooling():
    x = torch.zeros(1, 1, 40, 40)
    x[:, :, 10:20, 12:20] = torch.rand(10, 8)
    shifted = x.roll((4, 8), dims=(2, 3))
    pooled, plain = (ConvNet((1, 40, 40), 10, global_pooling=flag).eval() for flag in (True, False))
    torch.testing.assert_close(pooled(x), pooled(shifted))
    assert (plain(x) - plain(shifted)).abs().max() > 1e-3


def test_residual_adds_its_input():
    x = torch.rand(2, 3)
    assert torch.equal(Residual(nn.Linear(3, 3), nn.ReLU())(x) >= x, torch.ones(2, 3, dtype=torch.bool))
    assert torch.equal(Residual(nn.Identity())(x), 2 * x)


def test_options_change_the_modules_that_they_name():
    def count(kind, **options):
        return sum(isinstance(m, kind) for m in ConvNet((1, 28, 28), 10, **options).modules())

    assert count(nn.BatchNorm2d) == 0
    assert count(nn.BatchNorm2d, batch_norm=True) == 2
    assert count(Residual, residual=True) == 2
    assert count(nn.Tanh, activation=nn.Tanh) == 3
    assert count(nn.ReLU, activation=nn.Tanh) == 0


@pytest.mark.parametrize(
    ("factory", "sentence"),
    [
        (lambda *_: 3, "the network is a int; give what makes an nn.Module"),
        (
            lambda *_: nn.Sequential(nn.Flatten(), nn.Linear(7, 10)),
            "cannot be used on images of 1x28x28: mat1 and mat2",
        ),
        (
            lambda *_: nn.Sequential(3),
            "no network for images of 1x28x28 and 10 classes can be made .TypeError: int is not",
        ),
    ],
)
@pytest.mark.parametrize(
    "asked", [lambda network: Inverter("1", (1, 28, 28), 10, network), partial(Classifier, (1, 28, 28), 10)]
)
def test_what_is_no_network_for_these_images_is_refused(factory, sentence, asked):
    with pytest.raises(ValueError, match=sentence):
        asked(factory)


@pytest.mark.parametrize(
    ("last", "given"), [(nn.Flatten(), r"\[3, 784\]"), (nn.LSTM(28, 10, batch_first=True), "a tuple")]
)
def test_a_classifier_has_one_score_a_class(last, given):
    with pytest.raises(ValueError, match=rf"gives {given} for 3 images; a classifier gives one score a class, .3, 10"):
        Classifier((1, 28, 28), 10, lambda *_: nn.Sequential(nn.Flatten(1, 2), last))


def test_trying_a_network_changes_neither_its_mode_nor_the_random_numbers():
    torch.manual_seed(1)
    plain, after = ConvNet((1, 28, 28), 10), torch.rand(3)
    torch.manual_seed(1)
    made = Classifier((1, 28, 28), 10).network
    assert torch.equal(after, torch.rand(3))
    assert made.training
    assert torch.equal(made.logits.weight, plain.logits.weight)
