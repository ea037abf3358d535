"""Where the information is known exactly: the worlds state the truth, and the measured NCE comes out."""

import itertools
import json
import math
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from cli import main
from datamodules.finite_worlds import EnumerableDataModule, GlyphPositionDataModule
from datamodules.worlds import BitDropDataModule, MarkovDataModule, ShuffledDataModule
from evaluations.known_worlds import score
from inverters.exact_networks import EverySecondPixel, GlyphNet, PositionNet, ReluNet, TopBits
from inverters.inverter import Inverter
from inverters.likelihoods import Categorical
from inverters.pixelcnn import PixelCNN
from inverters.representation import Representation

WORLDS = {
    "bit_drop": partial(BitDropDataModule, kept_bits=1),
    "identity": partial(BitDropDataModule, kept_bits=3),
    "constant": partial(BitDropDataModule, kept_bits=0),
    "shuffled": ShuffledDataModule,
    "glyph": partial(GlyphPositionDataModule, "glyph"),
    "position": partial(GlyphPositionDataModule, "position"),
    "glyph_position": partial(GlyphPositionDataModule, "both"),
    "markov": MarkovDataModule,
    "enumerable": partial(EnumerableDataModule, ReluNet, "relu"),
    "enumerable_quantised": partial(EnumerableDataModule, ReluNet, "quantised"),
}


def binary_images(num_pixels):
    return list(itertools.product((0, 1), repeat=num_pixels))


def collisions(h):
    """How many rows of h equal each row, by comparing bytes."""
    rows = [row.flatten().numpy().tobytes() for row in h]
    count = Counter(rows)
    return torch.tensor([count[row] for row in rows], dtype=torch.float64)


def test_truth_passes_and_a_leak_and_a_weak_model_fail():
    exact = -torch.rand(1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    noise = torch.randn(1000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert score(exact, exact + 0.01 * (noise - noise.mean()), entropy=10.0).passes
    leak, weak = score(exact, exact + 0.05, 10.0), score(exact, exact - 0.21, 10.0)
    assert not leak.passes
    assert not weak.passes
    assert weak.excess == pytest.approx(0.21)
    assert score(exact, exact - 0.19, 10.0).passes


@pytest.mark.parametrize("errors", [3.9, 4.1])
def test_a_leak_is_more_than_four_standard_errors(errors):
    noise = torch.randn(100, dtype=torch.float64)
    exact = -torch.rand(100, dtype=torch.float64)
    gap = (noise - noise.mean()) / noise.std() * 10 - errors  # 10 / sqrt(100) is one standard error
    assert score(exact, exact - gap, entropy=10.0).passes == (errors < 4)


def test_standard_error_is_that_of_the_mean_and_may_be_zero():
    found = score(torch.zeros(100), torch.tensor([1.0, -1.0] * 50), 1.0)
    assert found.standard_error == pytest.approx(math.sqrt(100 / 99) / 10)
    constant = torch.full((5,), -3.0)
    assert score(constant, constant, 10.0) == (0.0, 0.0, True)


@pytest.mark.parametrize("name", WORLDS)
def test_mean_exact_log_prob_is_minus_the_conditional_entropy(name):
    data = WORLDS[name](num_test=2000)
    data.setup("fit")
    exact = data.exact_log_prob(data.datasets["test"].images)
    assert exact.dtype == torch.float64
    error = exact.std().item() / math.sqrt(2000)
    assert abs(exact.mean().item() + data.conditional_entropy) <= 4 * error + 1e-9
    assert data.conditional_entropy <= data.entropy + 1e-9


@pytest.mark.parametrize("name", WORLDS)
def test_training_images_are_a_function_of_seed_and_position(name):
    one, two, other = (WORLDS[name](num_test=10, seed=seed) for seed in (0, 0, 1))
    for data in (one, two, other):
        data.setup("fit")
    draw = one.datasets["train"].__getitems__
    assert torch.equal(draw([5, 6])["image"], two.datasets["train"].__getitems__([6, 5])["image"].flip(0))
    assert not torch.equal(draw(range(50))["image"], other.datasets["train"].__getitems__(range(50))["image"])
    assert not torch.equal(draw(range(10))["image"], one.datasets["test"].images)


@pytest.mark.parametrize("bits", [0, 1, 3])
def test_bit_drop_counts_the_images_with_the_same_top_bits(bits):
    levels = torch.tensor(list(itertools.product(range(8), repeat=4)), dtype=torch.uint8).view(-1, 1, 2, 2) * 32
    h = Representation(TopBits((1, 2, 2), 1, bits), "bits")(levels)
    exact = BitDropDataModule(side=2, kept_bits=bits).exact_log_prob(levels)
    torch.testing.assert_close(exact, -collisions(h).log())


@pytest.mark.parametrize("flip", [0.15, 0.6])
def test_markov_bridge_agrees_with_enumeration_of_all_chains(flip):
    data = MarkovDataModule(side=2, flip=flip)
    states = binary_images(4)
    p = {s: 0.5 * math.prod(flip if a != b else 1 - flip for a, b in itertools.pairwise(s)) for s in states}
    p_kept = {k: sum(p[s] for s in states if (s[0], s[2]) == k) for k in binary_images(2)}
    exact = torch.tensor([math.log(p[s] / p_kept[s[0], s[2]]) for s in states], dtype=torch.float64)
    image = torch.tensor(states, dtype=torch.uint8).view(-1, 1, 2, 2) * 128
    torch.testing.assert_close(data.exact_log_prob(image), exact)
    weight = torch.tensor([p[s] for s in states], dtype=torch.float64)
    assert data.entropy == pytest.approx(-(weight * weight.log()).sum().item())
    assert data.conditional_entropy == pytest.approx(-(weight * exact).sum().item())


def test_markov_images_flip_as_often_as_they_say():
    data = MarkovDataModule(num_test=4000)
    data.setup("fit")
    chain = data.datasets["test"].images.flatten(1)
    assert chain.unique().tolist() == [0, 128]
    assert (chain[:, 1:] != chain[:, :-1]).double().mean().item() == pytest.approx(0.15, abs=0.003)
    assert (chain[:, 0] > 0).double().mean().item() == pytest.approx(0.5, abs=0.04)


def test_every_second_pixel_depends_on_all_kept_pixels_and_on_no_lost_one():
    image = torch.tensor(binary_images(8), dtype=torch.uint8).view(-1, 1, 2, 4) * 128
    h = Representation(EverySecondPixel((1, 2, 4), 1), "pixels")(image)
    kept = image.flatten(1)[:, ::2]
    assert torch.equal(collisions(h), collisions(kept))
    assert len(torch.cat((h.flatten(1), kept), dim=1).unique(dim=0)) == len(kept.unique(dim=0)) == 16


def test_glyph_and_position_of_each_of_the_324_images_are_found():
    data = GlyphPositionDataModule("both")
    assert data.images.shape == (324, 1, 12, 12)
    glyph = Representation(GlyphNet((1, 12, 12), 1), "glyph")(data.images)
    place = Representation(PositionNet((1, 12, 12), 1), "position")(data.images)
    assert glyph.sum(1).unique().tolist() == place.sum((1, 2, 3)).unique().tolist() == [1.0]
    assert torch.equal(glyph.argmax(1), torch.arange(4).repeat_interleave(81))
    corner = place.flatten(1).argmax(1)
    wanted = [12 * row + column for row in range(9) for column in range(9)]
    assert corner.tolist() == 4 * wanted


@pytest.mark.parametrize(("kept", "network", "layer"), [("glyph", GlyphNet, "glyph"), ("both", GlyphNet, "both"),
                                                        ("position", PositionNet, "position")])  # fmt: skip
def test_glyph_worlds_count_the_images_with_the_same_h(kept, network, layer):
    data = GlyphPositionDataModule(kept, side=8)
    h = Representation(network((1, 8, 8), 1), layer)(data.images)
    torch.testing.assert_close(data.exact_log_prob(data.images), -collisions(h).log())
    assert data.entropy == pytest.approx(math.log(4 * 25))


def test_glyphs_that_cannot_be_told_apart_are_refused():
    with pytest.raises(ValueError, match="the same image"):
        GlyphPositionDataModule("both", glyphs=("1000", "0001"))


@pytest.mark.parametrize("layer", ["relu", "quantised"])
def test_enumerable_world_counts_the_collisions_that_an_inverter_will_see(layer):
    network = partial(ReluNet, num_units=4)
    data = EnumerableDataModule(network, layer)
    assert len(data.images.unique(dim=0)) == 4096
    assert not data.images[:, :, 3].any()
    representation = Representation(network((1, 4, 4), 1), layer)
    order = torch.randperm(4096, generator=torch.Generator().manual_seed(0))
    h = torch.cat([representation(data.images[part]) for part in order.split(37)])  # other batches, other order
    torch.testing.assert_close(data.exact_log_prob(data.images[order]), -collisions(h).log())


def test_relu_networks_sums_are_exact():
    network = ReluNet((1, 4, 4), 1)
    image = EnumerableDataModule(ReluNet, "relu").images.float() / 255
    single = network.relu(image)
    network.double()
    assert torch.equal(single.double(), network.relu(image.double()))


def test_quantised_layer_has_2_to_the_b_levels_and_floats_have_more():
    image = EnumerableDataModule(ReluNet, "relu").images
    network = partial(ReluNet, (1, 4, 4), 1, bits=2)
    assert Representation(network(), "quantised")(image).unique().tolist() == [0.0, 0.5, 1.0, 1.5]
    assert len(Representation(network(), "relu")(image).unique()) > 20


def test_h_is_that_of_another_image_in_the_shuffled_test_only():
    data = ShuffledDataModule(num_test=5)
    data.setup("fit")
    batch = {split: data.datasets[split].__getitems__([3, 4]) for split in ("train", "val", "test")}
    assert "context_image" not in batch["train"] | batch["val"]
    assert torch.equal(batch["test"]["context_image"], data.datasets["test"].images[[4, 0]])


def trained(bits: int, num_steps: int) -> tuple[BitDropDataModule, Inverter]:
    data = BitDropDataModule(kept_bits=bits)
    data.setup("fit")
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
    return data, inverter.eval()


@pytest.mark.parametrize(("bits", "num_steps"), [(1, 150), (3, 250), (0, 150)])  # bit drop, identity, constant
def test_measured_information_is_the_known_one(bits, num_steps):
    data, inverter = trained(bits, num_steps)
    batch = data.datasets["test"].__getitems__(range(1000))
    exact = data.exact_log_prob(batch["image"])
    assert score(exact, inverter.log_prob_in_parts({"image": batch["image"]}), data.entropy).passes
    if bits == 1:  # the negative control: with the h of another image nothing is known, and the model is misled
        shuffled = ShuffledDataModule(kept_bits=1)
        shuffled.setup("fit")
        log_prob = inverter.log_prob_in_parts(shuffled.datasets["test"].__getitems__(range(1000)))
        found = score(exact, log_prob, data.entropy)
        assert not found.passes
        assert -log_prob.mean() >= data.entropy


@pytest.mark.slow
@pytest.mark.parametrize("name", WORLDS)
def test_config_of_a_world_passes_and_that_of_the_negative_control_fails(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    main(["fit", "--config", f"world_{name}.yaml"])
    row = json.loads(Path("runs", f"world_{name}", "results.json").read_text())
    assert row["passes"] == (name != "shuffled")
    assert np.load(Path("runs", f"world_{name}", "log_prob.npy")).shape == (1000,)
