"""Differences, intervals and maps of log-probabilities."""

import math
from itertools import combinations, product

import numpy as np
import pytest
import scipy.stats
import torch

from evaluations.information import (
    data_processing_rises,
    information,
    information_estimate,
    information_map,
    mean_and_standard_error,
    paired_difference,
    relative_nce,
    rows_below,
    selected_by_row,
    wilson_interval,
)


def test_mean_and_standard_error_are_numpy_s():
    values = torch.randn(50, dtype=torch.float64)
    expected = np.mean(values.numpy()), np.std(values.numpy(), ddof=1) / math.sqrt(50)
    assert mean_and_standard_error(values) == pytest.approx(expected)


def test_one_image_has_no_standard_error():
    assert math.isnan(mean_and_standard_error(torch.tensor([1.0]))[1])
    estimate = paired_difference(torch.tensor([1.0]), torch.tensor([3.0]))
    assert estimate.mean == -2
    assert math.isnan(estimate.low)


def test_what_two_models_share_cancels_in_a_paired_difference():
    image_difficulty, noise = torch.randn(2, 400, dtype=torch.float64) * torch.tensor([[100], [1]])
    estimate = paired_difference(image_difficulty + 5 + noise, image_difficulty)
    assert estimate.mean == pytest.approx(5, abs=0.2)
    assert estimate.standard_error == pytest.approx(1 / 20, rel=0.15)  # unpaired it would be 7


def test_interval_covers_the_truth_as_often_as_it_says():
    generator = torch.Generator().manual_seed(0)
    draws = 2 + torch.randn(200, 60, generator=generator, dtype=torch.float64)
    intervals = [paired_difference(row, torch.zeros(60), seed) for seed, row in enumerate(draws)]
    covered = sum(e.low <= 2 <= e.high for e in intervals) / 200
    assert 0.88 <= covered <= 0.98


def test_estimate_of_independent_bits_is_their_number():
    log_prob_given_h, log_prob = (torch.full((10,), -bits * math.log(2)) for bits in (2, 3))
    assert information_estimate(log_prob_given_h, log_prob).mean == pytest.approx(math.log(2))


def test_relative_nce_has_the_spread_of_the_ratio_over_data_sets():
    generator = torch.Generator().manual_seed(0)
    shared = torch.randn(2000, 100, generator=generator, dtype=torch.float64)
    a, b = -50 + 3 * shared, -40 + 3 * shared + torch.randn(2000, 100, generator=generator, dtype=torch.float64)
    ratios = a.mean(1) / b.mean(1).abs()
    estimate = relative_nce(a[0], b[0])
    assert estimate.mean == pytest.approx(-1.25, abs=5 * ratios.std().item())
    assert estimate.standard_error == pytest.approx(ratios.std().item(), rel=0.25)
    assert estimate.low < estimate.mean < estimate.high
    assert (estimate.high - estimate.low) / 3.92 == pytest.approx(estimate.standard_error, rel=0.15)


def test_a_layer_is_minus_one_relative_to_itself():
    log_prob = -100 + torch.randn(50)
    estimate = relative_nce(log_prob, log_prob)
    assert estimate.mean == pytest.approx(-1)
    assert estimate.standard_error == pytest.approx(0, abs=1e-12)


def test_only_a_real_rise_of_nce_breaks_the_data_processing_inequality():
    noise = torch.randn(3, 100, dtype=torch.float64)
    log_probs = {"conv1": -100 + noise[0], "conv2": -90 + noise[1], "fc3": -120 + noise[2]}
    rises = data_processing_rises(log_probs, combinations(log_probs, 2))
    assert rises.keys() == {("conv1", "conv2")}
    assert rises["conv1", "conv2"].mean == pytest.approx(10, abs=0.5)
    assert data_processing_rises({"a": noise[0], "b": noise[0]}, [("a", "b")]) == {}
    assert data_processing_rises(log_probs, [("conv1", "fc3")]) == {}  # conv2 may be no function of conv1


@pytest.mark.parametrize("errors", [1.95, 2.05])
def test_a_rise_is_more_than_two_standard_errors(errors):
    noise = torch.randn(100, dtype=torch.float64)
    difference = (noise - noise.mean()) / noise.std() * 10 + errors  # 10 / sqrt(100) is one standard error
    log_probs = {"a": -50 + noise, "b": -50 + noise + difference}
    assert bool(data_processing_rises(log_probs, [("a", "b")])) == (errors > 2)


def test_map_sums_to_the_estimate():
    given_h, without = -torch.rand(2, 20, 4, 6)
    total = information_map(given_h, without).mean(0).sum().item()
    estimate = information_estimate(given_h.double().sum((1, 2)), without.double().sum((1, 2)))
    assert total == pytest.approx(estimate.mean, abs=1e-12)


def test_whatever_is_chosen_by_other_images_all_images_have_a_probability_of_one():
    generator = torch.Generator().manual_seed(0)
    every = torch.tensor(list(product((0, 1), repeat=6)))  # images of 3 rows and 2 columns
    tables = torch.rand(2, 6, 2**6, generator=generator, dtype=torch.float64)  # p(x_i = 1 | x_<i) with h, and without
    before = torch.stack([every[:, :i] @ 2 ** torch.arange(i) for i in range(6)], dim=1)
    ones = tables[:, torch.arange(6), before]
    given_h, without = torch.where(every == 1, ones, 1 - ones).log().view(2, 64, 3, 2)
    others = torch.randn(40, 64, 3, 2, generator=generator, dtype=torch.float64)  # these choose the rows of all images
    chosen = set()
    for choosing in others:
        maps = torch.stack((information_map(given_h, without), choosing), dim=1).flatten(0, 1)
        gain = selected_by_row(maps)[::2]
        assert (without + gain).sum((1, 2)).exp().sum() == pytest.approx(1, abs=1e-12)
        chosen.add(tuple((gain != 0).any(2).any(0).tolist()))
    assert len(chosen) == 2**3


def test_rows_are_chosen_by_other_images_so_that_chance_gains_nothing():
    maps = torch.randn(2000, 20, 4, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gains = torch.stack([selected_by_row(one).mean(0).sum() for one in maps])
    assert abs(gains.mean() / gains.std() * 2000**0.5) < 3
    by_themselves = torch.stack([one.sum(2).mean(0).clamp(min=0).sum() for one in maps])
    assert by_themselves.mean() / by_themselves.std() * 2000**0.5 > 30


def test_a_row_where_p_x_is_better_tells_nothing_and_others_tell_what_they_did():
    noise = torch.randn(101, 3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    maps = noise + torch.tensor([[2.0], [-2.0], [1.0]], dtype=torch.float64)
    assert rows_below(maps) == {1: pytest.approx(maps[:, 1].sum(1).mean().item())}
    maps[7, 1, 0] = -math.inf  # impossible, says p(x | h)
    left = selected_by_row(maps)
    assert torch.equal(left[:, [0, 2]], maps[:, [0, 2]])
    assert not left[:, 1].any()
    assert rows_below(left) == {}


@pytest.mark.parametrize("errors", [-2.05, -1.95])
def test_a_row_is_below_by_more_than_two_standard_errors(errors):
    noise = torch.randn(100, dtype=torch.float64)
    of_row = (noise - noise.mean()) / noise.std() * 10 + errors
    assert rows_below(of_row[:, None, None].expand(100, 1, 1)) == ({0: pytest.approx(errors)} if errors < -2 else {})


def test_an_image_cannot_choose_its_rows():
    with pytest.raises(ValueError, match="there is 1 image; give more"):
        selected_by_row(torch.zeros(1, 4, 4))
    with pytest.raises(ValueError, match="no log p of single pixels"):
        information(torch.zeros(3), torch.zeros(3), None, None).selected_by_row()


@pytest.mark.parametrize(("hits", "n"), [(0, 4), (4, 4), (3, 4), (450, 500), (1, 1)])
def test_the_interval_of_a_share_is_scipy_s(hits, n):
    expected = scipy.stats.binomtest(hits, n).proportion_ci(method="wilson")
    assert wilson_interval(hits / n, n) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert wilson_interval(hits / n, n)[1] - wilson_interval(hits / n, n)[0] > 0.04
