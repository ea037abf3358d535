import math
import time
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch.nn.utils.parametrize import is_parametrized

from callbacks.cost_estimate import advice
from inverters import Inverter, MSEDecoder, PixelCNN
from runtime.cost import duration, measured_cost

PIXELCNN = partial(PixelCNN, num_filters=8, num_layers=1, dropout=0.5)


def test_flops_are_three_times_those_of_the_weights_in_a_forward_pass():
    inverter = Inverter("fc3", (1, 28, 28), 10, density=PIXELCNN)
    multiplications = []

    def count(layer, _, output):
        share = 4 if layer.transposed else 1  # of the outputs that a weight takes part in
        multiplications.append(layer.weight.numel() * math.prod(output.shape[2:]) / share)

    for layer in filter(is_parametrized, inverter.density.modules()):
        layer.register_forward_hook(count)
    image = torch.zeros(1, 1, 28, 28, dtype=torch.uint8)
    inverter.density(image, inverter.context(image))
    expected = 3 * 2 * sum(multiplications)
    cost = measured_cost(inverter, image.expand(2, 1, 28, 28))
    # The convolutions at the borders are computed a little beyond them.
    assert 1 < cost.flops / expected < 1.1


@pytest.mark.parametrize("density", [PIXELCNN, MSEDecoder])
def test_estimating_changes_nothing(density):
    inverter = Inverter("fc3", (1, 28, 28), 10, density=density)
    before = {name: value.clone() for name, value in inverter.state_dict().items()}
    state = torch.get_rng_state()
    cost = measured_cost(inverter, torch.randint(256, (4, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator()))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], value) for name, value in inverter.state_dict().items())
    assert all(p.grad is None for p in inverter.parameters())
    assert cost.images_per_second > 1
    assert cost.flops > 0
    assert cost.sample_seconds > 0


def test_memory_grows_with_filters_and_batch():
    image = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    densities = [partial(PIXELCNN, num_filters=n, dropout=0.0) for n in (8, 16)]
    small, large = (measured_cost(Inverter(None, (1, 8, 8), 10, density=density), image) for density in densities)
    assert 1.5 < large.activation_bytes / small.activation_bytes < 2.1
    assert 3.5 < large.fixed_bytes / small.fixed_bytes < 4.1
    assert large.memory(5) - large.memory(2) == pytest.approx(1.4 * 3 * large.activation_bytes)


def test_durations_are_for_people():
    assert [duration(s) for s in (40, 420, 11_520, 1e6)] == ["40 s", "7 min", "3.2 h", "12 days"]


def test_a_step_takes_the_time_of_its_optimiser_too(monkeypatch):
    class Slow(torch.optim.Adam):
        def step(self):
            time.sleep(0.1)

    inverter = Inverter("fc3", (1, 28, 28), 10, density=PIXELCNN)
    monkeypatch.setattr(inverter, "optimizer", lambda: Slow(inverter.density.parameters()))
    assert measured_cost(inverter, torch.zeros(4, 1, 28, 28, dtype=torch.uint8)).images_per_second < 4 / 0.1


def test_a_gpu_run_as_it_comes_is_told_of_the_preset():
    def on(device, compiled=False):
        return SimpleNamespace(device=torch.device(device), steps_are_compiled=compiled)

    assert advice(on("cuda"), "32-true", 1) == "; --config presets/gpu.yaml is faster"
    others = (on("cpu"), "32-true"), (on("cuda"), "bf16-mixed"), (on("cuda", compiled=True), "32-true")
    assert [advice(*other, 1) for other in others] == ["", "", ""]
    assert [advice(on("cpu"), "32-true", days * 86_400, "x_small") for days in (0.9, 1.1)] == [
        "",
        "; --config x_small is for such a machine",
    ]
    assert advice(on("cuda"), "bf16-mixed", 1e9, "x_small") == ""
