"""Where the information is known exactly: the worlds state the truth, and the measured NCE comes out."""

import itertools
import math
from collections import Counter
from functools import partial

import numpy as np
import pytest
import torch
from dataset_files import loaded
from small_runs import result, run_with_results

from cli import main
from datamodules import (
    BitDropDataModule,
    EnumerableDataModule,
    GlyphPositionDataModule,
    MarkovDataModule,
    PairsDataModule,
    ParityDataModule,
    ShuffledDataModule,
    StepsDataModule,
)
from evaluations.known_worlds import compared
from inverters.exact_networks import (
    CoordinatesNet,
    EverySecondPixel,
    GlyphNet,
    MixedBits,
    PermutedLevels,
    PositionNet,
    ReluNet,
    TopBits,
)
from inverters.inverter import Inverter
from inverters.likelihoods import Categorical
from inverters.pixelcnn import PixelCNN
from inverters.representation import Representation


def chain_entropy(flip, length):
    return math.log(2) - (length - 1) * (flip * math.log(flip) + (1 - flip) * math.log(1 - flip))


WORLDS = {  # of each config, the data, the network, its layer, and H(x | h) in nats
    "bit_drop": (BitDropDataModule, TopBits, "bits", 2 * 64 * math.log(2)),
    "identity": (BitDropDataModule, partial(TopBits, bits=8), "bits", 0),
    "constant": (BitDropDataModule, partial(TopBits, bits=0), "bits", 3 * 64 * math.log(2)),
    "shuffled": (ShuffledDataModule, TopBits, "bits", 2 * 64 * math.log(2)),
    "glyph": (GlyphPositionDataModule, GlyphNet, "glyph", math.log(81)),
    "position": (GlyphPositionDataModule, PositionNet, "position", math.log(4)),
    "glyph_position": (GlyphPositionDataModule, GlyphNet, "both", 0),
    "markov": (MarkovDataModule, EverySecondPixel, "pixels", chain_entropy(0.15, 64) - chain_entropy(0.255, 32)),
    "coordinates": (partial(GlyphPositionDataModule, side=28), CoordinatesNet, "coordinates", math.log(4)),
    "pairs": (PairsDataModule, PermutedLevels, "map", 100 * math.log(2) - 20),
    "pairs_vector": (PairsDataModule, PermutedLevels, "vector", 100 * math.log(2) - 20),
    "pairs_independent": (partial(PairsDataModule, information=0), PermutedLevels, "map", 100 * math.log(2)),
    "steps": (StepsDataModule, partial(TopBits, bits=8), "bits", 784 * (chain_entropy(0.05, 2) - math.log(2))),
    "parity": (ParityDataModule, MixedBits, "mixed", 784 * (chain_entropy(0.05, 2) - math.log(2))),
    "enumerable": (EnumerableDataModule, ReluNet, "relu", None),  # by counting
    "enumerable_quantised": (EnumerableDataModule, ReluNet, "quantised", None),
}


def all_images(height, width, levels=2):
    """Of 0, 128 where there are two levels: uint8 [N, 1, height, width]."""
    pixels = torch.cartesian_prod(*[torch.arange(levels, dtype=torch.uint8)] * (height * width))
    return pixels.view(-1, 1, height, width) * (256 // levels)


def collisions(h):
    """How many rows of h equal each row, by comparing bytes."""
    rows = [row.flatten().numpy().tobytes() for row in h + 0.0]  # without the sign of a zero
    count = Counter(rows)
    return torch.tensor([count[row] for row in rows], dtype=torch.float64)


def test_truth_passes_and_a_leak_and_a_weak_model_fail():
    exact = -torch.rand(1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    noise = torch.randn(1000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert compared(exact, exact + 0.01 * (noise - noise.mean()), entropy=10.0).passes
    leak, weak = compared(exact, exact + 0.05, 10.0), compared(exact, exact - 0.21, 10.0)
    assert not leak.passes
    assert not weak.passes
    assert weak.excess_nats == pytest.approx(0.21)
    assert compared(exact, exact - 0.19, 10.0).passes


@pytest.mark.parametrize("errors", [3.9, 4.1])
def test_a_leak_is_more_than_four_standard_errors(errors):
    noise = torch.randn(100, dtype=torch.float64)
    exact = -torch.rand(100, dtype=torch.float64)
    gap = (noise - noise.mean()) / noise.std() * 10 - errors  # 10 / sqrt(100) is one standard error
    assert compared(exact, exact - gap, entropy=10.0).passes == (errors < 4)


def test_standard_error_may_be_zero():
    constant = torch.full((5,), -3.0)
    found = compared(constant, constant, 10.0)
    assert (found.excess_nats, found.excess_nats_se, found.passes) == (0.0, 0.0, True)


@pytest.mark.parametrize("name", WORLDS)
def test_mean_exact_log_prob_is_minus_the_conditional_entropy(name):
    world, network, layer, conditional_entropy = WORLDS[name]
    data = loaded(world(num_test=2000))
    test, encode = data.datasets["test"], Representation(network(data.image_shape, 1), layer)
    exact = data.exact_log_prob(test.images, encode, test.originals)
    if not data.must_fail:
        error = 4 * exact.std() / math.sqrt(2000) + 1e-9
        assert abs(data.entropy + exact.mean() - data.exact_information(encode)) <= error
    assert exact.dtype == torch.float64
    assert -exact.mean() <= data.entropy + 1e-9
    if conditional_entropy is not None:
        assert abs(exact.mean() + conditional_entropy) <= 4 * exact.std() / math.sqrt(2000) + 1e-9
    assert data.must_fail == (name == "shuffled")


@pytest.mark.parametrize("name", WORLDS)
def test_training_images_are_a_function_of_seed_and_position(name):
    one, two, other = (loaded(WORLDS[name][0](num_test=10, seed=seed)).datasets for seed in (0, 0, 1))
    train = one["train"]
    assert torch.equal(train.__getitems__([5, 6])["image"], two["train"].__getitems__([6, 5])["image"].flip(0))
    assert not torch.equal(train.first(50)["image"], other["train"].first(50)["image"])
    assert not torch.equal(train.first(10)["image"], one["test"].images)


def pixel_sum(image):
    return image.flatten(1).sum(dim=1, keepdim=True)


def levels_below_a_threshold_of_their_own(image):
    return torch.stack((image > torch.tensor([[0, 60], [130, 250]]), image > 200), dim=1).squeeze(2).float()


@pytest.mark.parametrize("encode", [
    *(Representation(TopBits((1, 2, 2), 1, bits), "bits") for bits in (0, 1, 2, 3, 8)),
    Representation(TopBits((1, 2, 2), 1), None),  # of an unconditional model
    levels_below_a_threshold_of_their_own,
])  # fmt: skip
@pytest.mark.parametrize("world", [BitDropDataModule, ShuffledDataModule])
def test_bit_drop_counts_the_images_with_the_same_h(world, encode):
    data, image = world(side=2), all_images(2, 2, levels=8)
    torch.testing.assert_close(data.exact_log_prob(image, encode), -collisions(encode(image)).log())
    assert data.entropy == pytest.approx(math.log(len(image)))


@pytest.mark.parametrize("encode", [
    pixel_sum, lambda x: x.roll(1, dims=3), lambda x: x - x.float().mean(dim=(1, 2, 3), keepdim=True),
    lambda x: x.flatten(1), lambda x: x * (x[:, :, :1, :1] < 224),
])  # fmt: skip
def test_bit_drop_does_not_know_the_truth_where_pixels_of_h_are_of_several(encode):
    data = loaded(BitDropDataModule(side=4))
    with pytest.raises(ValueError, match="of bit_drop is known only where each pixel of h is a function of the same"):
        data.exact_log_prob(data.datasets["test"].images, encode)


def only(*pixels):
    return lambda image: image.flatten(1)[:, list(pixels)]


@pytest.mark.parametrize(("encode", "kept"), [
    (Representation(EverySecondPixel((1, 2, 2), 1), "pixels"), (0, 2)),
    (Representation(TopBits((1, 2, 2), 1, 8), "bits"), (0, 1, 2, 3)),
    (Representation(TopBits((1, 2, 2), 1, 0), "bits"), ()), (Representation(TopBits((1, 2, 2), 1), None), ()),
    (only(3, 0), (0, 3)), (only(1), (1,)), (only(0, 2, 3), (0, 2, 3)),
    (lambda x: torch.stack((x[:, 0, 0, 0] ^ x[:, 0, 1, 0], x[:, 0, 0, 0]), dim=1), (0, 2)),  # as much as the two
])  # fmt: skip
@pytest.mark.parametrize("flip", [0.15, 0.6])
def test_markov_bridges_agree_with_enumeration_of_all_chains(encode, kept, flip):
    data, states = MarkovDataModule(side=2, flip=flip), list(itertools.product((0, 1), repeat=4))
    p = {s: 0.5 * math.prod(flip if a != b else 1 - flip for a, b in itertools.pairwise(s)) for s in states}
    p_kept = Counter()
    for s in states:
        p_kept[tuple(s[i] for i in kept)] += p[s]
    exact = torch.tensor([math.log(p[s] / p_kept[tuple(s[i] for i in kept)]) for s in states], dtype=torch.float64)
    torch.testing.assert_close(data.exact_log_prob(all_images(2, 2), encode), exact)
    assert data.entropy == pytest.approx(-sum(q * math.log(q) for q in p.values()))


@pytest.mark.parametrize("encode", [
    pixel_sum, lambda x: x[..., 0] & x[..., 1], lambda x: x[..., 0] ^ x[..., 1],
    lambda x: x[:, :, 0] * (x[:, :, 1] > 0),
])  # fmt: skip
@pytest.mark.parametrize("num_images", [2, 16])
def test_markov_does_not_know_the_truth_where_h_mixes_pixels(encode, num_images):
    with pytest.raises(ValueError, match="of markov is known only where h tells some of the pixels"):
        MarkovDataModule(side=2).exact_log_prob(all_images(2, 2)[:num_images], encode)


def test_markov_images_flip_as_often_as_they_say():
    chain = loaded(MarkovDataModule(num_test=4000)).datasets["test"].images.flatten(1)
    assert chain.unique().tolist() == [0, 128]
    assert (chain[:, 1:] != chain[:, :-1]).double().mean().item() == pytest.approx(0.15, abs=0.003)
    assert (chain[:, 0] > 0).double().mean().item() == pytest.approx(0.5, abs=0.04)


def test_every_second_pixel_depends_on_all_kept_pixels_and_on_no_lost_one():
    image = all_images(2, 4)
    h = Representation(EverySecondPixel((1, 2, 4), 1), "pixels")(image)
    kept = image.flatten(1)[:, ::2]
    assert len(torch.cat((h.flatten(1), kept), dim=1).unique(dim=0)) == len(kept.unique(dim=0)) == 16
    assert len(h.flatten(1).unique(dim=0)) == 16


def test_glyph_and_position_of_each_of_the_324_images_are_found():
    data = GlyphPositionDataModule()
    assert data.images.shape == (324, 1, 12, 12)
    glyph = Representation(GlyphNet((1, 12, 12), 1), "glyph")(data.images)
    place = Representation(PositionNet((1, 12, 12), 1), "position")(data.images)
    assert glyph.sum(1).unique().tolist() == place.sum((1, 2, 3)).unique().tolist() == [1.0]
    assert torch.equal(glyph.argmax(1), torch.arange(4).repeat_interleave(81))
    corners = [12 * row + column for row in range(9) for column in range(9)]
    assert place.flatten(1).argmax(1).tolist() == 4 * corners


@pytest.mark.parametrize(("network", "layer", "num_alike"), [
    (GlyphNet, "glyph", 25), (GlyphNet, "both", 1), (PositionNet, "both", 1), (PositionNet, "position", 4),
    (GlyphNet, None, 100),
])  # fmt: skip
def test_glyph_worlds_count_the_images_with_the_same_h(network, layer, num_alike):
    data = GlyphPositionDataModule(side=8)
    encode = Representation(network((1, 8, 8), 1), layer)
    assert collisions(encode(data.images)).unique().tolist() == [num_alike]
    some = data.images[[70, 3, 70]]
    torch.testing.assert_close(data.exact_log_prob(some, encode), torch.full((3,), -math.log(num_alike)).double())
    assert data.entropy == pytest.approx(math.log(4 * 25))


def test_glyphs_that_cannot_be_told_apart_are_refused():
    with pytest.raises(ValueError, match="the same image"):
        GlyphPositionDataModule(glyphs=("1000", "0001"))


@pytest.mark.parametrize("encode", [
    lambda x: pixel_sum(x.long()),
    *(Representation(ReluNet((1, 4, 4), 1, num_units=4, seed=s), la) for s in (1, 2) for la in ("relu", "quantised")),
])  # fmt: skip
def test_enumerable_world_counts_the_collisions_that_an_inverter_will_see(encode):
    data = EnumerableDataModule()
    assert len(data.images.unique(dim=0)) == 4096
    assert not data.images[:, :, 3].any()
    order = torch.randperm(4096, generator=torch.Generator().manual_seed(0))
    h = torch.cat([encode(data.images[part]) for part in order.split(37)])  # other batches, other order
    torch.testing.assert_close(data.exact_log_prob(data.images[order[:500]], encode), -collisions(h)[:500].log())


def test_relu_networks_sums_are_exact_and_its_quantised_layer_has_2_to_the_b_levels():
    network, image = ReluNet((1, 4, 4), 1, bits=2), EnumerableDataModule().images
    assert Representation(network, "quantised")(image).unique().tolist() == [0.0, 0.5, 1.0, 1.5]
    single = network.relu(image.float() / 255)
    assert len(single.unique()) > 20
    assert torch.equal(single.double(), network.double().relu((image.float() / 255).double()))


def test_h_is_that_of_another_image_in_the_shuffled_test_only():
    data = loaded(ShuffledDataModule(num_test=5))
    train, val, test = (dataset.__getitems__([3, 4]) for dataset in data.datasets.values())
    assert "context_image" not in train | val
    assert torch.equal(test["context_image"], data.datasets["test"].images[[4, 0]])


def trained(data: BitDropDataModule, bits: int, num_steps: int) -> Inverter:
    density = partial(PixelCNN, likelihood=Categorical(8), num_filters=16, num_layers=1, dropout=0.0)
    network = partial(TopBits, bits=bits if bits < 3 else 8)  # 8 is the identity
    inverter = Inverter("bits", data.image_shape, 1, network, density, lr=3e-3, lr_decay=0.998)
    draw = data.datasets["train"].__getitems__
    inverter.initialise([draw(range(1000))["image"]], draw(range(64))["image"])
    configured = inverter.configure_optimizers()
    for step in range(num_steps):
        configured["optimizer"].zero_grad()
        inverter.training_step(draw(range(64 * step, 64 * step + 64)), step)["loss"].backward()
        configured["optimizer"].step()
        configured["lr_scheduler"]["scheduler"].step()
    return inverter.eval()


@pytest.mark.parametrize(("bits", "num_steps"), [(1, 150), (3, 250), (0, 150)])  # bit drop, identity, constant
def test_measured_information_is_the_known_one(bits, num_steps):
    data = loaded(BitDropDataModule())
    inverter, image = trained(data, bits, num_steps), data.datasets["test"].images
    exact = data.exact_log_prob(image, inverter.representation)
    assert compared(exact, inverter.log_prob_in_parts({"image": image}), data.entropy).passes
    if bits == 1:  # the negative control: with the h of another image nothing is known, and the model is misled
        log_prob = inverter.log_prob_in_parts(loaded(ShuffledDataModule()).datasets["test"].first(1000))
        found = compared(exact, log_prob, data.entropy)
        assert not found.passes
        assert -log_prob.mean() >= data.entropy


@pytest.mark.slow
@pytest.mark.parametrize("name", WORLDS)
def test_config_of_a_world_passes_and_that_of_the_negative_control_fails(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    main(["fit", "--config", f"world_{name}.yaml"])
    row = result(f"world_{name}")
    assert row["world"]["passes"] == (name != "shuffled")
    assert np.load(run_with_results(f"world_{name}") / "log_prob.npy").shape == (1000,)
