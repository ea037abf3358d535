"""Whose h it is: chance where h says nothing, all where it tells all, and what a Gaussian channel gives in between."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from dataset_files import loaded
from small_runs import SMALL, failure, the_run

from cli import main
from datamodules import BitDropDataModule, MNIST5kDataModule, PhotosDataModule
from evaluations.measurements import ContrastResult
from evaluations.reidentification import accuracy, whose


def channel(rng, n, of_x=0.0, rho=0.9):
    """ln p(x_i | h_j) of 3 pairs of normal variables with this correlation; `of_x` weighs ln p(x_i) more or less."""
    x, noise = rng.standard_normal((2, n, 3))
    h = rho * x + math.sqrt(1 - rho**2) * noise
    scores = -((x[:, None] - rho * h) ** 2).sum(axis=2) / (2 * (1 - rho**2))
    return scores + of_x * (x**2).sum(axis=1, keepdims=True)


@pytest.mark.parametrize(("n", "k"), [(40, 1), (40, 5), (3, 5)])
def test_it_is_chance_where_h_says_nothing_and_all_where_it_tells_the_images_apart(n, k):
    of_x = np.random.default_rng(0).standard_normal((n, 1)) - 600
    for ranked in (np.broadcast_to(of_x, (n, n)), whose(np.broadcast_to(of_x, (n, n)).copy())):
        assert accuracy(ranked, k).share == pytest.approx(min(k / n, 1))
    told = np.where(np.eye(n), of_x, -np.inf)
    assert accuracy(told, k).share == accuracy(whose(told), k).share == 1
    assert accuracy(told, k).low < 1


def test_images_with_one_h_are_found_as_often_as_one_of_them_is_drawn():
    group = np.arange(60) // 3  # h tells which third of the images, and no more
    same = np.where(group[:, None] == group, -1.0, -np.inf)
    assert [accuracy(x, k).share for x in (same, whose(same)) for k in (1, 2, 5)] == pytest.approx(
        [1 / 3, 2 / 3, 1] * 2
    )


def test_how_likely_an_image_is_by_itself_is_taken_off():
    plain, shifted = (channel(np.random.default_rng(0), 100, of_x) for of_x in (0, 3))
    assert accuracy(whose(shifted), 1) == accuracy(whose(plain), 1) > accuracy(shifted.T, 1)
    assert accuracy(shifted, 1) == accuracy(plain, 1)  # of one image there is nothing to take off


def test_whose_h_is_ranked_as_bayes_rule_says_where_the_densities_are_known():
    """p(h | x) of the channel itself, for many representations."""
    rng, rho = np.random.default_rng(0), 0.9
    x, noise = rng.standard_normal((2, 4000))
    h = rho * x + math.sqrt(1 - rho**2) * noise
    scores = -((x[:, None] - rho * h) ** 2) / (2 * (1 - rho**2))
    truth = -((h[:, None] - rho * x) ** 2) / (2 * (1 - rho**2)) + h[:, None] ** 2 / 2
    usual = np.abs(x) < 1  # where the mean over 4000 others is near
    error = whose(scores)[:, usual] - truth[:, usual]
    assert np.abs(error - error.mean()).max() < 0.2


def test_the_error_is_the_spread_over_draws_of_images_and_the_interval_covers():
    rng = np.random.default_rng(0)
    for ranked, k in ((lambda s: s, 1), (whose, 1), (whose, 5)):
        found = [accuracy(ranked(channel(rng, 100)), k) for _ in range(400)]
        spread, mean = np.std([one.share for one in found]), np.mean([one.share for one in found])
        assert np.mean([one.standard_error for one in found]) == pytest.approx(spread, rel=0.2)
        assert np.mean([one.low <= mean <= one.high for one in found]) > 0.88


def test_scores_that_rank_nothing_are_refused_in_a_sentence():
    with pytest.raises(ValueError, match="1 image has no other to be told from; give at least 2"):
        accuracy(np.zeros((1, 1)), 1)
    with pytest.raises(ValueError, match="1 of 2 images have a score that is not a number"):
        accuracy(np.array([[0, math.nan], [0, 0]]), 1)


def test_left_out_classes_are_in_no_image_of_training_and_in_the_test_as_ever():
    every, few = (loaded(MNIST5kDataModule(left_out_classes=classes)).datasets for classes in (None, [8, 9]))
    assert few["train"].labels.unique().tolist() == few["val"].labels.unique().tolist() == list(range(8))
    kept = every["train"].labels < 8
    assert torch.equal(few["train"].images, every["train"].images[kept])
    assert torch.equal(few["train"].index, every["train"].index[kept])
    assert torch.equal(few["test"].images, every["test"].images)


@pytest.mark.parametrize(("data", "said"), [
    (MNIST5kDataModule(left_out_classes=[10]), r"\[10\], and mnist5k has the classes 0 to 9; give some of these"),
    (PhotosDataModule(left_out_classes=[0, 1]), "of which none would be left; give fewer"),
    (BitDropDataModule(left_out_classes=[0]), "of which none would be left"),
])  # fmt: skip
def test_classes_that_cannot_be_left_out_are_refused_in_a_sentence(data, said):
    with pytest.raises(ValueError, match=said):
        data.setup("fit")


def test_a_checkpoint_knows_what_was_left_out_and_one_of_before_left_nothing_out():
    every, few = MNIST5kDataModule(), MNIST5kDataModule(left_out_classes=[8])
    assert "left_out_classes" not in every.identity  # its digests stay what they were
    checkpoints = {data: {"data": {"dataset": "mnist5k", "identity": data.identity}} for data in (every, few)}
    for data, other in ((every, few), (few, every)):
        data.check(checkpoints[data], "it")
        with pytest.raises(ValueError, match=r"--data\.left_out_classes"):
            data.check(checkpoints[other], "it")
        data.check(checkpoints[other], "it", classifier=True)


def test_contrast_tells_unseen_images_from_unseen_classes(with_classifier, capsys):
    left_out = ["--data.left_out_classes=[8, 9]"]
    main(["fit", *SMALL, *left_out, "--trainer.max_steps=1", "--trainer.limit_val_batches=1", "--test_after_fit=false"])
    main(["contrast", *SMALL, *left_out, "--num_images=20"])
    said = capsys.readouterr().out
    assert "no classifier trained on this data" not in said  # it is one of all classes, and there already
    path = the_run(Path()) / "contrast.json"
    found = ContrastResult.from_json(json.loads(path.read_text())).reidentified
    label = loaded(MNIST5kDataModule()).datasets["test"].first(20)["label"]
    number = int((label >= 8).sum())
    of_all = [(one.classes, one.unseen, one.num_images, one.k) for one in found[:2]]
    assert of_all == [(None, False, 20, 1), (None, False, 20, 5)]
    assert {(one.classes, one.unseen, one.num_images) for one in found[4:]} == {((8, 9), True, number)}
    matrix = np.load(path.parent / "scores.npy")
    assert found[0].share == accuracy(whose(matrix), 1).share
    assert found[2].share == accuracy(matrix, 1).share
    assert f"{number} of unseen classes 8, 9" in said
    assert "chance 5.0%" in said
    assert "never that the rest is safe" in said
    refused = failure(capsys, "contrast", *SMALL, *left_out, "--num_images=2", "--classes=[3]")
    assert "of 2 test images are of the classes [3]; give others, or a larger --num_images" in refused
