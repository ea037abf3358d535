"""What is kept of an attribute: nothing where h is independent of it, all where it is a function of h."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from dataset_files import loaded
from small_runs import INVERTER, SMALL, failure, run_with_results
from test_audit import LEDGER, NOTHING
from test_channel import EVERY, IMAGES, inverter_of
from test_report import write_inverter

import inverters
from cli import main
from commands.ledger import Asked
from datamodules import GlyphPositionDataModule, MNIST5kDataModule, PhotosDataModule
from evaluations.ledger import bins, entry
from evaluations.measurements import LedgerResult
from evaluations.report.ledgers import section
from evaluations.report.page import Table
from evaluations.report.tested_runs import runs_under
from inverters.exact_networks import GlyphNet, PositionNet
from inverters.representation import Representation

NUMBERS = (1500, 500, 1000)


def drawn(num_values):
    return tuple(torch.randint(num_values, (n,)) for n in NUMBERS)


def test_of_an_attribute_that_h_knows_nothing_of_nothing_is_kept():
    found = [entry(tuple(torch.randn(n, 8) for n in NUMBERS), drawn(4), 4, seed=seed).kept for seed in range(4)]
    assert all(abs(one.mean) < 0.02 for one in found)
    assert not any(one.mean > 3 * one.standard_error and one.mean > 1e-3 for one in found)


def test_of_an_attribute_that_is_a_function_of_h_all_is_kept():
    a = drawn(4)
    found = entry(tuple(torch.eye(4)[x] for x in a), a, 4, uniform=True)
    assert found.entropy == pytest.approx(math.log(4))
    assert math.log(4) - 0.03 < found.kept.mean <= math.log(4)


@pytest.mark.parametrize("share", [0.02, 0.0])
def test_what_is_kept_is_no_more_than_there_is_where_training_had_other_shares_or_lacked_a_value(share):
    torch.manual_seed(0)
    train, val = ((torch.rand(n) < share).long() for n in NUMBERS[:2])
    test = torch.arange(NUMBERS[2]) % 2
    found = entry(tuple(torch.eye(2)[x] for x in (train, val, test)), (train, val, test), 2)
    assert found.entropy == pytest.approx(math.log(2))
    assert found.kept.mean <= math.log(2)


@pytest.mark.parametrize("flip", [0.1, 0.3])
def test_of_a_binary_symmetric_channel_it_is_ln_2_less_the_entropy_of_the_noise(flip):
    torch.manual_seed(1)
    a = drawn(2)
    h = tuple(torch.where(torch.rand(len(x)) < flip, 1 - x, x).float()[:, None] for x in a)
    found = entry(h, a, 2, uniform=True).kept
    truth = math.log(2) + flip * math.log(flip) + (1 - flip) * math.log1p(-flip)
    assert found.mean == pytest.approx(truth, abs=3 * found.standard_error + 0.005)


def test_turning_all_angles_changes_nothing():
    angle = tuple(torch.rand(n, dtype=torch.float64) * 5 for n in NUMBERS)
    h = tuple(torch.stack((x.cos(), x.sin()), dim=1) for x in angle)
    for turn in (1.0, -7.3):
        turned = bins(angle[0] + turn, tuple(x + turn for x in angle[1:]), circular=True)
        for before, after in zip(bins(angle[0], angle[1:], circular=True), turned, strict=True):
            assert (before == after).float().mean() > 0.999  # rounding, at an edge
    binned = tuple(bins(angle[0], angle[1:], circular=True))
    assert entry(h, binned, 16).kept.mean > 0.8 * entry(h, binned, 16).entropy


def test_bins_of_a_number_are_equally_full_in_training_and_do_not_know_the_test():
    train, test = torch.randn(1600).double().exp(), torch.randn(50).double()
    of_train, of_test = bins(train, (test,), circular=False)
    assert of_train.bincount(minlength=16).tolist() == pytest.approx([100] * 16, abs=1)
    assert torch.equal(of_test[:10], bins(train, (test[:10],), circular=False)[1])
    assert bins(torch.zeros(5), (), circular=False)[0].max() <= 1  # what is constant


@pytest.mark.parametrize(
    ("network", "layer", "kept"), [(GlyphNet, "glyph", "glyph"), (PositionNet, "position", "position")]
)
def test_one_network_keeps_the_glyph_and_loses_where_it_is_and_the_other_the_place_alone(network, layer, kept):
    data = loaded(GlyphPositionDataModule(side=8, num_test=500))
    encode = Representation(network(data.image_shape, 1), layer)
    batches = [data.datasets[name].first(n) for name, n in (("train", 1500), ("val", 500), ("test", 500))]
    h = tuple(encode(batch["image"]) for batch in batches)
    known = [data.attributes("test", batch) for batch in batches]
    for name, number in (("glyph", 4), ("position", 25)):
        a = tuple(its[name].values for its in known)
        found = entry(h, a, number, known[0][name].uniform)
        assert found.entropy == pytest.approx(math.log(number))
        truth = math.log(number) if name == kept else 0
        assert found.kept.mean == pytest.approx(truth, abs=0.03)


def test_the_attributes_of_a_world_are_what_its_images_are_made_of():
    data = loaded(GlyphPositionDataModule(side=8))
    known = data.attributes("train", {"image": data.images})
    assert known["glyph"].values.tolist() == [k for k in range(4) for _ in range(25)]
    assert known["position"].values.tolist() == 4 * list(range(25))


def test_the_place_of_a_photos_patch_is_where_its_pixels_are():
    data = loaded(PhotosDataModule(stride=30))
    batch = data.datasets["test"].first(20)
    known = data.attributes("test", batch)
    assert (known["column"].values % 128 >= 96).all()
    assert known["row"].values.max() <= 427 - 32
    assert torch.equal(known["class"].values, batch["label"])


def test_what_cannot_be_probed_is_refused_in_a_sentence():
    h = tuple(torch.randn(n, 2) for n in (5, 5, 5))
    with pytest.raises(ValueError, match="an attribute of 2 values has some outside of 0 to 1"):
        entry(h, tuple(torch.full((5,), 3) for _ in h), 2)
    with pytest.raises(ValueError, match="there are 5, 5, 0 images to train, choose and test a probe on"):
        entry((h[0], h[1], h[2][:0]), tuple(torch.zeros(5).long() for _ in h), 2)


def test_behind_a_channel_it_is_of_what_arrives():
    inverter = inverter_of(EVERY["quantiser"]).eval()
    network, device = inverter.representation, torch.device("cpu")
    h = network(IMAGES)
    sent = Asked(network, device, inverter)
    assert torch.equal(sent.h(IMAGES), inverter.channel(h, 2))
    assert sent.sent == ("UniformQuantiser, 1, 2, 4 bits a unit", "4 bits a unit")
    assert torch.equal(Asked(network, device, None).h(IMAGES), h)
    assert Asked(network, device, None).sent == (None, None)


@pytest.mark.parametrize("order", [1, -1])
def test_the_rest_is_less_the_best_p_x_and_of_what_the_inverter_was_given(tmp_path, order):
    for name, level in (("p_a", -4), ("p_bc", -6)):
        write_inverter(tmp_path / name, None, level, **NOTHING)
    write_inverter(tmp_path / "of_fc3", "fc3", -3, rate="8 bits a unit", channel="a channel")
    rows = [replace(LEDGER, attribute="of all of h"), replace(LEDGER, channel="a channel", rate="8 bits a unit")]
    (tmp_path / "of_fc3" / "ledger.json").write_text(json.dumps([row.to_json() for row in rows]))
    runs = runs_under([tmp_path])[::order]
    (rest,) = [part for part in section(runs).parts if isinstance(part, Table) and "I(x; h | a)" in part.caption]
    given_h, p_x = (np.load(tmp_path / name / "log_prob.npy") for name in ("of_fc3", "p_a"))
    mean, error = (given_h - p_x).mean(), (given_h - p_x).std(ddof=1) / len(p_x) ** 0.5
    (row,) = rest.rows
    assert row[:3] == [f"{LEDGER.name} fc3, at 8 bits a unit", "class", f"{mean:.2f} ± {error:.2f}"]
    assert row[4] == f"{mean - 2.1:.2f} ± {math.hypot(error, 0.05):.2f}"


def of_python():
    """What README's lines give for the class, of the images that the verb takes by `few`."""
    data = loaded(MNIST5kDataModule(num_train=100))
    train, val, test = (data.datasets[split] for split in ("train", "val", "test"))
    chosen = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[:80].tolist()
    batches = train.__getitems__(chosen), val.first(100), test.first(100)
    h = tuple(inverters.load(f"runs/{INVERTER}").h(batch["image"]) for batch in batches)
    kept, entropy, _ = entry(h, tuple(batch["label"] for batch in batches), num_values=10)
    return kept.mean, entropy


def test_the_verb_asks_an_inverters_layer_or_a_classifiers(with_inverter, capsys, monkeypatch):
    few = ["--num_images=100", "--num_train=80"]
    with monkeypatch.context() as patch:
        patch.setattr("commands.ledger.free_memory", lambda: 3 * 4 * 256 * 280 - 1)
        said = failure(capsys, "ledger", *SMALL, *few)
    assert "h of 280 images of fc3 takes 0.9 MB of memory, as a probe needs it, of which 0.9 MB are free; give" in said
    main(["ledger", *SMALL, *few])
    (row,) = json.loads((run_with_results() / "ledger.json").read_text())
    of_inverter = LedgerResult.from_json(row)
    assert of_python() == (of_inverter.kept_nats, of_inverter.entropy_nats)
    classifier = ["--config=classifier_mnist5k.yaml", "--trainer.accelerator=cpu"]
    assert "no layer is given; give some as --layers '[fc3]'" in failure(capsys, "ledger", *classifier, *few)
    main(["ledger", *classifier, *few, "--layers=[fc3, logits]"])
    rows = json.loads((run_with_results("classifier_mnist5k") / "ledger.json").read_text())
    assert [(one["layer"], one["attribute"]) for one in rows] == [("fc3", "class"), ("logits", "class")]
    assert np.sign(of_inverter.kept_nats) == 1
    assert of_inverter.entropy_nats == pytest.approx(math.log(10), abs=0.1)
    assert "do not add up" in capsys.readouterr().out
