from collections import OrderedDict
from functools import partial

import pytest
import torch
from torch import nn

from inverters import ConvNet, Inverter, PixelCNN, TopBits
from inverters.representation import Representation

SHAPE = (1, 28, 28)


def test_representation_is_the_network_up_to_the_layer():
    network = ConvNet(SHAPE, 10).eval()
    image = torch.randint(256, (5, *SHAPE), dtype=torch.uint8)
    x = image.float() / 255
    expected = network.conv2(network.conv1(x))
    conv2 = Representation(network, "conv2")
    conv2.try_on(SHAPE)
    torch.testing.assert_close(conv2(image), expected.detach())
    assert (conv2.shape(SHAPE), conv2.depth) == ((32, 4, 4), 2)
    torch.testing.assert_close(conv2.class_probabilities(image), network(x).softmax(1).detach())


def test_no_layer_is_an_empty_representation():
    empty = Representation(nn.Sequential(), None)
    assert empty(torch.zeros(3, *SHAPE, dtype=torch.uint8)).shape == (3, 0)
    assert empty.depth is None


class BatchNormNet(nn.Sequential):
    """A network whose statistics would drift, and whose dropout would show, if it ever left eval mode."""

    def __init__(self, image_shape, num_classes):
        super().__init__()
        self.norm = nn.Sequential(nn.BatchNorm2d(1), nn.Dropout(0.5))
        self.logits = nn.Sequential(nn.Flatten(), nn.Linear(784, num_classes))


def test_frozen_means_no_gradient_no_optimiser_entry_no_drift():
    inverter = Inverter("norm", SHAPE, 10, network=BatchNormNet, density=partial(PixelCNN, num_filters=2, num_layers=1))
    before = {k: v.clone() for k, v in inverter.representation.state_dict().items()}
    batch = {"image": torch.randint(256, (4, *SHAPE), dtype=torch.uint8)}
    inverter.train()
    assert inverter.density.training
    optimizer = inverter.configure_optimizers()["optimizer"]
    first, second = inverter.representation(batch["image"]), inverter.representation(batch["image"])
    assert torch.equal(first, second)
    for _ in range(3):
        optimizer.zero_grad()
        inverter.training_step(batch, 0)["loss"].backward()
        optimizer.step()
    frozen = set(inverter.representation.parameters())
    assert not frozen & {p for group in optimizer.param_groups for p in group["params"]}
    assert all(p.grad is None and not p.requires_grad for p in frozen)
    after = inverter.representation.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)


@pytest.mark.parametrize("bits", [0, 1, 3, 8])
def test_top_bits_keeps_the_top_bits_of_all_values(bits):
    image = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    h = Representation(TopBits((1, 16, 16), 1, bits), "bits")(image)
    expected = torch.tensor([v >> (8 - bits) << (8 - bits) for v in range(256)]).view(1, 1, 16, 16)
    assert torch.equal((h * 255).round().long(), expected)


def test_a_module_that_is_two_stages_is_no_layer():
    pool = nn.AvgPool2d(2)
    representation = Representation(nn.Sequential(OrderedDict(first=pool, second=pool)), "second")
    with pytest.raises(ValueError, match="the module second is run 2 times for one batch, so that its name is no one"):
        representation.try_on(SHAPE)


def test_images_are_uint8_or_refused():
    representation = Representation(ConvNet(SHAPE, 10), "conv1")
    with pytest.raises(ValueError, match="images are uint8, from 0 to 255"):
        representation(torch.rand(2, *SHAPE))
    with pytest.raises(ValueError, match="images are"):
        representation(torch.zeros(SHAPE, dtype=torch.uint8))


def test_h_of_floats_is_h_of_the_same_image_and_has_its_gradient() -> None:
    representation = Representation(ConvNet((1, 28, 28), 10), "conv2")
    image = torch.randint(256, (2, 1, 28, 28), dtype=torch.uint8)
    x = (image / 255).requires_grad_()
    h = representation.of_unit(x)
    assert torch.equal(h, representation(image))
    (gradient,) = torch.autograd.grad(h.sum(), x)
    assert gradient.abs().sum() > 0
    assert torch.equal(representation.at("fc3")(image), Representation(representation.network, "fc3")(image))
