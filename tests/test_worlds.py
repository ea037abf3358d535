"""Where the information is known exactly, trained for real: the measured NCE must come out."""

import math
from functools import partial

import pytest
import torch

from datamodules.worlds import BitDropDataModule
from inverters.inverter import Inverter
from inverters.likelihoods import Categorical
from inverters.networks import TopBits
from inverters.pixelcnn import PixelCNN


def trained(bits: int, num_steps: int) -> tuple[BitDropDataModule, Inverter]:
    data = BitDropDataModule(kept_bits=bits)
    data.setup("fit")
    density = partial(PixelCNN, likelihood=Categorical(8), num_filters=16, num_layers=1, dropout=0.0)
    network = partial(TopBits, bits=bits if bits < 3 else 8)  # 8 is the identity
    inverter = Inverter("bits", data.image_shape, 1, network, density, lr=3e-3, lr_decay=0.998)
    draw = data.datasets["train"].__getitems__
    inverter.initialise([draw(range(1000))["image"]], draw(range(64))["image"])
    configured = inverter.configure_optimizers()
    for step in range(num_steps):
        configured["optimizer"].zero_grad()
        inverter.training_step(draw(range(64 * step, 64 * step + 64)), step)["loss"].backward()
        configured["optimizer"].step()
        configured["lr_scheduler"]["scheduler"].step()
    return data, inverter.eval()


@torch.no_grad()
def excess(data: BitDropDataModule, inverter: Inverter, exact: torch.Tensor, shuffled: bool) -> tuple[float, float]:
    """Mean and standard error of log p - log q over the test images, nats."""
    batch = data.datasets["test"].__getitems__(range(1000))
    context = batch["other_image"] if shuffled else batch["image"]
    log_q = torch.cat(
        [
            inverter.log_prob({"image": x, "context_image": c})
            for x, c in zip(batch["image"].split(250), context.split(250), strict=True)
        ]
    )
    gap = exact - log_q.double()
    return gap.mean().item(), (gap.std() / math.sqrt(len(gap))).item()


@pytest.mark.parametrize(("bits", "num_steps"), [(1, 150), (3, 250), (0, 150)])  # bit drop, identity, constant
def test_measured_information_is_the_known_one(bits, num_steps):
    data, inverter = trained(bits, num_steps)
    exact = data.exact_log_prob(data.datasets["test"].images)
    mean, error = excess(data, inverter, exact, shuffled=False)
    assert -4 * error <= mean <= 0.02 * data.entropy
    if bits == 1:  # the negative control: with the h of another image nothing is known, and the model is misled
        at_most = torch.full((1000,), -data.entropy, dtype=torch.float64)
        mean, error = excess(data, inverter, at_most, shuffled=True)
        assert mean >= -4 * error
