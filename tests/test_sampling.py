import itertools

import pytest
import scipy.stats
import torch
from test_pixelcnn import random_pixelcnn

from inverters.incremental import IncrementalPixelCNN, incremental_sample
from inverters.likelihoods import Categorical, LogisticMixture
from inverters.sampling import draw_generator, full_pass_sample

CASES = [
    ((1, 8, 12), (5,), Categorical()),
    ((1, 12, 8), (0,), Categorical(4)),
    ((3, 8, 8), (3, 5, 6), LogisticMixture(3)),
    ((2, 4, 8), (3, 4, 8), LogisticMixture(2)),
]


def generators(n, draw=0):
    return [draw_generator(index, draw, seed=0) for index in range(n)]


@pytest.mark.parametrize(("image_shape", "context_shape", "likelihood"), CASES)
def test_incremental_sampler_draws_what_the_full_pass_draws(image_shape, context_shape, likelihood):
    density = random_pixelcnn(image_shape, context_shape, likelihood, num_layers=2).double().train()
    context = torch.randn(3, *context_shape, dtype=torch.float64)
    incremental = incremental_sample(density, context, generators(3))
    assert density.training
    assert torch.equal(incremental, full_pass_sample(density, context, generators(3)))
    assert len(incremental.unique()) > 1


@pytest.mark.parametrize(("image_shape", "context_shape", "likelihood"), CASES)
def test_incremental_parameters_are_those_of_the_full_pass(image_shape, context_shape, likelihood):
    density = random_pixelcnn(image_shape, context_shape, likelihood, num_layers=2)
    _, height, width = image_shape
    step = 256 // likelihood.num_levels if isinstance(likelihood, Categorical) else 1
    image = step * torch.randint(256 // step, (2, *image_shape), dtype=torch.uint8)
    context = torch.randn(2, *context_shape)
    with torch.inference_mode():
        network = IncrementalPixelCNN(density, context)
        columns = []
        for r in range(height):
            network.row(r, image)
            columns += [network.cell(r, c, image) for c in range(width)]
        expected = density(image, context)
    assert expected.abs().max() > 0.5
    torch.testing.assert_close(torch.stack(columns, dim=2).view(expected.shape), expected, atol=1e-5, rtol=1e-5)


def test_a_draw_does_not_depend_on_its_batch():
    density = random_pixelcnn((1, 8, 8), (5,), Categorical()).double()
    context = torch.randn(4, 5, dtype=torch.float64)
    together = incremental_sample(density, context, generators(4))
    alone = torch.cat([incremental_sample(density, context[i : i + 1], generators(4)[i : i + 1]) for i in range(4)])
    assert torch.equal(together, alone)
    assert not torch.equal(together, incremental_sample(density, context, generators(4, draw=1)))


def test_draws_of_whole_images_have_the_frequencies_of_log_prob():
    density = random_pixelcnn((1, 4, 4), (3,), Categorical(2))
    context = torch.randn(1, 3)
    images = torch.tensor(list(itertools.product((0, 128), repeat=16)), dtype=torch.uint8).view(-1, 1, 4, 4)
    with torch.no_grad():
        mass = density.log_prob(images, context.expand(len(images), 3)).double().exp()
    n = 5000
    draws = incremental_sample(density, context.expand(n, 3), generators(n))
    # By the values of six pixels, from the first to the last, 64 cells.
    places = [0, 3, 6, 9, 12, 15]
    powers = 2 ** torch.arange(6)

    def cell(x):
        return ((x.flatten(1)[:, places] > 0) * powers).sum(1)

    expected = torch.bincount(cell(images), mass, minlength=64) * n
    observed = torch.bincount(cell(draws), minlength=64)
    large = expected > 5
    statistic = ((observed - expected)[large] ** 2 / expected[large]).sum().item()
    assert scipy.stats.chi2.sf(statistic, int(large.sum()) - 1) > 1e-4


def test_noise_is_a_function_of_seed_index_and_draw():
    def first(*key):
        return torch.rand(4, generator=draw_generator(*key)).tolist()

    assert first(3, 1, 0) == first(3, 1, 0)
    assert len({tuple(first(*key)) for key in itertools.product(range(3), repeat=3)}) == 27
