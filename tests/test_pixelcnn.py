import plain_pixelcnn
import pytest
import scipy.stats
import torch
from torch.nn.utils.parametrize import is_parametrized

from inverters.likelihoods import Categorical, LogisticMixture
from inverters.mse_decoder import MSEDecoder
from inverters.pixelcnn import PixelCNN
from inverters.pixelcnn import concat_elu as activation
from inverters.pixelcnn.concat_elu import concat_elu, padded_concat_elu
from inverters.pixelcnn.context import folded
from inverters.pixelcnn.layers import weights_at_once

CONTEXTS = [(5,), (3, 5, 6), (0,), (2, 20, 9)]  # a vector, a map that must be resized, unconditional, folded
WAYS = [  # of h, and what the paper's network has not
    *((shape, {}) for shape in CONTEXTS),
    *((shape, {"decoder_filters": 3}) for shape in [*CONTEXTS, (3, 8, 8)]),
    ((5,), {"decoder_filters": 3, "decoder_layers": 2, "level_features": 2, "palette": True}),
]


def random_pixelcnn(image_shape, context_shape, likelihood, num_filters=4, num_layers=1, scale=0.6, **more):
    """Every parameter random, biases above all: with zero biases a mistake in the shifts does not show."""
    if not isinstance(likelihood, Categorical):
        more = more | {"palette": False}
    density = PixelCNN(image_shape, context_shape, likelihood, num_filters, num_layers, **more).eval()
    with torch.no_grad():
        for parameter in density.parameters():
            parameter.add_(scale * torch.randn_like(parameter))
    return density


@pytest.mark.parametrize(("context_shape", "more"), WAYS)
def test_masses_of_all_images_of_a_tiny_world_sum_to_one(context_shape, more):
    density = random_pixelcnn((1, 4, 4), context_shape, Categorical(2), num_filters=2, **more)
    images = torch.cartesian_prod(*[torch.tensor([0, 128], dtype=torch.uint8)] * 16).view(-1, 1, 4, 4)
    context = torch.randn(1, *context_shape)
    with torch.no_grad():
        log_prob = torch.cat([density.log_prob(x, context.expand(len(x), *context_shape)) for x in images.split(8192)])
    assert log_prob.double().exp().sum().item() == pytest.approx(1, abs=1e-5)
    assert log_prob.std() > 0.1


@pytest.mark.parametrize(("context_shape", "more"), WAYS)
@pytest.mark.parametrize("likelihood", [Categorical(2), LogisticMixture(1)])
def test_pixel_ignores_itself_and_later_pixels(context_shape, more, likelihood):
    channels = 1 if isinstance(likelihood, Categorical) else 3
    density = random_pixelcnn((channels, 8, 8), context_shape, likelihood, num_layers=2, **more).double()
    context = torch.randn(1, *context_shape, dtype=torch.float64)
    x = torch.randn(1, channels * (1 + more.get("level_features", 0)), 8, 8, dtype=torch.float64)

    def summed_features(x):
        weights = torch.linspace(1, 2, 4, dtype=torch.float64)
        return (density.features_of(x, context) * weights[:, None, None]).sum(dim=(0, 1)).flatten()  # [64]

    jacobian = torch.autograd.functional.jacobian(summed_features, x)  # [64, 1, I, 8, 8]
    influence = jacobian.abs().sum(dim=(1, 2)).flatten(1)  # [64 of parameters, 64 of pixels]
    assert torch.equal(influence.triu(), torch.zeros(64, 64, dtype=torch.float64))
    before = torch.ones(64, 64).tril(-1).bool()
    assert (influence[before] > 0).double().mean() > 0.95


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 1e-5)])
@pytest.mark.parametrize(("context_shape", "more"), WAYS)
@pytest.mark.parametrize("likelihood", [Categorical(8), LogisticMixture(2)])
def test_log_prob_and_gradients_are_those_of_the_plain_formulation(dtype, tolerance, context_shape, more, likelihood):
    channels = 1 if isinstance(likelihood, Categorical) else 3
    density = random_pixelcnn((channels, 12, 8), context_shape, likelihood, num_layers=2, scale=0.2, **more).to(dtype)
    image = 32 * torch.randint(8, (3, channels, 12, 8), dtype=torch.uint8)
    context = torch.randn(3, *context_shape, dtype=dtype)
    parameters = {name: value for name, value in density.named_parameters() if value.numel()}
    exact = {name: value.detach().double().requires_grad_() for name, value in density.named_parameters()}
    ours = density.log_prob(image, context)
    plain = plain_pixelcnn.log_prob(exact, image, context.double(), likelihood, num_layers=2)
    torch.testing.assert_close(ours.double(), plain, rtol=tolerance, atol=0)
    gradients = torch.autograd.grad(ours.sum(), list(parameters.values()))
    expected = torch.autograd.grad(plain.sum(), [exact[name] for name in parameters])
    for name, a, b in zip(parameters, gradients, expected, strict=True):
        assert (a - b).norm() <= (10 if more else 1) * tolerance * b.norm(), name


@pytest.mark.parametrize("written", [activation._written_for_caches, activation._written_for_launches])
@pytest.mark.parametrize("right", [0, 1])
@pytest.mark.parametrize("dropout", [0, 0.3])
def test_padded_concat_elu_is_concat_elu_in_a_border_of_zeros(monkeypatch, written, right, dropout):
    monkeypatch.setattr(activation, "_written_for_caches", written)
    x = torch.randn(2, 3, 5, 4, dtype=torch.float64, requires_grad=True)

    def padded(x):
        torch.manual_seed(1)
        return padded_concat_elu(x, right, dropout)

    out = padded(x)
    assert torch.autograd.gradcheck(padded, x)
    inside = out[:, :, 1:, 1:5]
    assert out.shape == (2, 6, 6, 5 + right)
    assert out.count_nonzero() == inside.count_nonzero()
    kept = inside != 0
    assert torch.allclose(inside[kept], concat_elu(x)[kept] / (1 - dropout), rtol=1e-4)
    assert kept.all() != bool(dropout)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_concat_elu_in_half_precision_is_torch_s_elu(dtype):
    """Where each step of it is rounded, the negative half is 6 % off."""
    x = torch.randn(2, 3, 5, 4).to(dtype).requires_grad_()
    both = torch.cat((x, -x), dim=1)
    out, expected = padded_concat_elu(x, right=0)[:, :, 1:, 1:], torch.nn.functional.elu(both)
    assert torch.equal(out, expected)
    grad = torch.randn_like(out)
    ours, exact = (torch.autograd.grad(value, x, grad)[0].double() for value in (out, expected))
    assert (ours - exact).norm() < 0.01 * exact.norm()


@pytest.mark.parametrize("written", [activation._written_for_caches, activation._written_for_launches])
def test_dropout_drops_elements_independently_at_its_rate(monkeypatch, written):
    monkeypatch.setattr(activation, "_written_for_caches", written)
    out = padded_concat_elu(torch.ones(1, 1000, 10, 20), right=0, dropout=0.2)[0, :, 1:, 1:]
    dropped = (out == 0).double()
    assert dropped.mean().item() == pytest.approx(0.2, abs=4 * (0.16 / 400_000) ** 0.5)
    # Of neighbours in memory, which share random bits, and of the two halves.
    for a, b in ((dropped[..., 1:], dropped[..., :-1]), (dropped[:1000], dropped[1000:])):
        assert (a * b).mean().item() == pytest.approx(0.04, abs=4 * (0.04 * 0.96 / 190_000) ** 0.5)
    assert out.max().item() == pytest.approx(1.25, rel=1e-4)
    assert out[:1000].mean().item() == pytest.approx(1, abs=4 * (0.25 / 200_000) ** 0.5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_that_are_made_at_once_are_those_of_each_layer(dtype):
    density = random_pixelcnn((1, 8, 8), (5,), Categorical(2))
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype != torch.float32), weights_at_once(density.body):
        for layer in density.body:
            weight, bias = layer.ready
            assert weight.dtype == bias.dtype == dtype
            torch.testing.assert_close(weight, layer.weight.to(dtype))
            assert torch.equal(bias, layer.bias.to(dtype))
    assert {layer.ready for layer in density.body} == {None}
    assert len(density.body) == sum(map(is_parametrized, density.modules())) - 1  # all but the head


@pytest.mark.parametrize("level", [1, 77, 128, 200, 254])
def test_small_scales_lose_nothing_under_bfloat16(level):
    """Parameters in bfloat16 move a mean by up to a quarter of a level: 42 nats of 3072 at log-scale -7."""
    density = random_pixelcnn((3, 32, 32), (0,), LogisticMixture(1))
    with torch.no_grad():
        density.head.parametrizations.weight.original0.zero_()  # the parameters are the bias
        density.head.bias.zero_()
        density.head.bias[1:4], density.head.bias[4:7] = level / 127.5 - 1, -7
    image, context = torch.full((1, 3, 32, 32), level, dtype=torch.uint8), torch.empty(1, 0)
    exact = density.log_prob(image, context)
    with torch.autocast("cpu", torch.bfloat16):
        assert density(image, context).dtype == torch.float32
        assert abs(density.log_prob(image, context) - exact) < 1


def test_initialisation_gives_the_promised_statistics():
    density = PixelCNN((1, 16, 16), (5,), Categorical(), num_filters=6, num_layers=1, dropout=0.5)
    image, context = torch.randint(256, (32, 1, 16, 16), dtype=torch.uint8), torch.randn(32, 5)
    density.initialise(image, context)
    assert density.training
    outputs = {}
    for layer in filter(is_parametrized, density.modules()):
        layer.register_forward_hook(lambda layer, _, output: outputs.__setitem__(layer, output))
    density.eval()(image, context)
    assert len(outputs) == 3 + 16 * 3 - 3 + 8 + 1  # first; 16 residual layers, 3 without a skip; down and up; head
    for layer, output in outputs.items():
        mean, std = output.mean(dim=(0, 2, 3)), output.std(dim=(0, 2, 3), correction=0)
        torch.testing.assert_close(mean, torch.zeros_like(mean), atol=2e-3, rtol=0)
        torch.testing.assert_close(std, torch.full_like(std, layer.init_scale), atol=0, rtol=2e-3)


def test_block_sizes_are_those_of_the_original():
    density = PixelCNN((1, 8, 8), (0,), num_filters=2, num_layers=3)
    assert [len(block) for block in (*density.encoder, *density.decoder)] == [3, 3, 3, 3, 4, 4]


def test_every_value_of_a_map_larger_than_the_image_reaches_a_pixel():
    density = random_pixelcnn((1, 8, 12), (2, 20, 30), Categorical()).double()
    context = torch.randn(2, 2, 20, 30, dtype=torch.float64, requires_grad=True)
    density.log_prob(torch.randint(256, (2, 1, 8, 12), dtype=torch.uint8), context).sum().backward()
    assert (context.grad != 0).all()


@pytest.mark.parametrize("fold", [(1, 1), (2, 2), (3, 1), (2, 5)])
def test_folding_is_lossless_and_is_torch_s_where_that_has_it(fold):
    context = torch.randn(2, 3, 11, 10)
    cells = folded(context, fold)
    back = cells.unflatten(1, (3, *fold)).permute(0, 1, 4, 2, 5, 3).flatten(4).flatten(2, 3)
    assert torch.equal(back[:, :, :11, :10], context)
    assert back.count_nonzero() == context.count_nonzero()
    if fold == (2, 2):
        assert torch.equal(
            cells, torch.nn.functional.pixel_unshuffle(torch.nn.functional.pad(context, (0, 0, 0, 1)), 2)
        )


@pytest.mark.parametrize("shape", [(), (3, 4), (2, 3, 4, 5)])
def test_what_is_neither_a_vector_nor_a_map_is_refused(shape):
    with pytest.raises(ValueError, match="PixelCNN takes a vector or a map KxHxW as h"):
        PixelCNN((1, 8, 8), shape)


@pytest.mark.parametrize(
    "image",
    [torch.rand(1, 1, 8, 8), torch.zeros(1, 1, 8, 12, dtype=torch.uint8), torch.zeros(1, 8, 8, dtype=torch.uint8)],
)
def test_log_prob_is_of_uint8_images_of_its_shape(image):
    for density in (PixelCNN((1, 8, 8), (0,), num_filters=2, num_layers=1), MSEDecoder((1, 8, 8), (3,), filters=(4,))):
        context = torch.zeros(1, 0 if isinstance(density, PixelCNN) else 3)
        for asked in (density.log_prob, density.loss):
            with pytest.raises(ValueError, match="images are"):
                asked(image, context)


def test_corruption_is_of_training_and_of_what_goes_in():
    density = random_pixelcnn((3, 8, 8), (5,), LogisticMixture(2), dropout=0, corruption=0.8)
    plain = random_pixelcnn((3, 8, 8), (5,), LogisticMixture(2), dropout=0)
    plain.load_state_dict(density.state_dict())
    image, context = torch.randint(256, (4, 3, 8, 8), dtype=torch.uint8), torch.randn(4, 5)
    assert torch.equal(density.loss(image, context), -plain.log_prob(image, context))  # in evaluation
    assert plain.by_likelihood
    assert not density.by_likelihood  # a loss under corruption says nothing of log p
    density.train()
    assert not torch.allclose(density.loss(image, context), plain.loss(image, context))
    with torch.no_grad():  # a network that does not see pixels is asked for the true ones
        for each in (density, plain):
            for first in (each.first_vertical, each.first_above, each.first_left):
                first.parametrizations.weight.original0.zero_()
    assert torch.equal(density.loss(image, context), -plain.log_prob(image, context))


def test_corruption_replaces_whole_pixels_up_to_its_share():
    density = PixelCNN((3, 32, 32), (0,), LogisticMixture(1), 4, 1, corruption=0.8)
    image = torch.full((400, 3, 32, 32), 77, dtype=torch.uint8)
    corrupted = density._corrupted(image)
    replaced = (corrupted != image).any(dim=1).flatten(1)
    shares = replaced.float().mean(dim=1)
    assert shares.mean().item() == pytest.approx(0.4, abs=0.04)
    assert scipy.stats.kstest(shares.numpy(), scipy.stats.uniform(0, 0.8).cdf).pvalue > 1e-3
    values = corrupted.movedim(1, -1).flatten(1, 2)[replaced]
    assert [(values == level).float().mean().item() for level in (0, 255)] == pytest.approx([0.25] * 2, abs=0.01)


def test_corruption_stays_on_the_levels_of_the_likelihood():
    density = PixelCNN((1, 8, 8), (0,), Categorical(4), 4, 1, corruption=1.0)
    assert set(density._corrupted(torch.zeros(50, 1, 8, 8, dtype=torch.uint8)).unique().tolist()) == {0, 64, 128, 192}


def test_a_decoder_that_would_not_fit_is_refused_before_it_is_made(monkeypatch):
    monkeypatch.setattr("inverters.pixelcnn.network.free_memory", lambda: 10**6)
    small = {"num_filters": 1, "num_layers": 1}
    PixelCNN((1, 64, 64), (1000,), **small)
    PixelCNN((1, 256, 256), (0,), decoder_filters=64, **small)  # which has none
    with pytest.raises(
        ValueError, match=r"takes 47\.1 MB.*give a smaller --model.density.num_filters or decoder_filters"
    ):
        PixelCNN((1, 64, 64), (1000,), decoder_filters=32, **small)
    with pytest.raises(ValueError, match=r"give a smaller --model.density.num_filters or decoder_filters"):
        PixelCNN((1, 64, 64), (1000, 2, 2), decoder_filters=32, **small)
    PixelCNN((1, 8, 8), (5,), decoder_filters=8, decoder_layers=12, **small)
    with pytest.raises(ValueError, match=r"takes 1\.0 MB.*density.num_filters or decoder_filters"):
        PixelCNN((1, 8, 8), (5,), decoder_filters=8, decoder_layers=13, **small)


@pytest.mark.parametrize(("context_shape", "filters"), [((5,), 0), ((3, 4, 4), 2), ((0,), 2)])
def test_layers_of_a_vector_s_features_are_refused_where_there_is_no_decoder_or_no_vector(context_shape, filters):
    with pytest.raises(ValueError, match=r"^decoder_layers 2 are of .* give 1, or of a vector decoder_filters$"):
        PixelCNN((1, 8, 8), context_shape, decoder_filters=filters, decoder_layers=2)


def test_only_a_softmax_has_a_palette():
    with pytest.raises(ValueError, match=r"LogisticMixture has none; give --model.density.palette false"):
        PixelCNN((3, 8, 8), (0,), LogisticMixture(), palette=True)


def test_a_palette_changes_nothing_until_it_is_trained():
    images = torch.randint(256, (2, 1, 8, 8), dtype=torch.uint8)
    values = []
    for palette in (False, True):
        torch.manual_seed(0)
        density = PixelCNN((1, 8, 8), (0,), num_filters=4, num_layers=1, palette=palette).eval()
        values.append(density.log_prob(images, torch.zeros(2, 0)))
    assert torch.equal(*values)
    values[1].sum().backward()
    assert density.palette.bias.grad != 0
