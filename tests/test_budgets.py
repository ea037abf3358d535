"""The limit of a power law, where it is known, and where there is none."""

import math

import numpy as np
import pytest

from evaluations.budgets import has_settled, power_law

BUDGETS = 3e12 * 4.0 ** np.arange(4)


def curve(rng, limit, scale, exponent, noise=0.0, n=200):
    """Values of images that differ much, and from budget to budget by so much noise each."""
    means = limit - scale * (BUDGETS / BUDGETS[0]) ** -exponent
    return means[:, None] + 50 * rng.standard_normal(n) * (noise > 0) + noise * rng.standard_normal((4, n))


@pytest.mark.parametrize(("limit", "scale", "exponent"), [(-560, 60, 0.3), (-560, 5, 1.5), (20, -8, 0.5)])
@pytest.mark.parametrize("num", [3, 4])
def test_the_limit_of_an_exact_power_law_is_found(limit, scale, exponent, num):
    found = power_law(BUDGETS[:num], curve(np.random.default_rng(0), limit, scale, exponent)[:num])
    assert found.limit == pytest.approx(limit, abs=0.03 * abs(scale))
    assert found.exponent == pytest.approx(exponent, rel=0.02)
    assert found.scale * BUDGETS[0] ** -found.exponent == pytest.approx(scale, rel=0.03)
    expected = curve(np.random.default_rng(0), limit, scale, exponent)[:num, 0]
    assert found.at(BUDGETS[:num]) == pytest.approx(expected, abs=0.01 * abs(scale))


def test_the_interval_holds_the_limit_over_all_images_as_often_as_it_says():
    rng = np.random.default_rng(0)
    found = [power_law(BUDGETS, curve(rng, -560, 60, 0.7, noise=5), seed) for seed in range(60)]
    assert 0.85 <= np.mean([law.low <= -560 <= law.high for law in found]) <= 1
    width, spread = np.mean([law.high - law.low for law in found]), np.std([law.limit for law in found], ddof=1)
    assert width == pytest.approx(3.92 * spread, rel=0.25)  # 1.05 of it


def test_a_misfit_is_told_from_what_the_choice_of_images_explains():
    """By residuals, which the images have in common far less than the means."""
    rng = np.random.default_rng(0)
    values = [curve(rng, -560, 60, 0.7, noise=5) for _ in range(60)]
    assert np.mean([power_law(BUDGETS, its).misfits for its in values]) < 0.1
    off = np.array([0, 3, 0, 0])[:, None]  # less than an error of a mean, 3.5
    assert np.mean([power_law(BUDGETS, its + off).misfits for its in values]) > 0.7


def test_the_fit_does_not_depend_on_the_unit_of_the_budget():
    values = curve(np.random.default_rng(0), -560, 60, 0.7, noise=5)
    one, other = power_law(BUDGETS, values), power_law(BUDGETS / 1e12, values)
    assert one.limit == pytest.approx(other.limit)
    assert one.scale * BUDGETS[0] ** -one.exponent == pytest.approx(other.scale * 3**-other.exponent)


def test_fewer_than_three_budgets_have_no_fit():
    values = curve(np.random.default_rng(0), -560, 60, 0.7)
    assert power_law(BUDGETS[:2], values[:2]) is None
    assert power_law(BUDGETS[[0, 1, 1]], values[:3]) is None


@pytest.mark.parametrize("sign", [1, -1])
def test_a_curve_that_does_not_bend_has_no_limit(sign):
    for means in ([0.0, 10, 20, 30], [0.0, 10, 21, 33]):
        found = power_law(BUDGETS, sign * np.array(means)[:, None] + np.zeros(9))
        assert found.limit is None
        assert (found.low, found.high) == (sign * math.inf, sign * math.inf)


@pytest.mark.parametrize("level", [-560.1, 0.0])
def test_a_flat_curve_is_at_its_limit(level):
    found = power_law(BUDGETS[:3], np.full((3, 9), level))
    assert (found.limit, found.low, found.high) == pytest.approx((level, level, level))


def test_what_may_not_bend_has_an_interval_without_end():
    straight = np.array([[0.0], [10], [20], [30]])
    found = power_law(BUDGETS, straight + 50 * np.random.default_rng(0).standard_normal((4, 200)))
    assert found.high == math.inf


def test_an_estimate_has_settled_where_it_changes_by_less_than_its_error():
    last = np.random.default_rng(0).standard_normal(100)
    error = last.std(ddof=1) / 10
    for change, expected in ((0.9, True), (-0.9, True), (1.1, False), (-1.1, False)):
        assert has_settled(last + change * error, last) == expected
    assert not has_settled(last[:1], last[:1])
