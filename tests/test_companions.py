"""Images of a training batch from which only the decoder of h learns."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from pytorch_lightning import Trainer
from small_runs import SHORT, result, the_run
from test_ddp import by_one_and_two
from torch.utils.flop_counter import FlopCounterMode

from cli import main
from commands.parser import ParsedCommand
from commands.recipe import recipe
from datamodules.images import ImageDataModule
from datamodules.split import ImageDataset
from inverters import ConvNet, Inverter, PixelCNN
from inverters.companions import numbers_of_step, parted
from inverters.likelihoods import LogisticMixture
from inverters.warp import SHEAR, SHIFT, STRETCH, TURN, warped
from runtime.checkpoints import load_checkpoint
from runtime.cost import training_flop
from runtime.silence import silence_lightning

SHAPE = (1, 16, 16)
density = partial(PixelCNN, num_filters=4, num_layers=1, dropout=0, decoder_filters=3)
network = partial(ConvNet, filters=(3, 4), num_hidden=6)


def with_random_weights(inverter):
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in inverter.density.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return inverter.double().train()


def inverter_with(companions, warp=0.0, layer="fc3", **more):
    its = partial(density, companions=companions, **more)
    return with_random_weights(Inverter(layer, SHAPE, 10, network, its, warp=warp))


def images(number, shape=SHAPE):
    return torch.randint(256, (number, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(number))


def gradients(inverter, batch):
    step = inverter.training_step(batch, 0)
    named = [(name, p) for name, p in inverter.density.named_parameters() if p.requires_grad]
    found = torch.autograd.grad(step["loss"], [p for _, p in named], allow_unused=True)
    return {name: g for (name, _), g in zip(named, found, strict=True)}, step


@pytest.mark.parametrize("layers", [1, 2])
def test_a_guess_is_a_distribution_of_black_and_white_images(layers):
    """exp(-loss) of all images of a tiny world, of which each value is 0 or 255, sums to 1."""
    model = density((1, 4, 4), (5,), companions=1, decoder_layers=layers).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    all_images = torch.cartesian_prod(*[torch.tensor([0, 255], dtype=torch.uint8)] * 16).view(-1, 1, 4, 4)
    context = torch.randn(1, 5, dtype=torch.float64).expand(len(all_images), 5)
    with torch.no_grad():
        log_mass = -model.guess_loss(all_images, context) / 4  # its weight
    assert log_mass.exp().sum().item() == pytest.approx(1, abs=1e-9)
    assert log_mass.std() > 0.1


def test_companions_teach_the_decoder_and_nothing_else():
    """The density's loss, its log p and all gradients but the decoder's are those of the images without companions."""
    inverter, batch = inverter_with(3), {"image": images(8)}
    found, step = gradients(inverter, batch)
    plain = inverter_with(0)
    plain.load_state_dict({k: v for k, v in inverter.state_dict().items() if "for_guess" not in k})
    expected, alone = gradients(plain, {"image": images(8)[:2]})
    assert torch.equal(step["log_prob"], alone["log_prob"])
    learned = {name for name, g in found.items() if name not in expected or not torch.allclose(g, expected[name])}
    assert learned == {name for name in found if name.startswith("decoder_of_h") and ".end." not in name}
    guess = inverter.density.guess_loss(images(8)[2:], inverter.context(images(8)[2:])).mean()
    torch.testing.assert_close(step["loss"], alone["loss"] + guess)


def test_two_halves_of_a_batch_have_the_gradient_of_the_whole():
    """As two processes get it: every other image, of which the first are modelled."""
    inverter, whole = inverter_with(3), images(16)
    together, _ = gradients(inverter, {"image": whole})
    halves = [gradients(inverter, {"image": whole[rank::2]})[0] for rank in range(2)]
    for name, gradient in together.items():
        torch.testing.assert_close(gradient, (halves[0][name] + halves[1][name]) / 2, msg=name)


def test_two_processes_warp_as_one_does(monkeypatch):
    whole = numbers_of_step(0, 16)
    assert (whole.min() < -0.9, whole.max() > 0.9, whole.abs().max() <= 1) == (True, True, True)

    halves = []
    for rank in range(2):
        for name, value in {"is_initialized": True, "get_world_size": 2, "get_rank": rank}.items():
            monkeypatch.setattr(f"torch.distributed.{name}", lambda value=value: value)
        halves.append(numbers_of_step(0, 8))
    assert torch.equal(torch.stack(halves, dim=1).flatten(0, 1), whole)
    assert not torch.equal(numbers_of_step(1, 8), halves[1])


@pytest.mark.parametrize(("size", "modelled", "guessed"), [(8, 2, 6), (7, 1, 6), (3, 1, 2), (1, 1, 1)])
def test_the_last_batch_of_an_epoch_may_be_of_any_size(size, modelled, guessed):
    batch = {"image": images(size), "index": torch.arange(size)}
    first, companions = parted(batch, 3, 0.0, 0)
    assert (len(first["image"]), len(first["index"]), len(companions["image"])) == (modelled, modelled, guessed)


def test_h_of_companions_is_of_the_warped_pictures_and_not_from_disk():
    image, h = images(6), torch.randn(6, 5)
    first, companions = parted({"image": image, "h": h}, 1, 0.5, 7)
    assert torch.equal(first["h"], h[:3])
    assert "h" not in companions
    numbers = 0.5 * numbers_of_step(7, 6)[3:]
    assert torch.equal(companions["image"], warped([image[3:]], numbers)[0])
    assert not torch.equal(companions["image"], image[3:])
    assert torch.equal(parted({"image": image, "h": h}, 1, 0.0, 7)[1]["h"], h[3:])


def test_a_plane_is_turned_sheared_stretched_and_moved_as_its_numbers_say():
    """Bilinear interpolation of a plane is exact but for the rounding of levels."""
    numbers = 2 * torch.rand(50, 6, generator=torch.Generator().manual_seed(2)) - 1
    side = 64
    at = (torch.arange(side) + 0.5) * 2 / side - 1
    y, x = torch.meshgrid(at, at, indexing="ij")
    inner = (x.abs() < 0.4) & (y.abs() < 0.4)
    planes = []
    for plane in (x, y):
        picture = (126 + 128 * plane).to(torch.uint8).expand(50, 1, side, side)
        (found,) = warped([picture], numbers)
        design = torch.stack((x[inner], y[inner], torch.ones_like(x[inner])), dim=1)
        values = (found[:, 0][:, inner].float() - 126) / 128
        planes.append(torch.linalg.lstsq(design, values.T).solution.T)
    maps = torch.stack(planes, dim=1).double().numpy()  # [50, 2, 3]
    for its, (turn, shear, wide, high, right, down) in zip(maps, numbers.double().numpy(), strict=True):
        c, s = math.cos(TURN * turn), math.sin(TURN * turn)
        turned = np.array([[c, -s], [s, c]]) @ np.array([[1, SHEAR * shear], [0, 1]])
        matrix = turned @ np.diag(np.exp([STRETCH * wide, STRETCH * high]))
        np.testing.assert_allclose(its, np.c_[matrix, SHIFT * np.array([right, down])], atol=5e-3)


def test_no_warp_changes_nothing_and_two_resolutions_are_warped_alike():
    image = images(5, (3, 16, 16))
    (same,) = warped([image], torch.zeros(5, 6))
    assert torch.equal(same, image)
    smooth = torch.nn.functional.interpolate(images(5, (1, 4, 4)).float(), size=64, mode="bicubic")
    smooth = smooth.clamp(0, 255).to(torch.uint8)
    half = torch.nn.functional.avg_pool2d(smooth.float(), 2).round().to(torch.uint8)
    numbers = 2 * torch.rand(5, 6, generator=torch.Generator().manual_seed(0)) - 1
    large, small = warped([smooth, half], numbers)
    reduced = torch.nn.functional.avg_pool2d(large.float(), 2)
    inner = (..., slice(4, -4), slice(4, -4))
    assert (reduced - small.float())[inner].abs().mean() < 1
    assert (half.float() - small.float())[inner].abs().mean() > 10


@pytest.mark.parametrize(("layer", "filters"), [("conv1", 3), (None, 3), ("fc3", 0)])
def test_without_a_decoder_of_a_vector_none_come_and_a_step_is_as_without(layer, filters):
    """So that one config is the recipe of all layers, and of p(x)."""
    inverter, plain = (inverter_with(*asked, layer=layer, decoder_filters=filters) for asked in ((2, 1.0), (0, 0.0)))
    plain.load_state_dict(inverter.state_dict())
    found, expected = (gradients(each, {"image": images(3)}) for each in (inverter, plain))
    assert found[0].keys() == expected[0].keys()
    for name, gradient in found[0].items():
        assert torch.equal(gradient, expected[0][name]), name
    assert len(found[1]["log_prob"]) == 3
    assert not inverter.warp  # so that h may come from disk


def test_their_cost_is_counted():
    inverter, image = inverter_with(3).float(), images(2)
    context = inverter.context(image[:1])
    with FlopCounterMode(display=False) as counter:
        inverter.density.guess_loss(image[:1], context).sum().backward()
    plain = Inverter("fc3", SHAPE, 10, network, density)
    whole, alone = (training_flop(each, image, image) for each in (inverter, plain))
    assert whole == alone + 3 * counter.get_total_flops()
    assert counter.get_total_flops() < alone / 4


class Digits(ImageDataModule):
    name, image_shape, num_classes = "digits", SHAPE, 10

    def load(self):
        zeros = torch.zeros(40, dtype=torch.int64)
        return {split: ImageDataset(images(40), zeros, torch.arange(40)) for split in ("train", "val")}


def test_training_batches_bring_them_along_and_go_on_where_they_were():
    data = Digits(batch_size=2)
    data.setup("fit")
    data.companions = 3
    whole = [batch["index"] for batch in data.train_dataloader()]
    assert [len(index) for index in whole] == [8] * 5
    data.batches_done = 2
    for index, expected in zip(data.train_dataloader(), whole[2:], strict=True):
        assert torch.equal(index["index"], expected)
    assert len(next(iter(data.val_dataloader()))["index"]) == 40


@pytest.mark.parametrize("companions", [0, 3])
def test_a_fit_from_python_has_the_data_bring_them(companions, tmp_path, monkeypatch):
    """Else some of its images would be taken for companions."""
    silence_lightning()
    sizes, inverter, data = [], inverter_with(companions), Digits(batch_size=2)
    step = inverter.training_step

    def counted(batch, batch_idx):
        sizes.append(len(batch["image"]))
        return step(batch, batch_idx)

    monkeypatch.setattr(inverter, "training_step", counted)
    data.companions = 1  # of another density, before
    trainer = Trainer(default_root_dir=tmp_path, max_steps=3, limit_val_batches=0, accelerator="cpu", barebones=True)
    trainer.fit(inverter, data)
    assert set(sizes) == {2 * (1 + companions)}


def test_colours_are_guessed_too():
    model = PixelCNN((3, 8, 8), (7,), LogisticMixture(1), 4, 1, decoder_filters=3, companions=1)
    assert model.guess(torch.randn(2, 7)).shape == (2, 3, 8, 8)


def test_a_fit_with_companions_says_what_is_modelled(tmp_path, monkeypatch, trained_runs, capsys):
    sizes, step = [], Inverter.training_step

    def counted(inverter, batch, batch_idx):
        found = step(inverter, batch, batch_idx)
        sizes.append((len(batch["image"]), len(found["log_prob"])))
        return found

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Inverter, "training_step", counted)
    more = ["--model.density.companions=2", "--model.warp=1", "--data.batch_size=4", "--trainer.max_steps=2"]
    classifier = next((trained_runs / "classifier_mnist5k").glob("*/checkpoints/best.ckpt"))
    arguments = [*SHORT[1:], f"--classifier={classifier}", "--sample_grid.num_images=0", "--trainer.logger=false"]
    main(["fit", "--config=inverter_mnist5k_fc3.yaml", *arguments, *more])
    assert "at most 2 steps of 4 images and 8 companions at " in capsys.readouterr().out
    assert sizes[-2:] == [(12, 4)] * 2
    assert result("inverter_mnist5k_fc3")["training_images"] == 2 * 4


def test_two_processes_train_with_warped_companions_as_one_does(tmp_path):
    arguments = [
        "fit", "--config=world_pairs_vector.yaml", "--model.density.companions=3", "--model.warp=1",
        "--model.density.num_filters=4", "--data.batch_size=4", "--data.num_test=20", "--sample_grid.num_images=0",
        "--num_agreement=3", "--trainer.max_steps=3", "--trainer.precision=64-true", "--trainer.accelerator=cpu",
    ]  # fmt: skip

    def weights(folder):
        return load_checkpoint(the_run(folder, "world_pairs_vector") / "checkpoints" / "last.ckpt")["state_dict"]

    one, two = by_one_and_two([tmp_path / "one", tmp_path / "two"], arguments, weights)
    for name, value in one.items():
        torch.testing.assert_close(value, two[name], rtol=1e-9, atol=1e-11, msg=name)


def test_what_a_recipe_of_before_had_not_changes_it_only_where_it_is_given():
    """Else trainings of one recipe, begun before there were companions, would be of another experiment."""
    made = ParsedCommand(["fit", "--config=inverter_mnist5k_logits.yaml"])
    settings, data = made.settings, made.datamodule
    before, model = recipe(settings, data), settings.model.init_args
    model.density.init_args.companions = 3
    with_companions = recipe(settings, data)
    model.warp = 1.0
    assert len({before, with_companions, recipe(settings, data)}) == 3
    model.density.init_args.decoder_layers = 2
    del model["warp"], model.density.init_args["companions"]
    assert recipe(settings, data) not in (before, with_companions)
    del model.density.init_args["decoder_layers"]
    assert recipe(settings, data) == before
