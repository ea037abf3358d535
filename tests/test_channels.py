"""Worlds whose h is of a partner behind a channel: the truth that they state is that of enumeration and of counting."""

import itertools
import json
import math
import re
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from dataset_files import loaded
from PIL import Image
from small_runs import failure, result, run_with_results
from test_configs import INVERTER, SHORT

import inverters
from benchmarks import worlds
from benchmarks.worlds import donsker_varadhan, info_nce
from callbacks.initialise_from_data import InitialiseFromData
from cli import main
from datamodules import (
    BitDropDataModule,
    DigitChannelDataModule,
    MNIST5kDataModule,
    PairsDataModule,
    ParityDataModule,
    StepsDataModule,
)
from datamodules.affine import drawn, warped
from datamodules.channels import flip_probability
from datamodules.parity import PAIR_OF_PIXEL, _parities
from inverters.exact_networks import PermutedLevels, TopBits
from inverters.representation import Representation

PAIRS = [(1, 1.2), (1, 2 * math.log(2)), (2, 0.0), (2, 2.5)]  # bits of a pixel, nats in two of them


def identity(image):
    return image.double()


@pytest.mark.parametrize(("num_bits", "information"), PAIRS)
def test_pairs_agree_with_enumeration_of_all_images_and_partners(num_bits, information):
    data, levels = PairsDataModule(information, num_pixels=2, num_bits=num_bits), range(2**num_bits)
    q, L = data.flip, len(levels)
    p = {
        (x, y): math.prod((1 - q if a == b else q / (L - 1)) / L for a, b in zip(x, y, strict=True))
        for x in itertools.product(levels, repeat=2) for y in itertools.product(levels, repeat=2)
    }  # fmt: skip
    p_y = Counter()
    for (_, y), value in p.items():
        p_y[y] += value
    found = {xy: math.log(value / p_y[xy[1]]) if value else -math.inf for xy, value in p.items()}
    known = sum(value * (found[xy] + 2 * math.log(L)) for xy, value in p.items() if value)
    assert sum(p.values()) == pytest.approx(1)
    assert known == pytest.approx(information, abs=1e-12)
    image, partner = torch.zeros(2, len(p), 1, 4, 4, dtype=torch.uint8)
    for k, (x, y) in enumerate(p):
        image[k, 0, 0, :2], partner[k, 0, 0, :2] = (torch.tensor(z).byte() << 8 - num_bits for z in (x, y))
    exact = data.exact_log_prob(image, identity, partner)
    torch.testing.assert_close(exact, torch.tensor(list(found.values()), dtype=torch.float64))
    assert data.exact_information(identity) == pytest.approx(information, abs=1e-12)


@pytest.mark.parametrize("information", [0, 20, 50, 50 * math.log(4)])
def test_partners_differ_as_often_as_the_channel_says_and_alike_in_every_way(information):
    data = PairsDataModule(information)
    drawn = data.drawn("test", 4000, seed=0).first(4000)
    image, partner = (x.flatten(1)[:, :50].long() >> 6 for x in (drawn["image"], drawn["context_image"]))
    counts = torch.bincount((4 * image + partner).flatten(), minlength=16).view(4, 4) / image.numel()
    expected = torch.full((4, 4), data.flip / 12) + torch.eye(4) * ((1 - data.flip) / 4 - data.flip / 12)
    torch.testing.assert_close(counts, expected.float(), atol=0.004, rtol=0)
    assert not (drawn["image"] | drawn["context_image"]).flatten(1)[:, 50:].any()


def test_h_that_tells_some_partners_has_their_information_and_one_that_mixes_them_is_refused():
    data = PairsDataModule(20)
    drawn = data.drawn("test", 50, seed=0).first(50)
    image, partner = drawn["image"], drawn["context_image"]
    assert data.exact_information(lambda x: x.flatten(1)[:, :10]) == pytest.approx(4)
    some = data.exact_log_prob(image, lambda x: x.flatten(1)[:, [3, 1]], partner)
    same = (image == partner).flatten(1)[:, [3, 1]].double()
    gain = same * math.log(1 - data.flip) + (1 - same) * math.log(data.flip / 3) + math.log(4)
    torch.testing.assert_close(some, gain.sum(1) - data.entropy)
    nothing = data.exact_log_prob(image, Representation(torch.nn.Sequential(), None), partner)
    torch.testing.assert_close(nothing, torch.full((50,), -100 * math.log(2), dtype=torch.float64))
    with pytest.raises(ValueError, match="known only where h tells the partners of some pixels and nothing of the"):
        data.exact_log_prob(image, lambda x: x.flatten(1).sum(1, keepdim=True), partner)
    with pytest.raises(ValueError, match="is asked for with the partners, of which h is"):
        data.exact_log_prob(image, identity)


@pytest.mark.parametrize("world", [PairsDataModule, StepsDataModule, DigitChannelDataModule])
def test_images_and_noise_are_functions_of_seed_and_position_and_the_images_not_of_the_channel(world):
    more = {DigitChannelDataModule: {"bits": 9.0}, StepsDataModule: {"flip": 0.4}}.get(world, {"information": 3.0})
    one, two, other, channel = (loaded(world(num_test=5, **a)) for a in ({}, {}, {"seed": 1}, more))
    a, b, c, d = (data.datasets["train"].__getitems__([7, 8]) for data in (one, two, other, channel))
    for key in ("image", "context_image"):
        assert torch.equal(a[key], b[key])
        assert torch.equal(a[key][:1], two.datasets["train"].__getitems__([7])[key])
        assert not torch.equal(a[key], c[key])
    assert torch.equal(a["image"], d["image"])
    assert not torch.equal(a["context_image"], d["context_image"])
    assert one.pictures_digest == channel.pictures_digest != other.pictures_digest
    train, val, test = (one.datasets[name].first(5) for name in ("train", "val", "test"))
    assert not torch.equal(val["context_image"], test["context_image"])
    assert not torch.equal(train["image"], test["image"])
    assert torch.equal(test["other_image"], test["context_image"].roll(-1, 0))


def test_copies_are_independent_and_have_twice_the_information():
    one, two = PairsDataModule(20), PairsDataModule(20, copies=2)
    drawn = two.drawn("test", 300, seed=0).first(300)
    assert two.image_shape == (1, 8, 16)
    encode = Representation(PermutedLevels(two.image_shape, 1), "vector")
    assert two.exact_information(encode) == pytest.approx(40)
    halves = [
        one.exact_log_prob(drawn["image"][..., part], identity, drawn["context_image"][..., part])
        for part in (slice(8), slice(8, 16))
    ]
    torch.testing.assert_close(two.exact_log_prob(drawn["image"], encode, drawn["context_image"]), sum(halves))
    assert not torch.equal(drawn["image"][..., :8], drawn["image"][..., 8:])
    assert DigitChannelDataModule(bits=3, copies=2).exact_information(identity) == pytest.approx(6 * math.log(2))


def test_white_pixels_are_as_frequent_as_the_step_of_their_partner_says():
    data = StepsDataModule(flip=0.1, num_steps=8)
    drawn = data.drawn("train", 200, seed=3).first(200)
    image, partner = drawn["image"].flatten() > 0, drawn["context_image"].flatten()
    share = [image[partner // 32 == step].float().mean().item() for step in range(8)]
    assert share == pytest.approx([0.1, 0.9] * 4, abs=0.01)
    assert partner.bincount(minlength=256).float().std() < 3 * (len(partner) / 256) ** 0.5
    white = torch.full((1, 1, 28, 28), 128, dtype=torch.uint8)
    log_prob = data.exact_log_prob(white, identity, torch.full_like(white, 40))
    assert log_prob.item() == pytest.approx(784 * math.log(0.9))


def test_levels_in_a_random_order_are_the_map_and_tell_apart_what_the_map_tells_apart():
    network, image = (
        PermutedLevels((1, 4, 4), 1, num_levels=4),
        torch.arange(0, 256, 16, dtype=torch.uint8).view(1, 1, 4, 4),
    )
    as_map, vector = (Representation(network, layer)(image) for layer in ("map", "vector"))
    assert torch.equal(as_map.argmax(1).flatten(), image.flatten().long() // 64)
    assert torch.equal(vector.sort().values, as_map.flatten(1).sort().values)
    assert not torch.equal(vector, as_map.flatten(1))
    assert sorted(network.vector.order.tolist()) == list(range(64))


def cells(images):
    """[N, 10] of the bytes of ten digits."""
    return [
        [row[8 * i : 8 * i + 8, 8 * j : 8 * j + 8].tobytes() for i in (0, 1) for j in range(5)]
        for row in images[:, 0].numpy()
    ]


def by_hand(split):
    """The class of every zero and one of a split of mnist5k, by the bytes of its 8x8 pixels in each of 50 ways."""
    data, found = loaded(MNIST5kDataModule()).datasets[split], {}
    for label, k in itertools.product((0, 1), range(50)):
        digits = data.images[data.labels == label]
        placed = warped(digits, *drawn(len(digits), torch.arange(len(digits)), k, seed=0)[:3])
        placed = placed.roll((-6 - k % 25 // 5, -6 - k % 5), dims=(2, 3))[:, :, :24, :24]
        small = torch.nn.functional.interpolate(placed.double(), (8, 8), mode="area").long() // 64 * 64
        for digit in small[:, 0].byte():
            assert found.setdefault(digit.numpy().tobytes(), label) == label
    return found


def test_classes_of_digits_agree_as_often_as_the_channel_says_and_test_digits_are_never_trained_on():
    data = DigitChannelDataModule(bits=3.0)
    classes = {split: by_hand(split) for split in ("train", "val", "test")}
    common = classes["train"].keys() & classes["test"].keys()  # some ones look the same in so few pixels
    assert len(common) < 0.06 * len(classes["test"])
    for split, known in classes.items():
        drawn = data.drawn(split, 2000, seed=0).first(2000)
        x, y = (np.array([[known[c] for c in row] for row in cells(drawn[key])]) for key in ("image", "context_image"))
        agree, share = (x == y).mean(), 1 - data.flip
        assert agree == pytest.approx(share, abs=4 * (share * data.flip / x.size) ** 0.5)
        assert x.mean() == pytest.approx(0.5, abs=0.02)
        assert {c for row in cells(drawn["image"]) for c in row} <= known.keys()
    q = data.flip
    assert 10 * (1 + q * math.log2(q) + (1 - q) * math.log2(1 - q)) == pytest.approx(3.0, abs=1e-12)


def test_a_model_of_the_digits_that_were_not_warped_is_refused():
    old = {"data": {"dataset": "digit_channel", "identity": DigitChannelDataModule().identity}}
    with pytest.raises(ValueError, match="was trained on digit_channel, not on warped_digit_channel"):
        DigitChannelDataModule().check(old, "last.ckpt")


def test_digits_information_is_not_known_where_h_loses_partners():
    data = DigitChannelDataModule()
    lossy, none = (
        Representation(TopBits(data.image_shape, 1, bits=0), "bits"),
        Representation(torch.nn.Sequential(), None),
    )
    with pytest.raises(ValueError, match="known only where h tells all partners apart"):
        data.exact_information(lossy)
    assert data.exact_information(none) == 0


@pytest.mark.parametrize(("data", "lossy", "telling"), [
    (PairsDataModule(num_bits=3), PermutedLevels((1, 8, 8), 1, 4), PermutedLevels((1, 8, 8), 1, 8)),
    (PairsDataModule(), TopBits((1, 8, 8), 1, 1), TopBits((1, 8, 8), 1, 2)),
    (StepsDataModule(num_steps=4), TopBits((1, 28, 28), 1, 1), TopBits((1, 28, 28), 1, 2)),
])  # fmt: skip
def test_h_that_tells_only_some_levels_of_the_partners_apart_is_refused(data, lossy, telling):
    with pytest.raises(ValueError, match="known only where h tells the partners"):
        data.exact_information(Representation(lossy, list(dict(lossy.named_children()))[-1]))
    known = data.exact_information(Representation(telling, list(dict(telling.named_children()))[-1]))
    assert known == pytest.approx(data.known_information)


@pytest.mark.parametrize("copies", [1, 2])
def test_h_that_misses_one_of_the_digits_is_refused(copies):
    data = DigitChannelDataModule(copies=copies)
    for lossy in (lambda x: x[:, :, :8], lambda x: x[..., :-8], lambda x: x[..., 8:]):
        with pytest.raises(ValueError, match="known only where h tells all partners apart"):
            data.exact_information(lossy)
    assert data.exact_information(lambda x: x.flatten(1).flip(1)) == data.known_information


def first_bits(num_bits):
    return lambda x: x[:, 0, 0, :num_bits].float()


def test_no_bit_says_anything_of_a_parity_and_words_differ_in_many_pixels():
    words = torch.tensor(list(itertools.product((0, 1), repeat=16)), dtype=torch.uint8)
    seen = torch.zeros(len(words), 28, 28, dtype=torch.uint8)
    seen[:, 0, :16] = 255 * words
    data = ParityDataModule(flip=0.0)
    drawn = data.drawn("train", 400, seed=0).first(400)
    number = {word.numpy().tobytes(): i for i, word in enumerate(words)}
    rows = [number[(word > 0).byte().numpy().tobytes()] for word in drawn["context_image"][:, 0, 0, :16]]
    assert torch.equal(drawn["context_image"][:, 0], seen[rows])
    pixels = _parities(words)
    assert torch.equal(drawn["image"][:, 0] > 0, pixels[rows])
    for bit in range(16):
        assert (pixels[words[:, bit] == 1].float().mean(dim=0) == 0.5).all()
    differ = (pixels ^ pixels[0]).sum(dim=(1, 2)).sort().values
    assert differ[:2].tolist() == [0, 0]  # all bits turned are the same picture
    assert differ[2] >= 90


@pytest.mark.parametrize(("num_bits", "known"), [(16, 15), (3, 2), (1, 0), (0, 0)])
def test_h_of_some_of_the_bits_has_their_information_and_log_p_is_the_mean_over_the_words_that_it_leaves(
    num_bits, known
):
    data = ParityDataModule(flip=0.2)
    encode = first_bits(num_bits)
    assert data.exact_information(encode) == pytest.approx(known * math.log(2), abs=1e-9)
    if num_bits < 3:
        return
    (image,), (seen,) = (data.drawn("test", 1, seed=1).first(1)[key] for key in ("image", "context_image"))
    word, total = (seen[0, 0, :16] > 0).int().tolist(), 0.0
    for rest in itertools.product((0, 1), repeat=16 - num_bits):
        bits = np.array([*word[:num_bits], *rest])
        differ = ((bits[PAIR_OF_PIXEL[..., 0]] + bits[PAIR_OF_PIXEL[..., 1]]) % 2 != (image[0].numpy() > 0)).sum()
        total += 0.2 ** int(differ) * 0.8 ** int(784 - differ) / 2 ** (16 - num_bits)
    with pytest.raises(ValueError, match="is asked for with the partners, of which h is"):
        data.exact_log_prob(image[None], encode)
    found = data.exact_log_prob(image[None], encode, seen[None])
    assert found.item() == pytest.approx(math.log(total), abs=1e-9)


@pytest.mark.parametrize("other", [{"num_bits": 2}, {"seed": 1}])
def test_world_of_other_arguments_or_another_seed_has_other_pictures(other):
    assert BitDropDataModule().pictures_digest == BitDropDataModule(num_test=5, batch_size=3).pictures_digest
    assert BitDropDataModule(**other).pictures_digest != BitDropDataModule().pictures_digest


def test_report_takes_no_p_x_of_another_seed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main(["fit", "--config=world_bit_drop.yaml", *SHORT, *INVERTER])
    prior = ["fit", "--config=world_bit_drop.yaml", "--model.layer=null", *SHORT, *INVERTER]
    for seed, is_paired in ((1, False), (0, True)):
        main([*prior, f"--data.seed={seed}"])
        main(["report", "runs", "--output=page.html"])
        assert ("<td>NCE less that of p(x)" in Path("page.html").read_text()) == is_paired


@pytest.mark.parametrize(("world", "arguments", "words"), [
    (PairsDataModule, {"information": 70}, "information 70 is not between 0 and 69.31 nats"),
    (PairsDataModule, {"information": 35, "num_bits": 1}, "between 0 and 34.66 nats, what 50 pixels of 1 bits have"),
    (PairsDataModule, {"num_bits": 8}, "num_bits 8 must be 1 to 7"),
    (ParityDataModule, {"flip": 0.3}, "flip 0.3 is not between 0 and 0.2"),
    (StepsDataModule, {"num_steps": 3}, "num_steps 3 is no power of two"),
    (StepsDataModule, {"flip": 0.6}, "flip 0.6 is not between 0 and 0.5"),
    (DigitChannelDataModule, {"bits": 11}, "bits 11 is not between 0 and 10"),
])  # fmt: skip
def test_arguments_without_such_a_world_are_refused(world, arguments, words):
    with pytest.raises(ValueError, match=words):
        world(**arguments)


@pytest.mark.parametrize("num_levels", [2, 4, 128])
def test_channel_that_lets_everything_or_nothing_through_never_or_always_changes(num_levels):
    assert flip_probability(math.log(num_levels), num_levels) == 0
    assert flip_probability(0, num_levels) == 1 - 1 / num_levels


def test_report_compares_what_is_known_with_the_difference_of_two_runs_where_only_that_is_known(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(InitialiseFromData.__init__, "__defaults__", (64, 100, 50))
    for name in ("pairs", "digit_channel"):
        main(["fit", f"--config=world_{name}.yaml", *SHORT, *INVERTER])
    channel, pairs = result("world_digit_channel")["world"], result("world_pairs")["world"]
    assert channel["information_nats"] == pytest.approx(5 * math.log(2))
    assert {channel[key] for key in ("entropy_nats", "exact_nce_nats", "excess_nats", "passes")} == {None}
    assert (pairs["information_nats"], pairs["passes"]) == (20, False)
    main(["report", "runs", "--output", "alone.html"])
    assert "no p(x) of the same images" in Path("alone.html").read_text()
    main(["fit", "--config=world_digit_channel_prior.yaml", *SHORT, *INVERTER])
    nce, prior = (result(f"world_digit_channel{of}")["nce_nats"] for of in ("", "_prior"))
    main(["report", "runs", "--output", "both.html"])
    page = Path("both.html").read_text().replace("\N{MINUS SIGN}", "-")
    assert "NCE less that of p(x)" in page
    assert f"{nce - prior - 5 * math.log(2):+.3f}" in page
    assert f"{result('world_pairs')['nce_nats'] + pairs['entropy_nats'] - 20:+.3f}" in page


def test_report_has_a_world_once_for_each_information_it_was_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(InitialiseFromData.__init__, "__defaults__", (64, 100, 50))
    for information in (20, 30, 20):
        main(["fit", "--config=world_pairs.yaml", f"--data.information={information}", *SHORT, *INVERTER])
    newest = max(Path("runs/world_pairs").glob("*/results.json"))
    row = json.loads(newest.read_text())
    row["world"]["information_nats"] += 1e-9  # as another machine may have it
    newest.write_text(json.dumps(row))
    main(["report", "runs", "--output", "page.html"])
    rows = re.findall(r">world_pairs</th><td>(\d+\.\d+)</td>", Path("page.html").read_text())  # of two tables
    assert sorted(rows) == ["20.000", "30.000", "69.315", "69.315"]


def test_layer_of_unknown_information_is_refused_before_the_training(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    said = failure(capsys, "fit", "--config=world_digit_channel.yaml", "--model.network.bits=0")
    assert "known only where h tells all partners apart" in said


@pytest.mark.parametrize("name", inverters.worlds.names())
def test_every_world_gives_x_h_log_prob_and_information_in_three_lines(name):
    world = inverters.worlds.world(name)
    x, h, log_prob, information = world.draw(200, seed=2)
    again, fewer, test = world.draw(200, seed=2), world.draw(50, seed=2), world.draw(200, seed=2, split="test")
    assert (x.dtype, x.shape[:2], len(h)) == (torch.uint8, (200, 1), 200)
    assert torch.equal(x, again.x)
    assert torch.equal(h, again.h)
    assert torch.equal(x[:50], fewer.x)
    assert not torch.equal(x, test.x)
    assert information == world.information
    if log_prob is None:
        assert name == "digit_channel"
    else:
        error = 5 * log_prob.std() / 200**0.5 + 1e-9
        assert abs(log_prob.mean() + world.entropy - information) <= error


def test_worlds_of_python_are_the_configs_tests_and_take_their_arguments():
    drawn = inverters.worlds.world("pairs", information=7.5).draw(1000, split="test")
    data = loaded(PairsDataModule(7.5))
    assert torch.equal(drawn.x, data.datasets["test"].images)
    assert drawn.information == pytest.approx(7.5)
    assert inverters.worlds.world("pairs", layer="vector").draw(3).h.shape == (3, 256)


@pytest.mark.parametrize(("ask", "words"), [
    (lambda worlds: worlds.world("pair"), "no world 'pair'; there are bit_drop"),
    (lambda worlds: worlds.world("shuffled"), "no world 'shuffled'"),
    (lambda worlds: worlds.world("pairs", bits=3),
     "^the world pairs has no argument bits; give some of copies, information, left_out_classes, num_bits, num_pixels, "
     "num_test, seed$"),
    (lambda worlds: worlds.world("parity", copies=2), "^the world parity has no argument copies; give some of flip, "),
    (lambda worlds: worlds.world("pairs", layer="mab"), "no layer 'mab'"),
    (lambda worlds: worlds.world("pairs", information=70), "is not between 0 and 69.31 nats"),
    (lambda worlds: worlds.world("pairs").draw(0), "num_images is 0 and seed 0; give whole numbers of at least 1"),
    (lambda worlds: worlds.world("pairs").draw("3"), "num_images is '3' and seed 0; give whole numbers"),
    (lambda worlds: worlds.world("pairs").draw(2.5), "num_images is 2.5 and seed 0; give whole numbers"),
    (lambda worlds: worlds.world("pairs").draw(3, seed=1.5), "num_images is 3 and seed 1.5; give whole numbers"),
    (lambda worlds: worlds.world("pairs").draw(1, split="tset"), "no split 'tset'; give one of train, val, test"),
])  # fmt: skip
def test_python_is_told_what_is_wrong_with_a_world(ask, words):
    with pytest.raises(ValueError, match=words):
        ask(inverters.worlds)


def test_baselines_with_the_best_critic_give_the_information_from_below_and_at_most_ln_of_the_batch():
    data = PairsDataModule(2.0, num_bits=1)
    draws = data.drawn("test", 1000, seed=0).first(1000)
    x, y = draws["image"].flatten(1)[:, :50] > 0, draws["context_image"].flatten(1)[:, :50] > 0
    same = (x[:, None] == y[None]).sum(-1).double()
    scores = same * math.log(2 * (1 - data.flip)) + (50 - same) * math.log(2 * data.flip)
    for bound in (info_nce, donsker_varadhan):
        assert bound(scores).item() == pytest.approx(2.0, abs=0.25)
    assert info_nce(100 * torch.eye(8)).item() == pytest.approx(math.log(8))


def test_benchmark_of_estimators_gives_truth_and_estimates(monkeypatch, capsys, tmp_path):
    path = tmp_path / "figures.json"
    tiny = ["--information", "5", "--steps=2", "--batch=8", "--device=cpu", f"--json={path}"]
    monkeypatch.setattr(sys, "argv", ["worlds", "--worlds", "pairs", "glyph", *tiny])
    worlds.main()
    assert "INFO-SEDD 47.8" in capsys.readouterr().out
    assert [row["I(x; h), nats"] for row in json.loads(path.read_text())["rows"]] == [5.0, 1.386]


def test_a_world_of_a_map_states_its_information_from_a_picture_a_level_and_still_tries_each_level_at_each_pixel():
    data, asked = StepsDataModule(), []

    def without_level(level, pixel):
        """A map that gives a level of an odd step another's of an even one, at one pixel."""

        def encode(image):
            asked.append(len(image))
            h = image.float().flatten(1)
            h[:, pixel] = torch.where(h[:, pixel] == level, 0, h[:, pixel])
            return h.view_as(image)

        return encode

    assert data.exact_information(without_level(0, 3)) == pytest.approx(data.known_information)
    assert sum(asked) < 3000  # 28x28 pixels of 256 levels are 200 704
    for level, pixel in ((70, 3), (255, 783), (200, 400)):
        with pytest.raises(ValueError, match="known only where h tells the partners"):
            data.exact_information(without_level(level, pixel))


def test_no_h_is_taken_of_x_where_it_is_of_a_partner(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(InitialiseFromData.__init__, "__defaults__", (64, 100, 50))
    main(["fit", "--config=world_pairs.yaml", *SHORT, *INVERTER])
    assert "sees            a partner of x" in capsys.readouterr().out
    assert result("world_pairs")["sees"] == "partner"
    inverter = inverters.load("runs/world_pairs")
    test = loaded(PairsDataModule()).datasets["test"].first(6)
    x, partner = test["image"], test["context_image"]
    for ask in (inverter.log_prob, inverter.log_prob_per_pixel, inverter.scores, inverter.bound):
        with pytest.raises(ValueError, match=r"h of pairs is of a partner of x .*; give the partners as h_of"):
            ask(x)
        ask(x, h_of=partner)
    assert np.load(run_with_results("world_pairs") / "log_prob.npy") == pytest.approx(
        inverter.log_prob(x, h_of=partner).numpy(), abs=1e-4
    )
    for name, image in (("x.png", x), ("partner.png", partner)):
        Image.fromarray(image[0, 0].numpy()).save(name)
    score = ["score", "--config=world_pairs.yaml", *SHORT, *INVERTER[:2], "--images=x.png"]
    assert "give the partners as --contexts" in failure(capsys, *score)
    main([*score, "--contexts=partner.png"])


def test_donsker_varadhan_takes_its_mean_over_the_pairs_of_all_batches_and_the_critic_any_scale_of_h():
    scores = torch.randn(3, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    pairs = [scores[n, i, j].exp().item() for n, i, j in itertools.product(range(3), range(5), range(5)) if i != j]
    expected = scores.diagonal(dim1=1, dim2=2).mean().item() - math.log(sum(pairs) / len(pairs))
    assert donsker_varadhan(scores).item() == pytest.approx(expected)
    assert info_nce(scores).item() == pytest.approx(sum(info_nce(one).item() for one in scores) / 3)
    x, h, *_ = inverters.worlds.world("coordinates").draw(50)
    found = []
    for scale in (1, 1000):
        torch.manual_seed(0)
        found.append(worlds.Critic(x, scale * h)(x, scale * h))
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-3)
