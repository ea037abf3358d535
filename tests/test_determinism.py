"""No step uses what a GPU cannot do twice in the same way, so that `--trainer.deterministic true` runs.

The list is of what raises by torch.use_deterministic_algorithms, but for a bilinear F.interpolate, in whose place torch
then computes another way.
"""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from test_inverter import SHAPE
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from inverters import Classifier, ConvNet, FullyConnectedNet, Inverter, LogisticMixture, MSEDecoder, PixelCNN
from inverters.networks import GlobalMaxPool
from inverters.representation import architecture

FORBIDDEN = {
    "avg_pool3d_backward", "_adaptive_avg_pool2d_backward", "_adaptive_avg_pool3d_backward",
    "adaptive_max_pool2d_backward", "adaptive_max_pool3d_backward", "fractional_max_pool2d_backward",
    "fractional_max_pool3d_backward", "max_unpool2d", "max_unpool3d", "upsample_linear1d_backward",
    "upsample_bicubic2d_backward", "reflection_pad1d_backward", "reflection_pad2d_backward",
    "reflection_pad3d_backward", "_ctc_loss_backward", "put", "put_", "histc", "grid_sampler_2d_backward",
    "grid_sampler_3d_backward", "nll_loss2d_forward", "_embedding_bag_dense_backward",
}  # fmt: skip
POOLED = partial(ConvNet, global_pooling=True)


class Operations(TorchDispatchMode):
    """A block in which operations, forward and backward, are noted by name."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        # Of losses of [B, K, H, W]; reduction is the fourth argument, 0 for none.
        if name != "nll_loss2d_forward" or args[3] != 0:
            self.names.add(name)
        return func(*args, **(kwargs or {}))


small, deep = partial(PixelCNN, num_filters=2, num_layers=1), (3, 28, 28)


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (partial(Classifier, network=POOLED), SHAPE),
        (partial(Classifier, network=partial(ConvNet, batch_norm=True, residual=True)), deep),
        (partial(Classifier, network=FullyConnectedNet), SHAPE),
        (partial(Inverter, "conv1", density=small), SHAPE),
        (partial(Inverter, "fc3", density=small), SHAPE),
        (partial(Inverter, None, density=partial(small, likelihood=LogisticMixture())), deep),
        (partial(Inverter, "conv2", density=MSEDecoder), SHAPE),
        (partial(Inverter, "logits", density=MSEDecoder), SHAPE),
    ],
)
def test_a_step_can_be_repeated_on_a_gpu(make, shape):
    model = make(image_shape=shape, num_classes=10)
    batch = {"image": torch.randint(256, (2, *shape), dtype=torch.uint8), "label": torch.tensor([1, 2])}
    with Operations() as operations:
        model.training_step(batch, 0)["loss"].backward()
    assert len(operations.names) > 10
    assert not operations.names & FORBIDDEN


def test_the_largest_of_a_map_and_its_gradient_are_torchs_bit_for_bit():
    """Where some are equal too; text and digests of classifiers stay what they were."""
    ours, torchs, found = GlobalMaxPool(), nn.AdaptiveMaxPool2d(1), []
    image = F.relu(torch.randn(50, 4, 3, 3)).mul(2).round()
    for pool in (ours, torchs):
        x = image.clone().requires_grad_()
        y = pool(x)
        (y * torch.arange(200).view_as(y)).sum().backward()
        found.append((y, x.grad))
    assert all(map(torch.equal, *found))
    assert architecture(nn.Sequential(ours)) == architecture(nn.Sequential(torchs))
