"""What a training has cost, as the result of its best checkpoint has it."""

import pytest
import torch
from small_runs import SHORT, result, signal_at
from torch import nn
from torch.nn.functional import mse_loss

from cli import main
from commands.parser import ParsedCommand
from commands.recipe import recipe
from inverters import Inverter
from inverters.generators import ConditionalGenerator
from runtime.cost import training_flop

P_X = "unconditional_mnist5k"
FIT = [
    f"--config={P_X}.yaml",
    *SHORT[1:],
    "--sample_grid.num_images=0",
    "--trainer.val_check_interval=2",
    "--trainer.logger=false",
]


class Convolutions(ConditionalGenerator):
    """Two, of 3x3 pixels, with an image's size kept."""

    def __init__(self, image_shape, context_shape):
        super().__init__()
        self.image_shape = image_shape
        self.layers = nn.Sequential(nn.Conv2d(1, 5, 3, padding=1), nn.ReLU(), nn.Conv2d(5, 1, 3, padding=1))

    def loss(self, image, context):
        x = image.float()
        return mse_loss(self.layers(x), x, reduction="none").mean(dim=(1, 2, 3))

    def sample(self, context, generators):
        raise NotImplementedError


@torch.inference_mode()
def test_flop_are_those_of_forward_and_backward_by_hand():
    inverter = Inverter(None, (1, 28, 28), 10, density=Convolutions)
    image = torch.zeros(3, 1, 28, 28, dtype=torch.uint8)
    forward = 2 * 28 * 28 * 9 * 5  # of each convolution
    state = torch.get_rng_state()
    # Backward once for the weights of both, and once for the input of the second.
    assert training_flop(inverter, image, image) == 2 * forward + 2 * forward + forward
    assert torch.equal(torch.get_rng_state(), state)


@pytest.fixture
def cost_of(tmp_path, monkeypatch):
    """Of a fit in a folder of its own: what its result says of its training."""

    def fit(name, *arguments, verb="fit"):
        (tmp_path / name).mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / name)
        main([verb, *FIT, *arguments])
        row = result(P_X)
        return row["training_images"], row["training_flop"], row["recipe"]

    return fit


def test_twice_the_steps_are_twice_the_cost_of_one_recipe_though_the_run_was_resumed(cost_of):
    images, flop, recipe = cost_of("short", "--trainer.max_steps=3")
    assert images == 3 * 4  # and not what the last validation had seen, after two steps
    assert flop > 0
    with pytest.raises(SystemExit):
        cost_of("long", "--trainer.max_steps=6", signal_at(3))
    assert cost_of("long", "--ckpt_path=last", verb="test") == (None, None, None)  # it has not ended
    assert cost_of("long", "--trainer.max_steps=6", "--ckpt_path=last") == (2 * images, 2 * flop, recipe)


def test_a_recipe_says_all_of_a_training_but_its_length():
    made = ParsedCommand(["fit", *FIT])
    settings, data = made.settings, made.datamodule
    before = recipe(settings, data)
    settings.trainer.max_steps, settings.trainer.val_check_interval, settings.name = 1000, 10, "longer"
    assert recipe(settings, data) == before
    settings.model.init_args.density.init_args.sampler = "fixed_point"  # draws do not train
    assert recipe(settings, data) == before
    settings.model.init_args.lr *= 2
    assert recipe(settings, data) != before


def test_what_goes_on_with_other_keys_is_of_no_one_recipe(cost_of):
    images, _, _ = cost_of("longer", "--trainer.max_steps=2")
    assert cost_of("longer", "--trainer.max_steps=4", "--ckpt_path=last")[::2] == (2 * images, None)
