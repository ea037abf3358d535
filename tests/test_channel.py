"""What is sent of h: each channel beside NumPy's arithmetic, and an inverter of what arrives."""

import itertools
import math
from functools import partial

import numpy as np
import pytest
import torch
from dataset_files import loaded
from reads import Reads
from torch import Tensor, nn

from callbacks.results import known_world
from datamodules.finite_worlds import EnumerableDataModule
from inverters import (
    AdditiveNoise,
    Inverter,
    KMeansCodes,
    PixelCNN,
    PrincipalComponents,
    ReluNet,
    UniformQuantiser,
    UnitsKept,
)
from inverters.bottleneck import is_bottleneck, output_of_changed
from inverters.channel import Kept, entropy_bits
from inverters.compressed_file import compressed, decompressed, received
from inverters.generators import ConditionalDensity
from inverters.representation import Representation

SMALL = partial(PixelCNN, num_filters=4, num_layers=1, dropout=0.0)
SHAPES = [(6,), (6, 2, 3)]
EVERY = {
    "quantiser": partial(UniformQuantiser, bits=[4, 1, 2]),
    "codes": partial(KMeansCodes, bits=[1, 3]),
    "noise": partial(AdditiveNoise, sizes=[0.25, 1.0]),
    "units": partial(UnitsKept, shares=[1, 0.3]),
    "components": partial(PrincipalComponents, numbers=[6, 2]),
}


def h_of(shape, num_images=60):
    scale = torch.arange(6.0).view(-1, *[1] * (len(shape) - 1))
    return scale * torch.randn(num_images, *shape).relu()  # the first unit is constant


def fitted(make, shape=(6,), h=None):
    channel = make(shape)
    channel.fit(h_of(shape) if h is None else h)
    return channel


def rows_of(h):
    return h.movedim(1, -1).reshape(-1, 6).double().numpy()


@pytest.mark.parametrize("shape", SHAPES)
def test_a_quantiser_is_numpys_and_its_bits_are_the_counted_entropy(shape):
    h, other = h_of(shape), 2 * h_of(shape)
    channel = fitted(EVERY["quantiser"], shape, h)
    assert channel.rates == (1, 2, 4)
    low, high = rows_of(h).min(0), rows_of(h).max(0)
    for k, bits in enumerate(channel.rates):
        step = (high - low) / (2**bits - 1)
        with np.errstate(invalid="ignore"):
            code = [np.nan_to_num(np.clip(np.round((rows_of(x) - low) / step), 0, 2**bits - 1)) for x in (h, other)]
        np.testing.assert_allclose(rows_of(channel(other, k)), low + code[1] * step, rtol=1e-5, atol=1e-6)
        entropy = sum(entropy_bits(torch.from_numpy(unit).long(), 2**bits) for unit in code[0].T)
        assert channel.sent_bits[k] == pytest.approx(entropy * math.prod(shape[1:]), rel=1e-5)
        assert channel.sent_bits[k] <= channel.nominal_bits[k] == bits * math.prod(shape)


@pytest.mark.parametrize("shape", SHAPES)
def test_at_many_bits_at_all_units_and_at_all_components_h_arrives_as_it_is(shape):
    h = h_of(shape)
    assert torch.allclose(fitted(partial(UniformQuantiser, bits=[16]), shape, h)(h, 0), h, atol=1e-3)
    assert torch.equal(fitted(EVERY["units"], shape, h)(h, 1), h)
    assert torch.allclose(fitted(EVERY["components"], shape, h)(h, 1), h, atol=1e-4)


def test_a_zero_of_relu_stays_zero_and_twice_sent_is_once_sent():
    channel, h = fitted(EVERY["quantiser"]), h_of((6,))
    for k in range(3):
        arrived = channel(h, k)
        assert (arrived[h == 0] == 0).all()
        assert torch.equal(channel(arrived, k), arrived)


@pytest.mark.parametrize("shape", SHAPES)
def test_components_are_those_of_numpys_svd(shape):
    h = h_of(shape)
    rows = rows_of(h) - rows_of(h).mean(0)
    first = np.linalg.svd(rows, full_matrices=False)[2][:2]
    channel = fitted(EVERY["components"], shape, h)
    np.testing.assert_allclose(rows_of(channel(h, 0)), rows_of(h).mean(0) + rows @ first.T @ first, atol=1e-4)
    assert channel.sent_bits.tolist() == [32 * n * math.prod(shape[1:]) for n in (2, 6)]


def test_the_units_that_are_kept_are_those_of_the_largest_variance():
    h = h_of((6,), 5000)
    channel = fitted(EVERY["units"], h=h)
    arrived = channel(h, 0)  # 0.3 of 6 are 2
    assert torch.equal(arrived[:, 4:], h[:, 4:])
    assert torch.allclose(arrived[:, :4], h.mean(0)[:4], atol=1e-5)
    assert channel.sent_bits.tolist() == [64, 192]


def test_k_means_finds_what_trying_all_partitions_finds():
    rows = torch.tensor([[0.0, 0], [1, 0], [0, 1], [5, 5], [6, 5], [9, 0], [9, 1]])
    channel = KMeansCodes((2,), bits=[1])
    channel.fit(rows)
    far = {
        of: sum(float((part - part.mean(0)).square().sum()) for k in (0, 1) if len(part := rows[torch.tensor(of) == k]))
        for of in itertools.product((0, 1), repeat=7)
    }
    assert float((channel(rows, 0) - rows).square().sum()) == pytest.approx(min(far.values()), rel=1e-6)
    assert channel.sent_bits.item() == pytest.approx(entropy_bits(channel.codes(rows, 0), 2))
    assert channel.nominal_bits == (1.0,)
    distance = (rows[:, None] - channel.centroids).square().sum(-1)
    assert torch.equal(channel.codes(rows, 0), distance.argmin(1))


@pytest.mark.parametrize("bits", [2, 4, 8, 10, 12, 14, 16])
def test_the_entropy_of_a_source_is_found_from_4500_codes_of_it(bits):
    torch.manual_seed(0)
    codes = torch.randint(2**bits, (4500,))
    assert entropy_bits(codes, 2**bits) == pytest.approx(bits, rel=0.01)
    with_zeros = torch.where(torch.rand(4500) < 0.5, 0, codes)
    shares = np.full(2**bits, 0.5 / 2**bits)
    shares[0] += 0.5
    assert entropy_bits(with_zeros, 2**bits) == pytest.approx(-(shares * np.log2(shares)).sum(), rel=0.05)
    assert entropy_bits(torch.zeros(4500).long(), 2**bits) == 0


def test_k_means_sees_all_places_of_a_map(monkeypatch):
    """Which even steps through images and places need not: here they would meet the first place alone."""
    monkeypatch.setattr("inverters.channel.MOST_ROWS", 100)
    h = torch.tensor([0.0, 1.0]).expand(100, 1, 3, 2)
    channel = KMeansCodes((1, 3, 2), bits=[1])
    channel.fit(h)
    assert torch.allclose(channel(h, 0), h, atol=1e-6)


def test_noise_has_its_variance_is_that_of_the_image_and_its_bits_are_the_capacity():
    h = h_of((6,), 20_000)
    channel = fitted(EVERY["noise"], h=h)
    assert channel.rates == (1.0, 0.25)  # the most noise first
    for fresh, k in itertools.product((False, True), (0, 1)):
        noise = channel(h, k, fresh) - h
        scale = channel.rates[k] * h.std(0)
        assert torch.allclose(noise.std(0)[1:], scale[1:], rtol=0.05)
        assert (noise[:, 0] == 0).all()  # a constant unit has no deviation
    assert torch.equal(channel(h, 0), channel(h, 0))
    assert torch.allclose(channel(h, 0)[5:9], channel(h[5:9] * (1 + 1e-6), 0), atol=1e-3)  # rounded otherwise
    assert not torch.equal(channel(h, 0, fresh=True), channel(h, 0, fresh=True))
    assert channel.sent_bits[1].item() == pytest.approx(5 * 0.5 * math.log2(17))  # five units vary


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize("shape", SHAPES)
def test_each_image_has_its_own_rate_and_no_other_image_matters(kind, shape):
    h = h_of(shape)
    channel = fitted(EVERY[kind], shape, h)
    number = torch.arange(len(h)) % len(channel.rates)
    arrived = channel(h, number)
    assert arrived.shape == h.shape
    for k in range(len(channel.rates)):
        assert torch.allclose(arrived[number == k], channel(h[number == k], k), atol=1e-5)
    assert (channel.sent_bits.diff() > 0).all()
    bits = torch.tensor(channel.nominal_bits)
    assert (channel.sent_bits <= bits * (1 + 1e-6)).all()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (partial(UniformQuantiser, bits=[]), "bits of UniformQuantiser is []; give one or more rates, each once"),
        (partial(UniformQuantiser, bits=[2, 2]), "give one or more rates, each once"),
        (partial(UniformQuantiser, bits=[2, 0]), "bits has 0; give whole numbers from 1 to 16"),
        (partial(KMeansCodes, bits=[17]), "bits has 17; give whole numbers from 1 to 16"),
        (partial(AdditiveNoise, sizes=[0.0]), "sizes of AdditiveNoise has 0; give numbers above 0"),
        (partial(UnitsKept, shares=[1.5]), "shares of UnitsKept has 1.5; give numbers above 0 and up to 1"),
        (partial(PrincipalComponents, numbers=[7]), "numbers has 7; give whole numbers from 1 to 6"),
    ],
)
def test_what_cannot_be_sent_is_refused_in_a_sentence(make, said):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - compared below
        make((6,))
    assert said in str(caught.value)


def test_more_centroids_than_images_are_refused():
    with pytest.raises(ValueError, match="8 centroids cannot be found among 5 vectors of training images"):
        fitted(partial(KMeansCodes, bits=[3]), h=h_of((6,), 5))


def test_what_is_kept_of_a_stream_is_even_and_no_more_than_asked():
    kept, parts = Kept(most_values=20), torch.arange(100.0).view(50, 2).split(7)
    assert torch.equal(torch.cat(list(kept.passing(parts))), torch.cat(parts))
    rows = torch.cat(kept.rows)
    assert rows.numel() <= 20
    assert len(rows) >= 4
    assert len(rows[:, 0].diff().unique()) == 1


IMAGES = torch.randint(256, (12, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


class Net(nn.Sequential):
    def __init__(self, image_shape, num_classes):
        super().__init__(nn.Flatten(), nn.Linear(64, 6), nn.ReLU(), nn.Linear(6, num_classes))


def inverter_of(channel, layer="2", density=SMALL, network=Net):
    torch.manual_seed(0)
    made = Inverter(layer, (1, 8, 8), 10, network, density, channel=channel)
    made.initialise([IMAGES[:6], IMAGES[6:]], IMAGES)
    return made


@pytest.mark.parametrize("kind", EVERY)
def test_one_rate_is_an_inverter_of_what_arrives_and_without_a_channel_nothing_changes(kind):
    make = {name: values[:1] for name, values in EVERY[kind].keywords.items()}
    sent, plain = inverter_of(partial(EVERY[kind].func, **make)).eval(), inverter_of(None).eval()
    plain.density.load_state_dict(sent.density.state_dict())  # of one shape
    h = sent.representation(IMAGES)
    found = sent.log_prob({"image": IMAGES})
    assert torch.equal(found, plain.log_prob({"image": IMAGES, "h": sent.arrived(h)}))
    assert torch.equal(sent.context_mean, plain.context_mean)


def test_of_several_rates_the_density_is_told_which_and_each_image_draws_its_own_in_training():
    inverter = inverter_of(EVERY["quantiser"])
    h = inverter.representation(IMAGES)
    assert inverter.rate == 2  # the one that tells most
    for k in range(3):
        with inverter.at_rate(k):
            context = inverter.context(IMAGES)
        assert torch.equal(context[:, :6], inverter.standardised(inverter.channel(h, k)))
        assert torch.equal(context[:, 6:], torch.eye(3)[[k] * 12])
    seen = torch.cat([inverter.context_of(h, in_training=True)[:, 6:] for _ in range(50)])
    assert (seen.sum(1) == 1).all()
    assert seen.mean(0).numpy() == pytest.approx([1 / 3] * 3, abs=0.08)
    state = torch.get_rng_state()
    first = inverter.training_step({"image": IMAGES}, 0)["loss"]
    torch.set_rng_state(state)
    assert torch.equal(inverter.training_step({"image": IMAGES}, 0)["loss"], first)  # all of it is of torch's stream


@pytest.mark.parametrize("kind", EVERY)
def test_a_step_of_training_waits_for_no_value_of_what_is_sent(kind):
    inverter = inverter_of(EVERY[kind])
    h = inverter.representation(IMAGES)
    with Reads() as reads:
        inverter.context_of(h, in_training=True)
    assert reads.count == 0


def test_a_map_is_told_its_rate_at_every_place_and_is_trained_on():
    class Maps(nn.Sequential):
        def __init__(self, image_shape, num_classes):
            super().__init__(nn.Conv2d(1, 6, 3, stride=2), nn.Flatten(), nn.Linear(54, num_classes))

    inverter = inverter_of(EVERY["components"], "0", network=Maps)
    assert inverter.context(IMAGES).shape == (12, 8, 3, 3)
    inverter.training_step({"image": IMAGES}, 0)["loss"].backward()
    draws = inverter.eval().draws(IMAGES[:2], [0, 1], 1)
    assert draws.shape == (2, 1, 1, 8, 8)


def test_a_channel_needs_h_and_a_likelihood():
    from test_inverter import Grey

    with pytest.raises(ValueError, match="an unconditional model has no h to send; give"):
        Inverter(None, (1, 8, 8), 10, Net, SMALL, channel=EVERY["quantiser"])
    with pytest.raises(ValueError, match="a Grey has no likelihood, and a rate no nats"):
        Inverter("2", (1, 8, 8), 10, Net, Grey, channel=EVERY["quantiser"])


def test_what_later_layers_are_given_is_what_is_sent():
    network = Representation(Net((1, 8, 8), 10), "2")
    own, scores = network(IMAGES), network.output(IMAGES)
    assert torch.equal(output_of_changed(network, IMAGES, lambda h: h), scores)
    assert is_bottleneck(network, IMAGES)
    doubled = output_of_changed(network, IMAGES, lambda h: 2 * h)
    assert torch.equal(doubled, network.network[3](2 * own))
    assert torch.equal(network.output(IMAGES), scores)  # the network is as it was


def test_tokens_that_are_read_as_a_map_are_given_back_as_tokens():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.patches, self.head = nn.Conv2d(1, 5, 2, stride=2), nn.Linear(80, 3)
            self.norm = nn.LayerNorm(5)

        def forward(self, x):
            tokens = self.norm(self.patches(x).flatten(2).transpose(1, 2))  # [B, 16, 5]
            return self.head(tokens.flatten(1))

    network = Representation(Tokens(), "norm")
    assert network(IMAGES).shape == (12, 5, 4, 4)
    assert torch.equal(output_of_changed(network, IMAGES, lambda h: h), network.output(IMAGES))
    thrice = output_of_changed(network, IMAGES, lambda h: 3 * h)
    bias = network.network.head.bias
    assert torch.allclose(thrice - bias, 3 * (network.output(IMAGES) - bias), atol=1e-5)


@pytest.mark.parametrize("kind", EVERY)
def test_a_file_is_of_one_rate_and_comes_back_given_what_arrives_alone(kind):
    inverter = inverter_of(EVERY[kind]).eval()
    raw = inverter.representation(IMAGES)
    h = received(inverter, raw)
    assert torch.equal(h, inverter.channel(raw, inverter.rate))
    file = compressed(inverter, IMAGES, h)
    assert torch.equal(decompressed(inverter, file, h), IMAGES)
    if not torch.equal(raw, h):
        with pytest.raises(ValueError, match="h is not that with which"):
            decompressed(inverter, file, raw)


def test_a_file_that_was_given_all_of_h_before_there_was_a_channel_in_it_is_refused(monkeypatch):
    inverter = inverter_of(EVERY["quantiser"]).eval()
    h = inverter.representation(IMAGES)
    monkeypatch.setattr("inverters.compressed_file.OF_ARRIVED", 1)
    file = compressed(inverter, IMAGES, h)
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"given all of h, as up to version 0\.12; compress it again"):
        decompressed(inverter, file, h)


def test_threads_change_no_bit_of_a_file_whose_h_is_a_projection():
    class Wide(nn.Sequential):
        def __init__(self, image_shape, num_classes):
            super().__init__(nn.Flatten(), nn.Linear(64, 1024), nn.Linear(1024, num_classes))

    inverter = inverter_of(partial(PrincipalComponents, numbers=[64]), "1", network=Wide).eval()
    raw = inverter.representation(IMAGES)
    h, threads, found = received(inverter, raw), torch.get_num_threads(), []
    for number in (1, 2):
        torch.set_num_threads(number)
        found.append(compressed(inverter, IMAGES, h))
    torch.set_num_threads(threads)
    assert found[0] == found[1]


class Exact(ConditionalDensity):
    """The true p(x | h') of a world: 1 / the number of its images that arrive as this one does."""

    def __init__(self, image_shape, context_shape, world):
        super().__init__()
        self.image_shape, self.world, self.arrived = image_shape, world, {}

    def know(self, inverter):
        for k in range(inverter.num_rates):
            with inverter.at_rate(k):
                rows, counts = inverter.context(self.world).flatten(1).unique(dim=0, return_counts=True)
            self.arrived |= dict(zip(map(tuple, rows.tolist()), counts.tolist(), strict=True))

    def log_prob(self, image: Tensor, context: Tensor) -> Tensor:
        return -torch.tensor([self.arrived[tuple(row)] for row in context.flatten(1).tolist()]).double().log()

    def sample(self, context, generators):
        raise NotImplementedError


def test_the_curve_of_a_world_is_the_one_that_counting_gives():
    """All binary 3x4 images behind ReLU units: I(x; h') is known at every rate, and so is NCE of the true p(x | h')."""
    from evaluations.rates import Measured, curve

    world = EnumerableDataModule().images
    quantiser = partial(UniformQuantiser, bits=[1, 2, 3, 8])
    inverter = Inverter("relu", (1, 4, 4), 1, ReluNet, partial(Exact, world=world), channel=quantiser)
    inverter.initialise(world.split(500), world[:8])
    inverter.density.know(inverter)
    raw = inverter.representation(world).double().numpy()  # [4096, K, 2, 2]
    low, high = (reduced(raw, axis=(0, 2, 3), keepdims=True) for reduced in (np.min, np.max))
    measured = []
    for k, bits in enumerate(inverter.channel.rates):
        with inverter.at_rate(k):
            measured.append(Measured(inverter.log_prob({"image": world}), None, None))
        with np.errstate(invalid="ignore"):
            codes = np.nan_to_num(np.round((raw - low) / (high - low) * (2**bits - 1))).reshape(len(raw), -1)
        counts = np.unique(codes, axis=0, return_counts=True)[1]
        known = math.log(len(world)) - (counts / len(world) * np.log(counts)).sum()  # I(x; h'), nats
        assert math.log(len(world)) + measured[-1].log_prob.mean().item() == pytest.approx(known, abs=1e-9)
        assert known <= inverter.channel.sent_bits[k] * math.log(2)  # no more than is sent
    found = curve(measured, None, None)
    gains = [rate["gain_nats"] for rate in found.rates[1:]]
    assert all(gain >= 0 for gain in gains)
    assert sum(gains) == pytest.approx(found.rates[-1]["nce_nats"] - found.rates[0]["nce_nats"])
    assert found.whole["needed"] is None


def test_a_world_knows_the_truth_of_what_arrives_but_for_noise():
    data = loaded(EnumerableDataModule(num_test=40))
    held_out = data.datasets["test"].images
    quantiser = partial(UniformQuantiser, bits=[1, 2])
    inverter = Inverter("relu", (1, 4, 4), 1, ReluNet, partial(Exact, world=data.images), channel=quantiser)
    inverter.initialise(data.images.split(500), held_out)
    inverter.density.know(inverter)
    truths = []
    for k in (0, 1):
        with inverter.at_rate(k):
            values = {"log_prob": inverter.log_prob({"image": held_out}), "position": torch.arange(40)}
            truths.append(known_world(data, inverter, values))
    assert [truth.excess_nats for truth in truths] == [0, 0]
    assert 0 < truths[0].information_nats < truths[1].information_nats < data.entropy
    noisy = Inverter("relu", (1, 4, 4), 1, ReluNet, partial(Exact, world=data.images), channel=EVERY["noise"])
    assert known_world(data, noisy, values) is None
