"""Every estimator where the truth is known, high and low."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.spatial import KDTree
from scipy.spatial.distance import cdist
from scipy.special import digamma, logsumexp
from scipy.stats import norm

from evaluations.estimators import (
    Breakdown,
    all_estimates,
    binned_information,
    breakdown,
    breaks_down_at,
    kernel_density_bounds,
    nearest_neighbour_entropy,
)


def test_binning_of_all_patterns_is_the_logarithm_of_their_number():
    h = torch.tensor(list(itertools.product((0.0, 1.0, 2.0), repeat=3)), dtype=torch.float64)
    assert binned_information(h) == pytest.approx(math.log(27))
    assert binned_information(h.repeat(2, 1)) == pytest.approx(math.log(27))
    assert binned_information(h, num_bins=1) == 0
    assert binned_information(torch.ones(50, 4)) == 0
    assert binned_information(torch.arange(1000.0)[:, None], num_bins=1000) == pytest.approx(math.log(1000))


def test_binning_of_one_normal_variable_is_its_discrete_entropy():
    h = torch.randn(20_000, 1, dtype=torch.float64)
    edges = np.linspace(h.min().item(), h.max().item(), 11)
    p = np.diff(norm.cdf(edges))
    assert binned_information(h, num_bins=10) == pytest.approx(-(p * np.log(p)).sum(), abs=0.01)


def test_binning_fits_its_bins_to_each_unit():
    h = torch.rand(200, 3, dtype=torch.float64)
    moved = h * torch.tensor([1e-3, 1.0, 1e6]) + torch.tensor([-7.0, 0.0, 5.0])
    for num_bins in (2, 3, 30):
        assert binned_information(moved, num_bins) == pytest.approx(binned_information(h, num_bins))
    assert math.log(7) < binned_information(moved, num_bins=2) < math.log(8)  # eight patterns, nearly equal


def test_kernel_density_bounds_of_far_points_are_the_logarithm_of_their_number_and_of_one_point_nothing():
    far = 1e3 * torch.arange(16, dtype=torch.float64)[:, None]
    assert kernel_density_bounds(far, 1.0) == pytest.approx((math.log(16), math.log(16)))
    assert kernel_density_bounds(torch.zeros(16, 2, 3), 1.0) == pytest.approx((0, 0))


@pytest.mark.parametrize("gap", [0.5, 2.0, 4.0])
def test_kernel_density_bounds_enclose_the_information_of_a_mixture(gap):
    means, deviation = (0.0, gap, 3 * gap), 0.7

    def density(y):
        return np.mean([norm.pdf(y, mean, deviation) for mean in means])

    grid = (-6.0, 3 * gap + 6)
    entropy_of_mixture = quad(lambda y: -density(y) * math.log(density(y)), *grid, limit=200)[0]
    truth = entropy_of_mixture - norm.entropy(0, deviation)
    lower, upper = kernel_density_bounds(torch.tensor(means, dtype=torch.float64)[:, None], deviation**2)
    assert lower <= truth <= upper
    assert upper - lower > 0.01


@pytest.mark.parametrize("deviation", [0.01, 3.0])
def test_nearest_neighbour_entropy_of_a_correlated_normal_is_its_closed_form(deviation):
    mixing = torch.tensor([[1.0, 0, 0], [0.8, 0.5, 0], [-0.3, 0.2, 0.9]], dtype=torch.float64) * deviation
    h = torch.randn(4000, 3, dtype=torch.float64) @ mixing.T
    truth = 1.5 * math.log(2 * math.pi * math.e) + math.log(torch.linalg.det(mixing).item())
    assert nearest_neighbour_entropy(h) == pytest.approx(truth, abs=0.07)
    assert nearest_neighbour_entropy(h, k=10) == pytest.approx(truth, abs=0.07)


@pytest.mark.parametrize("num_units", [2, 40])
def test_colliding_images_have_the_finite_entropy_of_neighbours_at_the_smallest_distance(num_units):
    h = 5 + torch.randn(10, num_units, dtype=torch.float64).repeat(6, 1)  # each six times
    ball = math.pi ** (num_units / 2) / math.gamma(num_units / 2 + 1)
    expected = num_units * math.log(1e-10) + math.log(ball) + digamma(60) - digamma(3)
    assert nearest_neighbour_entropy(h, k=3) == pytest.approx(expected, rel=1e-12)
    assert nearest_neighbour_entropy(h, k=6) > expected + 5 * num_units


def test_estimates_do_not_depend_on_where_the_layer_lies():
    h = torch.randn(200, 3, dtype=torch.float64)
    for row, moved in zip(all_estimates(h, "digest"), all_estimates(h + 1e7, "digest"), strict=True):
        assert moved.estimate_nats == pytest.approx(row.estimate_nats, rel=1e-6)


@pytest.mark.parametrize("megabytes", [0.1, 1, 128])  # 21, 218 or all 600 rows at once
def test_estimates_do_not_depend_on_how_many_images_are_compared_at_once(megabytes, monkeypatch):
    monkeypatch.setattr("evaluations.estimators.DISTANCES_MEGABYTES", megabytes)
    h = torch.rand(600, 2, dtype=torch.float64)
    squares = cdist(h, h, "sqeuclidean")
    bounds = [math.log(600) - logsumexp(-squares / (f * 0.01), axis=1).mean() for f in (8, 2)]
    assert kernel_density_bounds(h, 0.01) == pytest.approx(bounds, rel=1e-10)
    distances = KDTree(h).query(h, 4)[0][:, 3]
    expected = 2 * np.log(distances).mean() + math.log(math.pi) + digamma(600) - digamma(3)
    assert nearest_neighbour_entropy(h, k=3) == pytest.approx(expected, abs=1e-6)


def test_the_neighbour_must_exist():
    with pytest.raises(ValueError, match="no neighbour number 3 among 3 images; give at least 4 images"):
        nearest_neighbour_entropy(torch.randn(3, 2))


def test_an_estimator_is_within_a_nat_in_few_dimensions_and_breaks_down_in_many():
    rows = breakdown(dimensions=(1, 2, 4, 8, 64))
    first = {name: breaks_down_at(rows, name) for name in dict.fromkeys(row.estimator for row in rows)}
    assert [first.pop("nearest neighbours"), set(first.values()), len(first)] == [64, {4}, 3]
    assert {breaks_down_at(rows[:8], name) for name in first} == {None}
    assert {row.num_samples for row in rows} == {2000}


def test_no_estimate_of_information_exceeds_the_logarithm_of_the_number_of_images():
    for row in breakdown(dimensions=[64], num_samples=1000)[:3]:
        assert row.estimate_nats <= math.log(1000) + 1e-12 < row.truth_nats


def test_the_truth_of_one_normal_variable_is_that_of_quadrature():
    """30 bins over the range of the samples; and a Gaussian channel, by its definition."""
    truths = {row.estimator: row.truth_nats for row in breakdown(dimensions=[1], num_samples=500)}
    h = torch.randn(500, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64).numpy()
    edges = np.linspace(h.min(), h.max(), 31)
    p = [quad(norm.pdf, low, high)[0] for low, high in itertools.pairwise(edges)]
    assert truths["binning"] == pytest.approx(-sum(q * math.log(q) for q in p), abs=0.01)  # the tails are cut off
    assert truths["kernel density, lower"] == truths["kernel density, upper"]
    assert truths["kernel density, upper"] == pytest.approx(norm.entropy(0, 1.01**0.5) - norm.entropy(0, 0.1))
    assert truths["nearest neighbours"] == pytest.approx(norm.entropy())


def test_breakdown_is_where_an_estimator_stays_off_and_does_not_depend_on_units():
    values = {1: 1.5, 2: 0.0, 4: 0.5, 8: -1.2, 16: -9}
    for truth in (1.0, 1e6):
        rows = [Breakdown("a", d, 9, v + truth, truth) for d, v in values.items()]
        assert breaks_down_at(rows, "a") == 8
        assert breaks_down_at(rows[:3], "a") is None


def test_units_that_never_change_add_nothing_to_an_entropy():
    h = torch.randn(100, 3, dtype=torch.float64)
    with_constants = torch.cat([h, torch.full((100, 5), 7.0)], dim=1)
    assert nearest_neighbour_entropy(with_constants) == pytest.approx(nearest_neighbour_entropy(h))
    assert all_estimates(with_constants, "digest")[3].parameters["num_units"] == 3
    assert nearest_neighbour_entropy(torch.ones(100, 5)) == 0


def test_rows_for_a_layer_do_not_depend_on_its_scale_but_for_the_entropy():
    h = torch.randn(300, 4, 2, dtype=torch.float64).relu()
    rows, scaled = all_estimates(h, "digest"), all_estimates(100 * h, "digest")
    for row, other in zip(rows[:3], scaled[:3], strict=True):
        assert row.estimate_nats == pytest.approx(other.estimate_nats)
        assert 0 <= row.estimate_nats <= row.ceiling_nats + 1e-12
    assert scaled[3].estimate_nats - rows[3].estimate_nats == pytest.approx(8 * math.log(100), rel=1e-4)


def test_rows_for_a_layer_are_what_each_estimator_says_of_it():
    h = torch.randn(300, 4, 2).relu()
    variance = 0.01 * h.double().var(0, correction=0).mean().item()
    expected = [binned_information(h), *kernel_density_bounds(h, variance), nearest_neighbour_entropy(h)]
    assert [row.estimate_nats for row in all_estimates(h, "digest")] == pytest.approx(expected)
    constant = [row.estimate_nats for row in all_estimates(torch.full((300, 4), 0.1), "digest")[:3]]
    assert constant == pytest.approx([0, 0, 0])
    assert min(constant) >= 0
