"""Methods that have nothing to train: optimised pixels and deconvnets."""

import json
import shutil
from collections import OrderedDict
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from small_runs import command, failure, result, run_with_results
from torch import nn

import inverters
from cli import main
from inverters import ConvNet, Deconvnet, FullyConnectedNet, Inverter, PixelOptimisation
from inverters.generators import draw_generator
from inverters.pixel_optimisation import total_variation
from runtime.checkpoints import load_checkpoint

PIXELS, DECONVNET = "pixels_mnist5k_fc3", "deconvnet_mnist5k_fc3"
SMALL = [
    "--data.num_train=100", "--data.eval_batch_size=4", "--trainer.limit_test_batches=2", "--num_agreement=3",
    "--sample_grid.num_images=2", "--sample_grid.num_draws=2", "--trainer.accelerator=cpu",
]  # fmt: skip
FAST = [*SMALL, "--model.density.num_steps=3"]


def images(num, shape=(1, 16, 16)):
    return torch.randint(256, (num, *shape), dtype=torch.uint8)


def inverter_of(network, layer, density, shape=(1, 16, 16), **arguments):
    """In float64, and initialised."""
    made = Inverter(layer, shape, 10, network=network, density=density, **arguments).eval()
    made.initialise([images(20, shape)], images(8, shape))
    return made.double()


def linear_network(image_shape, num_classes):
    """h = W x, W invertible and well-conditioned."""
    network = nn.Sequential(OrderedDict(flat=nn.Flatten(), h=nn.Linear(16, 16)))
    network.h.weight.data = torch.linalg.qr(torch.randn(16, 16)).Q + 0.3 * torch.eye(16)
    return network


def test_pixels_without_regularisers_are_those_of_an_invertible_linear_network():
    density = partial(PixelOptimisation, num_steps=1500, lr=0.05, tv_weight=0, alpha_weight=0)
    inverter = inverter_of(linear_network, "h", density, (1, 4, 4))
    x = images(3, (1, 4, 4))
    assert torch.equal(inverter.draws(x, [5, 6, 7], 2), x[:, None].expand(-1, 2, -1, -1, -1))


def test_objective_is_that_of_the_paper():
    arguments = {"tv_weight": 0.7, "tv_beta": 1.5, "alpha_weight": 0.3, "alpha": 3.0}
    inverter = inverter_of(ConvNet, "conv2", partial(PixelOptimisation, **arguments))
    x, wanted = torch.rand(1, 1, 16, 16, dtype=torch.float64), inverter.context(images(1))
    network = inverter.representation.network
    h = network.conv2(network.conv1(x))
    error = (((h - inverter.context_mean) / inverter.context_scale - wanted) ** 2).sum() / (wanted**2).sum()
    variation = 0.0
    for i in range(16):
        for j in range(16):
            right = x[0, 0, i, j + 1] - x[0, 0, i, j] if j < 15 else 0.0
            below = x[0, 0, i + 1, j] - x[0, 0, i, j] if i < 15 else 0.0
            variation += (right**2 + below**2 + 1e-8) ** 0.75
    norm = ((x - inverter.density.mean).abs() ** 3).sum()
    plain = error + (0.7 * variation + 0.3 * norm) / 256
    torch.testing.assert_close(inverter.density.objective(x, wanted)[0], plain)


def test_objective_has_the_gradient_of_finite_differences():
    density = partial(PixelOptimisation, tv_beta=1.0, alpha=2.5)
    inverter = inverter_of(partial(ConvNet, activation=nn.ELU), "fc3", density)
    x = torch.rand(2, 1, 16, 16, dtype=torch.float64, requires_grad=True)
    wanted = inverter.context(images(2))
    assert torch.autograd.gradcheck(lambda x: inverter.density.objective(x, wanted), (x,), fast_mode=True)


def test_an_alpha_whose_gradient_at_the_mean_is_infinite_is_refused():
    with pytest.raises(ValueError, match=r"alpha is 0\.5; give at least 1"):
        PixelOptimisation((1, 16, 16), (3,), alpha=0.5)
    inverter = inverter_of(ConvNet, "fc3", partial(PixelOptimisation, alpha=1.0, noise=0.0, num_steps=2))
    assert inverter.draws(images(2), [0, 1], 1).any()  # NaN would be black


def test_total_variation_of_a_flat_image_is_zero_with_a_finite_gradient():
    x = torch.full((1, 3, 5, 5), 0.3, dtype=torch.float64, requires_grad=True)
    variation = total_variation(x, 1.0)
    variation.backward()
    assert variation.item() < 1e-3
    assert x.grad.isfinite().all()


def test_best_of_restarts_is_the_lowest_objective_of_each():
    inverter = inverter_of(ConvNet, "fc3", partial(PixelOptimisation, num_steps=10, restarts=3))
    density, context = inverter.density, inverter.context(images(1))
    source = draw_generator(7, 0, 0)
    noise = torch.stack([torch.randn(density.image_shape, generator=source) for _ in range(3)])
    x, objective = density.optimised(noise, context.expand(3, -1))
    drawn = density.sample(context, [draw_generator(7, 0, 0)])
    assert len(set(objective.tolist())) == 3
    assert torch.equal(drawn[0], (255 * x[objective.argmin()]).round().byte())


def test_draw_depends_on_its_image_seed_and_number_alone():
    inverter = inverter_of(ConvNet, "conv2", partial(PixelOptimisation, num_steps=20))
    x = images(5)
    together = inverter.draws(x, [3, 1, 4, 15, 9], 2, seed=1)
    assert torch.equal(inverter.draws(x[3:4], [15], 2, seed=1), together[3:4])
    assert not torch.equal(together[0, 0], together[0, 1])
    assert not torch.equal(inverter.draws(x[3:4], [15], 2, seed=2), together[3:4])


def test_draws_are_the_same_without_gradient_and_in_a_test():
    inverter = inverter_of(ConvNet, "fc3", partial(PixelOptimisation, num_steps=5))
    x = images(2)
    outside = inverter.draws(x, [0, 1], 1)
    with torch.inference_mode():
        assert torch.equal(inverter.draws(x, [0, 1], 1), outside)
        assert inverter.test_step({"image": x}, 0)["loss"].shape == (2,)


class Rounds(nn.Sequential):
    """With a gradient that is zero."""

    def forward(self, x):
        return super().forward(x.round())


class Forbids(nn.Sequential):
    """With none."""

    @torch.no_grad()
    def forward(self, x):
        return super().forward(x)


def linear(kind, shape, classes):
    return kind(OrderedDict(flat=nn.Flatten(), h=nn.Linear(16, 3)))


@pytest.mark.parametrize("density", [PixelOptimisation, Deconvnet])
def test_p_x_and_pictures_of_another_side_are_refused(density):
    with pytest.raises(ValueError, match=r"works back from a layer; give --model\.layer"):
        Inverter(None, (1, 16, 16), 10, density=density)
    with pytest.raises(ValueError, match="pictures of 20x20 and not the images of 16x16; give a config without"):
        Inverter("conv1", (1, 16, 16), 10, density=density, seen_shape=(1, 20, 20))


def test_layer_without_a_gradient_is_refused():
    with pytest.raises(ValueError, match="layer h has no gradient in the pixels"):
        Inverter("h", (1, 4, 4), 2, network=partial(linear, Forbids), density=PixelOptimisation)
    inverter = inverter_of(partial(linear, Rounds), "h", PixelOptimisation, (1, 4, 4))
    with pytest.raises(ValueError, match="layer h has no gradient in the pixels"):
        inverter.draws(images(2, (1, 4, 4)), [0, 1], 1)


def by_hand(network, x, depth):
    """The deconvnet of ConvNet from its first stages, by torch's own reverse of each part."""
    conv1, conv2, fc3, logits = network.conv1[0], network.conv2[0], network.fc3[1], network.logits
    a = F.relu(conv1(x))
    p1, s1 = F.max_pool2d(a, 2, return_indices=True)
    b = F.relu(conv2(p1))
    p2, s2 = F.max_pool2d(b, 2, return_indices=True)
    c = F.relu(fc3(p2.flatten(1)))
    signal = [p1, p2, c, logits(c)][depth - 1]
    if depth == 4:
        signal = torch.einsum("bk,kj->bj", signal, logits.weight)
    if depth >= 3:
        signal = torch.einsum("bk,kj->bj", F.relu(signal), fc3.weight).view_as(p2)
    if depth >= 2:
        signal = F.relu(F.max_unpool2d(signal, s2, 2, output_size=b.shape))
        signal = F.conv_transpose2d(signal, conv2.weight)
    signal = F.relu(F.max_unpool2d(signal, s1, 2, output_size=a.shape))
    return F.conv_transpose2d(signal, conv1.weight)


@pytest.mark.parametrize(("layer", "depth"), [("conv1", 1), ("conv2", 2), ("fc3", 3), ("logits", 4)])
def test_deconvnet_is_the_reverse_of_each_stage(layer, depth):
    inverter = inverter_of(ConvNet, layer, Deconvnet, (3, 18, 21))
    x = images(4, (3, 18, 21))
    with torch.no_grad():
        wanted = by_hand(inverter.representation.network, x.double() / 255, depth)
    torch.testing.assert_close(inverter.density.projection(x), wanted)
    shown = inverter.draws(x, [0, 1, 2, 3], 1)[:, 0].double()
    largest = wanted.abs().amax(dim=(1, 2, 3), keepdim=True)
    assert ((shown - 127.5) / 127.5 - wanted / largest).abs().max() < 1 / 127


def gradient_of_half_the_square(inverter, x):
    """Of h in x: h comes back through the network as it is."""
    x = (x.double() / 255).requires_grad_(True)
    (gradient,) = torch.autograd.grad(inverter.representation.of_unit(x).square().sum() / 2, x)
    return gradient


def test_deconvnet_is_the_gradient_but_for_rectification():
    """Simonyan et al. 2013, section 4."""
    strided = lambda shape, classes: nn.Sequential(  # noqa: E731
        nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.MaxPool2d(3, 2), nn.Conv2d(4, 6, 3, padding=2, dilation=2, groups=2)
    )
    x = images(3, (3, 18, 21))
    statistics = {"mean": [0.3, 0.4, 0.5], "std": [0.2, 0.3, 0.4]}
    linear = inverter_of(strided, "2", Deconvnet, (3, 18, 21), preprocessing=inverters.Preprocessing(**statistics))
    torch.testing.assert_close(linear.density.projection(x), gradient_of_half_the_square(linear, x))
    y = images(3)
    for layer in ("conv1", "conv2", "fc3", "logits"):
        deep = inverter_of(ConvNet, layer, Deconvnet)
        same = torch.allclose(deep.density.projection(y), gradient_of_half_the_square(deep, y))
        assert same == (layer == "conv1")  # of one stage: h, which comes down, is positive where its input was
        linear = inverter_of(partial(ConvNet, activation=nn.Identity), layer, Deconvnet)
        torch.testing.assert_close(linear.density.projection(y), gradient_of_half_the_square(linear, y))


@pytest.mark.parametrize(
    ("network", "layer", "what"),
    [
        (partial(ConvNet, batch_norm=True), "conv1", "BatchNorm2d"),
        (partial(ConvNet, residual=True), "conv2", "Residual"),
        (partial(ConvNet, global_pooling=True), "fc3", "GlobalMaxPool"),
        (partial(ConvNet, activation=nn.Tanh), "conv1", "Tanh"),
        (partial(inverters.Network, name="torchvision:resnet18"), "layer1.0", "ResNet"),
    ],
)
def test_deconvnet_names_what_it_cannot_go_back_through(network, layer, what):
    with pytest.raises(ValueError, match=f"and not through a {what}; give another layer or network"):
        Inverter(layer, (3, 32, 32), 10, network=network, density=Deconvnet)


def test_deconvnet_takes_what_lies_before_the_rest_and_refuses_another_side():
    Inverter("conv2", (3, 32, 32), 10, network=partial(ConvNet, global_pooling=True), density=Deconvnet)
    Inverter("fc2", (1, 16, 16), 10, network=FullyConnectedNet, density=Deconvnet)
    with pytest.raises(ValueError, match="sees the images at their size"):
        Inverter("conv1", (1, 16, 16), 10, density=Deconvnet, preprocessing=inverters.Preprocessing(side=20))


def test_h_alone_is_not_enough_for_a_deconvnet():
    inverter = inverter_of(ConvNet, "fc3", Deconvnet)
    with pytest.raises(ValueError, match="needs the image, whose pooling switches are not in h"):
        inverter.density.sample(inverter.context(images(1)), [torch.Generator()])


@pytest.fixture(scope="module")
def runs(trained_runs, tmp_path_factory):
    """A run of each, with the classifier."""
    folder = tmp_path_factory.mktemp("untrained")
    shutil.copytree(trained_runs / "classifier_mnist5k", folder / "runs/classifier_mnist5k", symlinks=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        main(["fit", "--config", PIXELS, *FAST])
        main(["fit", "--config", DECONVNET, *SMALL])
    return folder


@pytest.mark.parametrize("name", [PIXELS, DECONVNET])
def test_fit_without_training_leaves_a_run_as_any_other(runs, monkeypatch, name):
    monkeypatch.chdir(runs)
    run, row = run_with_results(name), result(name)
    best, last = (load_checkpoint(run / f"checkpoints/{kind}.ckpt") for kind in ("best", "last"))
    assert best["state_dict"].keys() == last["state_dict"].keys()
    assert best["state_dict"]["initialised"]
    assert best["state_dict"]["context_mean"].any()
    assert (row["nce_nats"], row["training_images"], row["training_flop"]) == (None, 0, 0)
    assert row["classifier"] == "classifier_mnist5k"
    assert {path.name for path in run.iterdir()} >= {
        "config.yaml",
        "samples.png",
        "samples.npz",
        "metrics.csv",
        "wandb",
    }
    assert "val/loss" in (run / "metrics.csv").read_text()
    assert np.load(run / "samples.npz")["draws"].shape[1] == (2 if name == PIXELS else 1)


@pytest.mark.parametrize(("name", "small"), [(PIXELS, FAST), (DECONVNET, SMALL)])
def test_verbs_serve_a_run_without_training(runs, tmp_path, monkeypatch, capsys, name, small):
    shutil.copytree(runs / "runs", tmp_path / "runs", symlinks=True)
    monkeypatch.chdir(tmp_path)
    run = run_with_results(name)
    ask = ["--config", name, *small[:2], "--trainer.accelerator=cpu", *(small[7:])]
    before = result(name)
    main(["test", "--config", name, *small])
    assert result(name)["density_digest"] == before["density_digest"]
    main(["sample", *ask, "--num_images=2", "--num_draws=2"])
    main(["distances", *ask, "--num_images=2", "--num_samples=2", "--num_queries=1", "--num_candidates=8"])
    main(["estimators", *ask, "--num_images=20"])
    draws = np.load(run / "draws.npy")
    assert draws.shape == (2, 2, 1, 28, 28)
    inputs, shown = np.load(run / "inputs.npy"), np.load(run / "samples.npz")
    loaded = inverters.load(run)
    assert np.array_equal(loaded.sample(inputs, num_draws=2, index=shown["index"].tolist()), draws)
    with pytest.raises(ValueError, match="only draws images: it has no log p"):
        loaded.log_prob(inputs)
    kind = type(loaded._inverter.density).__name__
    Image.fromarray(inputs[0, 0]).save("a.png")
    for verb in (["score", *ask, "--images", "a.png"], ["contrast", *ask]):
        assert f"a {kind} only draws images: it has no log p(x | h) to ask for" in failure(capsys, *verb)
    main(["report", "runs", "--output", "report.html"])


def test_finished_run_that_goes_on_is_tested_again(runs, tmp_path, monkeypatch, capsys):
    shutil.copytree(runs / "runs", tmp_path / "runs", symlinks=True)
    monkeypatch.chdir(tmp_path)
    run, before = run_with_results(PIXELS), result(PIXELS)
    checkpoint = (run / "checkpoints/best.ckpt").read_bytes()
    main(["fit", "--config", PIXELS, *FAST, "--ckpt_path=last"])
    assert result(PIXELS) == before
    assert (run / "checkpoints/best.ckpt").read_bytes() == checkpoint
    assert json.loads((run / "run.json").read_text())["images"] == 0


def test_trial_run_leaves_nothing(with_classifier):
    main(["fit", "--config", PIXELS, *FAST, "--trainer.fast_dev_run=true"])
    assert not list((with_classifier / "runs" / PIXELS).glob("*/checkpoints/*"))


def test_two_processes_draw_what_one_draws(runs, with_classifier):
    command(with_classifier, "fit", "--config", PIXELS, *FAST, "--trainer.devices=2", "--trainer.strategy=ddp")
    two, one = (run_with_results(PIXELS, folder / "runs") for folder in (with_classifier, runs))
    assert np.array_equal(*(np.load(run / "samples.npz")["draws"] for run in (one, two)))
    state = [load_checkpoint(run / "checkpoints/best.ckpt")["state_dict"] for run in (one, two)]
    assert all(torch.equal(state[0][name], state[1][name]) for name in state[0])
