import math

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch

from inverters.likelihoods import Categorical, LogisticMixture

ALL_LEVELS = torch.arange(256, dtype=torch.uint8).view(256, 1, 1, 1)


def enumerate_channels(channels: int) -> torch.Tensor:
    """Every value of a pixel of so many channels, [256^channels, channels, 1, 1]."""
    return torch.cartesian_prod(*[torch.arange(256)] * channels).view(-1, channels, 1, 1).to(torch.uint8)


@pytest.mark.parametrize("num_levels", [2, 16, 256])
def test_categorical_masses_of_all_values_sum_to_one(num_levels):
    likelihood = Categorical(num_levels)
    params = 5 * torch.randn(1, num_levels, 1, 1, dtype=torch.float64)
    log_prob = likelihood.log_prob(params.expand(256, -1, 1, 1), ALL_LEVELS)
    assert log_prob.exp().sum().item() == pytest.approx(1, abs=1e-12)
    assert torch.isfinite(log_prob).sum() == num_levels


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])  # up to means far off the grid and scales at the floor
@pytest.mark.parametrize("channels", [1, 2])
def test_mixture_masses_of_all_values_sum_to_one(channels, scale):
    likelihood = LogisticMixture(num_components=3)
    params = scale * torch.randn(1, likelihood.num_parameters(channels), 1, 1, dtype=torch.float64)
    x = enumerate_channels(channels)
    log_prob = likelihood.log_prob(params.expand(len(x), -1, 1, 1), x)
    assert log_prob.exp().sum().item() == pytest.approx(1, abs=1e-9)


def test_mixture_equals_differences_of_scipys_logistic_distribution():
    likelihood = LogisticMixture(num_components=2)
    logits, means, log_scales = [0.3, -0.4], [-0.2, 0.5], [-2.0, -3.0]
    params = torch.tensor(logits + means + log_scales, dtype=torch.float64).view(1, -1, 1, 1)
    edges = (np.arange(257) - 0.5) / 127.5 - 1
    edges[0], edges[-1] = -np.inf, np.inf
    weights = np.exp(logits) / np.exp(logits).sum()
    mass = sum(
        w * np.diff(scipy.stats.logistic(m, math.exp(s)).cdf(edges))
        for w, m, s in zip(weights, means, log_scales, strict=True)
    )
    ours = likelihood.log_prob(params.expand(256, -1, 1, 1), ALL_LEVELS).exp().flatten()
    np.testing.assert_allclose(ours, mass, rtol=1e-9, atol=1e-15)


def test_blue_and_green_do_not_change_the_channels_before_them():
    """Summed over blue, the mass of (r, g, b) is that of (r, g) in the model without blue; likewise green."""
    likelihood = LogisticMixture(num_components=2)
    logits, means, scales, coupling = torch.randn(1, 20, 1, 1, dtype=torch.float64).split((2, 6, 6, 6), dim=1)
    three = torch.cat((logits, means, scales, coupling), dim=1)
    two = torch.cat((logits, means[:, :4], scales[:, :4], coupling[:, :2]), dim=1)
    red_green = torch.tensor([[10, 200], [255, 0], [128, 127]], dtype=torch.uint8)
    x = torch.cat((red_green.repeat_interleave(256, 0)[:, :, None, None], ALL_LEVELS.repeat(3, 1, 1, 1)), dim=1)
    summed = likelihood.log_prob(three.expand(len(x), -1, 1, 1), x).exp().view(3, 256).sum(1)
    directly = likelihood.log_prob(two.expand(3, -1, 1, 1), red_green[:, :, None, None]).exp().flatten()
    torch.testing.assert_close(summed, directly, rtol=1e-9, atol=0)


@pytest.mark.parametrize(("pair", "channel", "source"), [(0, 1, 0), (1, 2, 0), (2, 2, 1)])
def test_each_coefficient_couples_its_pair_and_no_other(pair, channel, source):
    likelihood = LogisticMixture(num_components=1)
    # One component: its logit, three means, three log-scales, then green on red, blue on red, blue on green.
    params = torch.tensor([0.0, 0, 0, 0, -1, -1, -1, 0, 0, 0], dtype=torch.float64)
    params[7 + pair] = 1.0

    def masses(other, level):
        """p(channel = v | those before it, of which one has another level) for all v; those after it are uncoupled."""
        x = torch.full((256, 3, 1, 1), 128, dtype=torch.uint8)
        x[:, other], x[:, channel] = level, ALL_LEVELS[:, 0]
        return likelihood.log_prob(params.view(1, 10, 1, 1).expand(256, -1, 1, 1), x).flatten().softmax(dim=0)

    for other in range(channel):
        assert ((masses(other, 40) - masses(other, 220)).abs().max() > 1e-4) == (other == source)


def test_at_the_floor_no_interior_value_exceeds_its_bound():
    likelihood = LogisticMixture(num_components=1)
    params = torch.tensor([0, 128 / 127.5 - 1, -50], dtype=torch.float64).view(1, 3, 1, 1)
    log_prob = likelihood.log_prob(params, torch.full((1, 1, 1, 1), 128, dtype=torch.uint8))
    assert -log_prob.item() == pytest.approx(0.0271, abs=5e-4)


def test_gradients_are_finite_far_from_the_mean():
    likelihood = LogisticMixture(num_components=2)
    scales = torch.tensor([1.0, 1, 1e4, 1e4, 2, 2]).view(1, 6, 1, 1)  # of logits, means, log-scales
    params = (scales * torch.randn(256, 6, 1, 1)).requires_grad_()
    likelihood.log_prob(params, ALL_LEVELS).sum().backward()
    assert torch.isfinite(params.grad).all()
    # Of every value between the ends, the means still know where to go.
    assert (params.grad[1:-1, 2:4].abs().amax(dim=1) > 0).all()


@pytest.mark.parametrize(
    ("likelihood", "channels"), [(Categorical(8), 1), (LogisticMixture(3), 1), (LogisticMixture(2), 2)]
)
def test_draws_have_the_frequencies_of_log_prob(likelihood, channels):
    n = 100_000
    params = torch.randn(1, likelihood.num_parameters(channels), 1, 1)
    if isinstance(likelihood, LogisticMixture):
        params[:, :] -= 1.0  # narrower
    uniforms = torch.rand(n, likelihood.num_uniforms(channels), 1, 1).clamp(1e-7, 1 - 1e-7)
    draws = likelihood.sample(params.expand(n, -1, 1, 1), likelihood.noise(uniforms), channels)
    assert draws.dtype == torch.uint8
    x = enumerate_channels(channels)
    mass = likelihood.log_prob(params.double().expand(len(x), -1, 1, 1), x).exp().flatten()

    def counted(x, weights=None):
        """In cells of 16 levels a channel, so that the expected counts suffice for a chi-square test."""
        cells = np.ravel_multi_index((x[:, :, 0, 0].numpy() // 16).T, (16,) * channels)
        return np.bincount(cells, weights, minlength=16**channels)

    observed, expected = counted(draws), counted(x, mass) * n
    large = expected > 5
    statistic = ((observed - expected)[large] ** 2 / expected[large]).sum()
    assert scipy.stats.chi2.sf(statistic, large.sum() - 1) > 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("num_levels", [2, 16, 256])
def test_a_categorical_draw_inverts_the_cumulative_distribution(num_levels, dtype):
    """It is the first level at which NumPy's cumulative sum exceeds the one uniform number, but for roundings."""
    likelihood, n = Categorical(num_levels), 2000
    params = 4 * torch.randn(n, num_levels, 1, 1, dtype=dtype)
    uniforms = torch.rand(n, likelihood.num_uniforms(1), 1, 1).to(dtype)
    assert uniforms[0].numel() == 1
    level = likelihood.sample(params, likelihood.noise(uniforms), 1).flatten().numpy() // likelihood.step
    mass = scipy.special.softmax(params[:, :, 0, 0].double().numpy(), axis=1)
    above = np.take_along_axis(mass.cumsum(axis=1), level[:, None], axis=1)[:, 0]
    below = above - np.take_along_axis(mass, level[:, None], axis=1)[:, 0]
    u = uniforms.flatten().double().numpy()
    assert (below - 1e-6 < u).all()
    assert (u < above + 1e-6).all()


@pytest.mark.parametrize("uniform", [2.0**-25, 2.0**-24, 0.5, 1 - 2.0**-24])  # the least and the most of `noise`
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_level_without_probability_is_never_drawn(uniform, dtype):
    """Whatever the sum of the probabilities is rounded to."""
    n, likelihood = 500, Categorical()
    possible = torch.rand(n, 256, 1, 1) < torch.rand(n, 1, 1, 1)
    possible[:, 128] = True
    params = torch.where(possible, torch.randn(n, 256, 1, 1, dtype=dtype), -torch.inf)
    drawn = likelihood.sample(params, likelihood.noise(torch.full((n, 1, 1, 1), uniform, dtype=dtype)), 1)
    assert possible.gather(1, drawn.long()).all()


def test_a_level_s_share_of_the_noise_begins_where_that_before_it_ends():
    likelihood = Categorical(4)
    noise = torch.tensor([0, 0.25, 0.5, 0.75], dtype=torch.float64).view(4, 1, 1, 1)
    assert likelihood.sample(torch.zeros(4, 4, 1, 1), noise, 1).flatten().tolist() == [0, 64, 128, 192]


def test_categorical_refuses_colour():
    with pytest.raises(ValueError, match="LogisticMixture"):
        Categorical().num_parameters(3)


@pytest.mark.parametrize("log_scale", [-7, 0, 60, 69, 86, 90, 103, 150, 200])
def test_a_wide_logistic_is_finite_in_float32_and_the_same_in_float64(log_scale):
    params = torch.tensor([0, 0.3, log_scale]).view(1, 3, 1, 1)
    likelihood, found = LogisticMixture(num_components=1), {}
    for dtype in (torch.float32, torch.float64):
        leaf = params.to(dtype).expand(256, -1, 1, 1).clone().requires_grad_()
        log_prob = likelihood.log_prob(leaf, ALL_LEVELS)
        log_prob.sum().backward()
        found[dtype] = log_prob.detach().double(), leaf.grad.double()
        assert log_prob.isfinite().all()
        assert leaf.grad.isfinite().all()
    for single, double in zip(*found.values(), strict=True):
        torch.testing.assert_close(single, double, rtol=1e-4, atol=1e-4)
    log_prob, grad = found[torch.float64]
    assert log_prob.exp().sum().item() == pytest.approx(1, abs=1e-12)
    if log_scale > 60:  # every value between the ends becomes less likely as the scale grows
        torch.testing.assert_close(grad[1:-1, 2], -torch.ones_like(grad[1:-1, 2]))
        drawn = likelihood.sample(params, torch.zeros(1, 2, 1, 1), channels=1)
        assert drawn.item() == round(1.3 * 127.5)


def test_reported_log_prob_of_a_nearly_certain_pixel_is_not_rounded_up():
    params = torch.randn(4000, 256, 1, 1) - 20 * (torch.arange(256) != 3).view(1, -1, 1, 1)
    x = torch.full((4000, 1, 1, 1), 3, dtype=torch.uint8)
    with torch.no_grad():
        exact = -params[:, :, 0, 0].double().log_softmax(dim=1)[:, 3]
        reported = -Categorical().log_prob(params, x).flatten()
    assert reported.dtype == torch.float32
    assert (reported.double().sum() / exact.sum()).item() == pytest.approx(1, abs=1e-5)
    in_training = -Categorical().log_prob(params.requires_grad_(), x).flatten()
    torch.testing.assert_close(in_training.detach(), reported, rtol=0, atol=1e-5)
