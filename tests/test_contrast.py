"""The contrastive bound: below the known information and near it, whatever the model."""

import json
import math
from functools import partial

import numpy as np
import pytest
import torch
from dataset_files import loaded
from small_runs import INVERTER, SMALL, failure, run_with_results

import inverters
from cli import main
from commands.trained_inverter import scores
from datamodules import GlyphPositionDataModule, PairsDataModule
from evaluations import contrast
from evaluations.contrast import contrastive_bound
from evaluations.measurements import ContrastResult
from inverters.exact_networks import PositionNet
from inverters.inverter import Inverter
from inverters.likelihoods import Categorical
from inverters.pixelcnn import PixelCNN
from inverters.representation import Representation


def by_definition(matrix):
    """mean_i ln [ p(x_i | h_i) / mean_j p(x_i | h_j) ]."""
    p = np.exp(matrix)
    return np.log(np.diagonal(p) / p.mean(axis=1)).mean()


def gaussian_scores(rng, n, rho=0.95):
    """ln p(x_i | h_j) of pairs of standard normal variables with this correlation, but for a constant."""
    x, noise = rng.standard_normal((2, n))
    h = rho * x + math.sqrt(1 - rho**2) * noise
    return -((x[:, None] - rho * h) ** 2) / (2 * (1 - rho**2))


@pytest.mark.parametrize("n", [2, 50])
def test_it_is_the_formula(n):
    matrix = gaussian_scores(np.random.default_rng(0), n)
    assert contrastive_bound(matrix).mean == pytest.approx(by_definition(matrix))


def test_it_is_below_the_information_of_a_gaussian_channel_and_comes_near():
    rng = np.random.default_rng(0)
    truth = -math.log(1 - 0.95**2) / 2
    assert 0.97 * truth <= np.mean([by_definition(gaussian_scores(rng, 500)) for _ in range(20)]) <= truth + 0.02


def test_the_error_is_the_spread_over_draws_of_images_and_the_interval_covers_as_often_as_it_says(monkeypatch):
    monkeypatch.setattr(contrast, "NUM_RESAMPLES", 200)
    rng = np.random.default_rng(0)
    draws = [by_definition(gaussian_scores(rng, 60)) for _ in range(2000)]
    found = [contrastive_bound(gaussian_scores(rng, 60), seed) for seed in range(100)]
    assert np.mean([one.standard_error for one in found]) == pytest.approx(np.std(draws), rel=0.15)
    assert 0.88 <= np.mean([one.low <= np.mean(draws) <= one.high for one in found]) <= 0.99


def test_a_model_that_ignores_h_gives_exactly_0_and_one_that_tells_all_images_apart_ln_n():
    x = -600 + 50 * np.random.default_rng(0).standard_normal((90, 1))
    assert contrastive_bound(np.broadcast_to(x, (90, 90))) == (0, 0, 0, 0)
    for matrix in (x - 5000 * (1 - np.eye(90)), np.where(np.eye(90), x, -np.inf)):
        assert contrastive_bound(matrix) == pytest.approx((math.log(90), 0, math.log(90), math.log(90)), abs=1e-12)
        assert contrastive_bound(matrix).mean <= math.log(90)


def test_what_is_added_to_log_p_of_one_image_changes_nothing():
    rng = np.random.default_rng(0)
    matrix, added = gaussian_scores(rng, 40), 1000 * rng.standard_normal((40, 1))
    assert contrastive_bound(matrix + added) == pytest.approx(contrastive_bound(matrix), abs=1e-9)


def test_the_wrong_h_gives_less_than_nothing_and_no_bound_is_a_sentence():
    matrix = gaussian_scores(np.random.default_rng(0), 40)
    assert contrastive_bound(2000 * np.roll(matrix, 1, axis=1)).mean < -1000
    matrix[3, 3] = -np.inf
    with pytest.raises(ValueError, match="of 1 of 40 images is not finite"):
        contrastive_bound(matrix)
    matrix[3, 3] = np.nan
    with pytest.raises(ValueError, match="of 1 of 40 images is not finite"):
        contrastive_bound(matrix)
    with pytest.raises(ValueError, match="1 image has no other"):
        contrastive_bound(np.zeros((1, 1)))


SIDE = 8  # 25 positions: I(x; h) = ln 25 = 3.2 nats


def test_it_comes_within_5_percent_of_three_nats_with_the_exact_model_from_below():
    data = loaded(GlyphPositionDataModule(side=SIDE, num_test=300))
    image = data.datasets["test"].images
    h = Representation(PositionNet(data.image_shape, 1), "position")(image).flatten(1)
    found = contrastive_bound(np.where((h[:, None] == h).all(-1), -math.log(4), -np.inf))
    assert 0.95 * math.log(25) <= found.mean <= math.log(25)
    assert found.low <= found.mean <= found.high


def test_and_with_a_trained_one():
    data = loaded(GlyphPositionDataModule(side=SIDE, num_test=120))
    density = partial(PixelCNN, likelihood=Categorical(2), num_filters=16, num_layers=1, dropout=0.0)
    inverter = Inverter("position", data.image_shape, 1, PositionNet, density, lr=5e-3)
    draw = data.datasets["train"].__getitems__
    inverter.initialise([draw(range(1000))["image"]], draw(range(64))["image"])
    optimizer = inverter.configure_optimizers()["optimizer"]
    for step in range(60):
        optimizer.zero_grad()
        inverter.training_step(draw(range(32 * step, 32 * step + 32)), step)["loss"].backward()
        optimizer.step()
    image = data.datasets["test"].images
    found = contrastive_bound(scores(inverter.eval(), image, image).numpy())
    assert 0.95 * (math.log(25) - 25 / 240) <= found.mean <= math.log(25)  # 120 images' own shortfall is known


def test_the_command_keeps_the_bound_of_the_runs_first_test_images_and_python_gives_the_same(with_inverter, capsys):
    main(["contrast", *SMALL, "--num_images=6"])
    folder = run_with_results()
    row = ContrastResult.from_json(json.loads((folder / "contrast.json").read_text()))
    matrix = np.load(folder / "scores.npy")
    assert (row.num_images, row.ceiling_nats, matrix.shape) == (6, math.log(6), (6, 6))
    assert row.bound_nats == contrastive_bound(matrix).mean
    assert f"lower bound of I(x; h)  {row.bound_nats:.2f} nats" in capsys.readouterr().out
    assert np.diagonal(matrix) == pytest.approx(np.load(folder / "log_prob.npy")[:6], abs=1e-3)
    image = torch.from_numpy(np.load(folder / "samples.npz")["inputs"])[:2]
    inverter = inverters.load(f"runs/{INVERTER}")
    assert inverter.bound(image) == contrastive_bound(inverter.scores(image).numpy())
    assert scores(inverter._inverter, image[:0], image).shape == (0, 2)  # of a process that has none
    with pytest.raises(ValueError, match="h_of has 1 images for 2; give the same images"):
        inverter.bound(image, h_of=image[:1])


def test_a_model_without_h_has_no_bound(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    unconditional = ["--config=unconditional_mnist5k.yaml", *SMALL[1:]]
    main(["fit", *unconditional, "--trainer.max_steps=1", "--test_after_fit=false", "--trainer.limit_val_batches=1"])
    assert "an unconditional model has no h" in failure(capsys, "contrast", *unconditional)


def test_it_comes_within_5_percent_of_exactly_three_nats_of_a_noisy_channel_from_below():
    data, found = PairsDataModule(3.0, num_pixels=4), []
    for seed in range(5):
        drawn = data.drawn("test", 300, seed).first(300)
        image, partner = drawn["image"][:, 0, 0], drawn["context_image"][:, 0, 0]  # [N, 4]
        found.append(contrastive_bound(data.log_posterior(image[:, None], partner).sum(-1).numpy()).mean)
    assert 0.95 * 3 <= np.mean(found) <= 3


def test_a_generator_without_a_likelihood_has_no_bound(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    grey = [*SMALL[:1], *SMALL[2:], "--model.density=test_inverter.Grey", "--model.muon=null", "--classifier=null"]
    grey += ["--model.weights=untrained"]
    main(["fit", *grey, "--trainer.max_steps=1", "--test_after_fit=false", "--trainer.limit_val_batches=1"])
    said = failure(capsys, "contrast", *grey)
    assert "a Grey only draws images: it has no log p(x | h) to ask for" in said
