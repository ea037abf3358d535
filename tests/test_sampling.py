import itertools

import numpy as np
import pytest
import scipy.stats
import torch
from test_pixelcnn import random_pixelcnn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from inverters.generators import draw_generator
from inverters.likelihoods import Categorical, LogisticMixture
from inverters.pixelcnn import PixelCNN, incremental
from inverters.pixelcnn.fixed_point import fixed_point_sample
from inverters.pixelcnn.incremental import IncrementalPixelCNN, incremental_sample
from inverters.pixelcnn.network import evaluating
from inverters.pixelcnn.row_graphs import RowGraphs

CASES = [  # image, h, likelihood, what the paper's network has not
    ((1, 8, 12), (5,), Categorical(), {}),
    ((1, 12, 8), (0,), Categorical(4), {}),
    ((3, 8, 8), (3, 5, 6), LogisticMixture(3), {}),
    ((2, 4, 8), (3, 4, 8), LogisticMixture(2), {}),
    ((1, 8, 12), (2, 20, 30), Categorical(8), {}),  # folded
    ((1, 8, 12), (5,), Categorical(4), {"decoder_filters": 3, "decoder_layers": 2}),
    ((3, 8, 8), (3, 5, 6), LogisticMixture(2), {"decoder_filters": 3}),
    ((1, 8, 12), (5,), Categorical(16), {"decoder_filters": 3, "level_features": 3, "palette": True}),
    ((3, 8, 8), (0,), LogisticMixture(2), {"level_features": 3}),
]


def generators(n, draw=0):
    return [draw_generator(index, draw, seed=0) for index in range(n)]


@torch.no_grad()
def full_pass_sample(density, context, generators):
    """One full pass of the network a pixel, in raster order: what the fast samplers must draw."""
    channels, height, width = density.image_shape
    noise = density.noise(context, generators)
    image = torch.zeros(len(context), channels, height, width, dtype=torch.uint8)
    with evaluating(density):
        for row, column in itertools.product(range(height), range(width)):
            here = np.s_[:, :, row : row + 1, column : column + 1]
            image[here] = density.likelihood.sample(density(image, context)[here], noise[here], channels)
    return image


@pytest.mark.parametrize(("image_shape", "context_shape", "likelihood", "more"), CASES)
def test_fast_samplers_draw_what_the_full_pass_draws(image_shape, context_shape, likelihood, more):
    density = random_pixelcnn(image_shape, context_shape, likelihood, num_layers=2, **more).double().train()
    context = torch.randn(3, *context_shape, dtype=torch.float64)
    expected = full_pass_sample(density, context, generators(3))
    assert len(expected.unique()) > 1
    assert torch.equal(incremental_sample(density, context, generators(3)), expected)
    assert torch.equal(fixed_point_sample(density, context, generators(3))[0], expected)
    assert density.training


@pytest.mark.parametrize(("image_shape", "context_shape", "likelihood", "more"), CASES)
def test_in_float32_a_first_difference_is_a_tie(image_shape, context_shape, likelihood, more):
    """Parameters within a rounding error of the full pass's draw the other pixel with the same noise."""
    density = random_pixelcnn(image_shape, context_shape, likelihood, num_filters=8, **more)
    n = 12
    context = torch.randn(n, *context_shape)
    expected, noise = full_pass_sample(density, context, generators(n)), density.noise(context, generators(n))
    alone = torch.cat([incremental_sample(density, context[i : i + 1], generators(n)[i : i + 1]) for i in range(n)])
    together = incremental_sample(density, context, generators(n))
    for drawn in (together, alone, fixed_point_sample(density, context, generators(n))[0]):
        different = (drawn != expected).any(dim=1).flatten(1)  # [n, H * W]
        for i in different.any(dim=1).nonzero()[:, 0].tolist():
            r, c = divmod(int(different[i].int().argmax()), image_shape[2])
            here = np.s_[i : i + 1, :, r : r + 1, c : c + 1]
            params = density(expected[i : i + 1], context[i : i + 1])[:, :, r : r + 1, c : c + 1].detach()
            near = params + 1e-4 * torch.randn(256, *params.shape[1:]).sign()
            draws = likelihood.sample(near, noise[here].expand(256, -1, -1, -1), image_shape[0])
            assert (draws == drawn[here]).flatten(1).all(dim=1).any()


def test_sweeps_tell_how_much_the_context_leaves_open():
    density = random_pixelcnn((1, 8, 8), (3,), Categorical(), scale=1.0)
    context = torch.randn(4, 3)
    _, open_sweeps = fixed_point_sample(density, context, generators(4))
    assert open_sweeps.shape == (4,)
    assert open_sweeps.max() <= 65
    with torch.no_grad():  # one value has all the mass, whatever the other pixels are
        density.head.bias[7] += 1000
    drawn, sweeps = fixed_point_sample(density, context, generators(4))
    assert sweeps.tolist() == [2] * 4  # the second confirms
    assert open_sweeps.min() > 2
    assert (drawn == 7).all()


def test_fixed_point_iteration_ends_where_no_two_passes_agree(monkeypatch):
    density = random_pixelcnn((1, 4, 4), (3,), Categorical())
    passes = itertools.count(1)

    def another_level(image, context):
        return 1e3 * torch.eye(256)[next(passes)].view(1, 256, 1, 1).expand(len(image), -1, 4, 4)

    monkeypatch.setattr(density, "forward", another_level)
    with pytest.raises(ValueError, match=r"not ended after 17 sweeps.*--trainer.deterministic true"):
        fixed_point_sample(density, torch.randn(2, 3), generators(2))


def test_fixed_point_iteration_never_calls_a_compiled_network(monkeypatch):
    """Whose batch shrinks, so that it would be compiled again and again."""
    density = random_pixelcnn((1, 4, 4), (3,), Categorical())
    monkeypatch.setattr(density, "_compiled_call_impl", lambda *_: pytest.fail("called"))
    assert fixed_point_sample(density, torch.randn(2, 3), generators(2))[0].shape == (2, 1, 4, 4)


@pytest.mark.parametrize("sampler", ["incremental", "fixed_point"])
def test_sampler_is_a_key_that_changes_nothing_but_the_way(sampler, caplog):
    caplog.set_level("INFO")
    density = PixelCNN((1, 8, 8), (2,), num_filters=3, num_layers=1, sampler=sampler).double()
    drawn = density.sample(torch.randn(2, 2).double(), generators(2))
    assert ("sweeps" in caplog.text) == (sampler == "fixed_point")
    torch.manual_seed(0)
    again = PixelCNN((1, 8, 8), (2,), num_filters=3, num_layers=1).double()
    assert torch.equal(drawn, full_pass_sample(again, torch.randn(2, 2).double(), generators(2)))


@pytest.mark.parametrize(("image_shape", "context_shape", "likelihood", "more"), CASES)
def test_incremental_sampler_keeps_everything_on_the_contexts_device(image_shape, context_shape, likelihood, more):
    """On the device "meta", which has no memory and refuses to be mixed with the CPU, as a GPU does."""
    density = random_pixelcnn(image_shape, context_shape, likelihood, **more).to("meta")
    drawn = incremental_sample(density, torch.empty(3, *context_shape, device="meta"), generators(3))
    assert drawn.device.type == "meta"
    assert drawn.shape == (3, *image_shape)


class _Graph:
    """A CUDA graph as far as a CPU has one: the same operations, on the same tensors, with results in the same place.

    A capture executes, which on a GPU it does not; so the first replay after it does nothing.
    """

    def __init__(self):
        self.operations, self.replays = [], 0

    def replay(self):
        self.replays += 1
        for function, args, kwargs, results in self.operations if self.replays > 1 else ():
            again = function(*args, **kwargs)
            for kept, new in zip(tree_leaves(results), tree_leaves(again), strict=True):
                if kept.data_ptr() != new.data_ptr():
                    kept.copy_(new)


class _Capture(TorchDispatchMode):
    """`torch.cuda.graph`, which writes down all operations, and refuses those that wait for a GPU or copy to it."""

    waits = {"_local_scalar_dense", "nonzero", "masked_select", "lift_fresh", "is_pinned"}

    def __init__(self, graph, pool, capture_error_mode):
        super().__init__()
        self.graph = graph

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        assert function.overloadpacket.__name__ not in self.waits
        results = function(*args, **kwargs or {})
        self.graph.operations.append((function, args, kwargs or {}, results))
        return results


@pytest.mark.parametrize(("image_shape", "context_shape", "likelihood", "more"), CASES)
def test_graphs_of_rows_draw_what_is_drawn_without_them(image_shape, context_shape, likelihood, more, monkeypatch):
    channels, _, width = image_shape
    density = random_pixelcnn((channels, 12, width), context_shape, likelihood, **more)
    context = torch.randn(3, *context_shape)
    expected, made = incremental_sample(density, context, generators(3)), []

    def on_gpu(draw, device):
        made.append(RowGraphs(draw, torch.device("cuda")))
        return made[0]

    monkeypatch.setattr(incremental, "RowGraphs", on_gpu)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", _Graph)
    monkeypatch.setattr(torch.cuda, "graph", _Capture)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))
    assert torch.equal(incremental_sample(density, context, generators(3)), expected)
    assert {kind: graph.replays for kind, graph in made[0].graphs.items()} == {1: 6, 2: 3, 4: 2}


@pytest.mark.parametrize(("image_shape", "context_shape", "likelihood", "more"), CASES)
def test_incremental_parameters_are_those_of_the_full_pass(image_shape, context_shape, likelihood, more):
    density = random_pixelcnn(image_shape, context_shape, likelihood, num_layers=2, **more)
    _, height, width = image_shape
    step = 256 // likelihood.num_levels if isinstance(likelihood, Categorical) else 1
    image = step * torch.randint(256 // step, (2, *image_shape), dtype=torch.uint8)
    context = torch.randn(2, *context_shape)
    with torch.inference_mode():
        network = IncrementalPixelCNN(density, context)
        columns = []
        for r in range(height):
            network.row(r, image)
            columns += [network.cell(r, c) for c in range(width)]
        expected = density(image, context)
    assert expected.abs().max() > 0.5
    torch.testing.assert_close(torch.stack(columns, dim=2).view(expected.shape), expected, atol=1e-5, rtol=1e-5)


def test_draws_of_whole_images_have_the_frequencies_of_log_prob():
    density = random_pixelcnn((1, 4, 4), (3,), Categorical(2))
    context = torch.randn(1, 3)
    images = torch.cartesian_prod(*[torch.tensor([0, 128], dtype=torch.uint8)] * 16).view(-1, 1, 4, 4)
    with torch.no_grad():
        mass = density.log_prob(images, context.expand(len(images), 3)).double().exp()
    n = 5000
    draws = incremental_sample(density, context.expand(n, 3), generators(n))

    def cell(x):
        """By the values of six pixels, from the first to the last, 64 cells."""
        return ((x.flatten(1)[:, ::3] > 0) * 2 ** torch.arange(6)).sum(1)

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
