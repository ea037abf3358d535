"""Two networks, or two layers: nothing differs from itself, and what is lost is what enumeration says."""

import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from small_runs import INVERTER, SHORT, SMALL, failure, run_with_results

from cli import main
from commands.two_runs import function, names
from evaluations.contrast import contrastive_bound
from evaluations.difference import (
    Crossed,
    alike,
    divergence,
    gap,
    matching,
    most_different,
    ratios,
    share_matched,
    told_apart,
)
from evaluations.difference_figures import figures
from evaluations.difference_result import DifferenceResult
from evaluations.distances import sample_distances
from evaluations.report import differences as section
from evaluations.report.page import Explorer, Table
from evaluations.report.tested_runs import inverters, runs_under
from inverters.channel import UniformQuantiser

FEW = ["--num_images=5", "--num_draws=2", "--num_shown=2", "--num_candidates=3"]


def channels(seed=0):
    """p(x), p(h1 | x) of a noisy channel, [X, K1], and which h2 each h1 gives, [K1]: all enumerated."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.softmax(torch.randn(12, generator=generator, dtype=torch.float64), 0)
    h1 = torch.softmax(2 * torch.randn(12, 6, generator=generator, dtype=torch.float64), 1)
    return x, h1, torch.tensor([0, 0, 1, 1, 1, 2])


def posteriors(x, h1, of):
    """p(x | h1) [K1, X] and p(x | h2) [K2, X], exact, and p(h1)."""
    joint = (x[:, None] * h1).T  # [K1, X]
    of_h2 = torch.zeros(int(of.max()) + 1, len(x), dtype=x.dtype).index_add(0, of, joint)
    return joint / joint.sum(1, True), of_h2 / of_h2.sum(1, True), joint.sum(1)


def crossed(num_images=4000, num_draws=6, seed=1):
    """What the verb has of exact models, by sampling."""
    x, h1, of = channels()
    generator = torch.Generator().manual_seed(seed)
    image = x.multinomial(num_images, True, generator=generator)
    h = h1[image].multinomial(1, generator=generator)[:, 0]
    a, b, _ = posteriors(x, h1, of)
    p = torch.stack([a[h], b[of[h]]])  # [2, N, X]
    images = p.log().gather(2, image.expand(2, -1)[..., None])[..., 0]
    draws = [each.multinomial(num_draws, True, generator=generator) for each in p]
    return Crossed(images, torch.stack([torch.stack([under.log().gather(1, its) for under in p]) for its in draws]))


def entropy(p):
    return -torch.special.xlogy(p, p).sum(-1)


def test_of_exact_models_the_divergence_and_the_difference_are_the_information_that_is_lost():
    x, h1, of = channels()
    a, b, p_h1 = posteriors(x, h1, of)
    lost = (p_h1 * (entropy(b)[of] - entropy(a))).sum().item()  # I(x; h1) - I(x; h2) = I(x; h1 | h2)
    found = crossed()
    by_draws, on_data = divergence(0, found), (found.images[0] - found.images[1]).mean().item()
    assert by_draws.mean == pytest.approx(lost, abs=4 * by_draws.standard_error)
    assert on_data == pytest.approx(lost, abs=0.05)
    assert lost > 0.3
    assert by_draws.standard_error < 0.02


def test_the_other_divergence_and_the_gap_are_those_of_enumeration_and_a_models_own_draws_are_as_likely_as_data():
    x, h1, of = channels()
    a, b, p_h1 = posteriors(x, h1, of)
    reverse = (p_h1 * (torch.special.xlogy(b[of], b[of]) - b[of] * a.log()).sum(1)).sum().item()
    lost = (p_h1 * (entropy(b)[of] - entropy(a))).sum().item()
    found = crossed()
    for nats, truth in ((divergence(1, found), reverse), (gap(1, 0, found), lost + reverse)):
        assert nats.mean == pytest.approx(truth, abs=4 * nats.standard_error)
        assert nats.low < nats.mean < nats.high
    for k in (0, 1):
        assert gap(k, k, found).mean == pytest.approx(0, abs=4 * gap(k, k, found).standard_error)


def test_what_a_model_rules_out_is_infinitely_less_likely():
    found = crossed(num_images=4)
    found.draws[1, 0, 2, 0] = -math.inf
    assert divergence(1, found).mean is gap(1, 0, found).mean is None
    assert divergence(0, found).mean is not None


def test_the_odds_are_those_of_two_assignments_and_know_nothing_of_what_a_column_or_a_row_has_more():
    scores = np.random.default_rng(0).normal(size=(5, 5))
    odds = matching(scores)
    assert odds[1, 3] == pytest.approx(scores[1, 1] + scores[3, 3] - scores[1, 3] - scores[3, 1])
    assert np.array_equal(odds, odds.T)
    assert not np.diagonal(odds).any()
    assert matching(scores + np.arange(5) + np.arange(5)[:, None] ** 2) == pytest.approx(odds)
    scores[:, 2] = scores[:, 0]  # two images of one h
    assert matching(scores)[0, 2] == 0
    assert share_matched(np.zeros((3, 3))) == 0.5


def test_a_pair_that_one_layer_merges_is_the_first_that_the_other_tells_apart_better():
    a = matching(-50.0 * np.random.default_rng(0).random((12, 12)) + 60 * np.eye(12))
    b = 10 * a
    assert told_apart(a, b) == ([], [])  # of another scale, and in one order
    b[3, 7] = b[7, 3] = 0
    of_a, of_b = told_apart(a, b)
    assert (of_a[0].first, of_a[0].second, of_a[0].b) == (3, 7, 0)
    assert of_a[0].rank_a - of_a[0].rank_b > 0.2
    assert told_apart(b, a)[1][0].second == 7
    assert all(pair.rank_b > 0.5 > pair.rank_a for pair in of_b)
    near = a + np.random.default_rng(1).normal(scale=1e-3, size=a.shape)
    near = (near + near.T) / 2  # hardly another one: only pairs about the middle can be on two sides of it
    assert all(abs(pair.rank_a - pair.rank_b) < 0.1 for pairs in told_apart(a, near) for pair in pairs)


def test_a_set_is_of_images_that_are_near_by_h_and_as_far_apart_as_can_be():
    generator = torch.Generator().manual_seed(0)
    draws = torch.randint(256, (2, 30, 1, 3, 3), generator=generator).byte()
    draws[:, 4] = draws[:, 3]
    images, far = draws[:, 0], 2 * torch.rand(2, 30, 2, generator=generator, dtype=torch.float64)
    sets, distances = alike(images, draws, far, by=1)
    assert torch.equal(sets[:, 0], images)
    assert not distances[:, 0].any()
    assert distances[..., 1].nan_to_num(0).max() <= 1
    assert len(set(map(bytes, sets[0].flatten(1).numpy()))) == len(sets[0])  # no image twice
    chosen = sample_distances(sets[0], [sets[0]] * 6)
    near = draws[0, far[0, :, 1] <= 1]
    others = sample_distances(near, [sets[0]] * len(near)).amin(1)
    assert others.max() <= chosen[chosen > 0].min()  # else it would have been taken
    none, _ = alike(images, draws, far + 1.5, by=0)
    assert none[:, 1:].sum() == 0
    assert most_different(images[:1].expand(3, -1, -1, -1), torch.ones(3, dtype=torch.bool)) == [0]
    assert ratios(images[:1], [draws[0, :1]], torch.zeros(1)) == 1


def copied(name, root="runs/copies"):
    """The inverter's run once more, under another config's name."""
    folder = Path(root, name, "again")
    shutil.copytree(run_with_results(), folder, symlinks=True)
    return folder


def answer(folder):
    (path,) = folder.glob("diff_*.json")
    return DifferenceResult.from_json(json.loads(path.read_text())), np.load(path.with_suffix(".npz"))


def test_of_a_run_and_itself_nothing_differs_and_draws_are_the_same_bit_for_bit(with_inverter, capsys):
    copy = copied("copy")
    main(["diff", f"runs/{INVERTER}", str(copy), *FEW])
    found, arrays = answer(copy)
    zero = dict.fromkeys(("mean", "standard_error", "low", "high"), 0)
    assert vars(found.log_prob) == vars(found.a.divergence) == vars(found.b.divergence) == zero
    assert np.array_equal(arrays["draws_a"], arrays["draws_b"])
    assert np.array_equal(arrays["alike_a"], arrays["alike_b"])
    assert not arrays["mean_map"].any()
    assert found.pairs_of_a == found.pairs_of_b == ()
    assert found.a.draws_less_own == found.a.own_draws_less
    assert found.function is None
    assert found.a.called.endswith(INVERTER)
    assert found.b.called.endswith(" of copy")
    assert "told apart by" in capsys.readouterr().out
    assert sorted(figures(found, arrays)) == ["alike", "draws", "map"]


@pytest.fixture
def two_layers(with_inverter):
    """And an inverter of an earlier layer of the same network."""
    main(["fit", "--config=inverter_mnist5k_conv2.yaml", *SHORT[1:], "--trainer.max_steps=2"])
    return "runs/inverter_mnist5k_conv2", f"runs/{INVERTER}"


def test_a_against_b_is_the_negative_of_b_against_a_and_both_are_in_the_report(two_layers):
    for order in (two_layers, two_layers[::-1]):
        main(["diff", *order, *FEW])
    earlier, later = run_with_results("inverter_mnist5k_conv2"), run_with_results()
    (one, arrays), (other, others) = answer(later), answer(earlier)
    assert (one.a.called, one.b.called, one.function, other.function) == ("conv2", "fc3", "b of a", "a of b")
    assert one.log_prob.mean == -other.log_prob.mean != 0
    assert one.log_prob.standard_error == other.log_prob.standard_error
    assert (one.a, one.b) == (other.b, other.a)
    assert (one.pairs_of_a, one.pairs_of_b) == tuple(
        tuple(type(p)(**(vars(p) | {"a": p.b, "b": p.a, "rank_a": p.rank_b, "rank_b": p.rank_a})) for p in pairs)
        for pairs in (other.pairs_of_b, other.pairs_of_a)
    )
    assert np.array_equal(arrays["mean_map"], -others["mean_map"])
    log_prob = [np.load(folder / "log_prob.npy") for folder in (later, earlier)]
    assert one.log_prob.mean == pytest.approx((log_prob[0] - log_prob[1]).mean())
    assert arrays["mean_map"].sum() == pytest.approx(one.log_prob.mean, abs=1e-3)
    made = section.section(runs_under([Path("runs")]))
    assert [len(table.rows) for table in made.parts if hasattr(table, "rows")] == [2, 4]
    assert not any("nan" in part.html().lower() for part in made.parts if isinstance(part, Table))
    theirs, ours = (part.data for part in made.parts if isinstance(part, Explorer))
    names = [layer["name"] for data in (ours, theirs) for layer in data["layers"]]
    assert names == ["fc3 less conv2", "conv2 less fc3"]
    assert ours["layers"][0]["sums"] == pytest.approx((log_prob[0] - log_prob[1]).tolist(), abs=1e-3)
    assert theirs["layers"][0]["nats"] == -ours["layers"][0]["nats"]
    assert len(list(section.of_tests(inverters(runs_under([later]))))) == 0  # its partner is not in this report
    assert sorted(path.name.split("_")[-1] for path in later.glob("diff_*.png")) == [
        "alike.png", "draws.png", "map.png", "pairs.png",
    ]  # fmt: skip


def test_of_what_a_channel_sends_no_later_layer_is_a_function_and_its_name_says_how_much():
    def side(layer, depth, channel=None):
        representation = SimpleNamespace(layer=layer, depth=depth, preprocess=SimpleNamespace(what=None))
        inverter = SimpleNamespace(representation=representation, seen_shape=(1, 4, 4), channel=channel, rate=0)
        return SimpleNamespace(inverter=inverter, digests=("one", layer))

    sent = side("conv2", 2, UniformQuantiser((4,), [1, 8]))
    assert function(sent, side("fc3", 3)) is function(side("fc3", 3), sent) is None
    assert names(sent, side("fc3", 3)) == ("conv2 at 1 bit a unit", "fc3")


def test_what_no_test_has_left_is_asked_now_and_draws_are_those_of_the_verb_sample(two_layers):
    main(["diff", *two_layers, *FEW])
    run = run_with_results()
    before, arrays = answer(run)
    main(["sample", *SMALL, "--num_images=2", "--num_draws=2"])
    assert np.array_equal(arrays["draws_b"], np.load(run / "draws.npy"))
    (run / "results.json").unlink()
    main(["diff", *two_layers, *FEW])
    found, _ = answer(run)
    assert found.num_tested == before.num_tested == 10
    assert found.log_prob.mean == pytest.approx(before.log_prob.mean, abs=1e-4)


def test_pairs_are_of_the_scores_that_bound_the_information(two_layers):
    main(["contrast", *SMALL, "--num_images=5"])
    main(["diff", *two_layers, *FEW])
    scores = np.load(run_with_results() / "scores.npy")
    found, _ = answer(run_with_results())
    odds = matching(scores)
    for pair in (*found.pairs_of_a, *found.pairs_of_b):
        assert pair.b == pytest.approx(odds[pair.first, pair.second], abs=1e-3)
    assert contrastive_bound(scores).mean <= math.log(5)


def test_what_cannot_be_compared_is_refused_in_a_sentence(with_inverter, capsys):
    def refused(*words):
        return failure(capsys, "diff", *words)

    fc3 = f"runs/{INVERTER}"
    assert "there is no run at runs/nothing; give runs/NAME" in refused(fc3, "runs/nothing")
    Path("runs/copies").mkdir()
    assert "no best checkpoint in" in refused(fc3, "runs/copies")
    assert "is not the checkpoint of an inverter" in refused("runs/classifier_mnist5k", fc3)
    assert "--num_images is 501 and there are 500 test images; give at most 500" in refused(
        fc3, fc3, "--num_images=501"
    )
    assert "--num_images is 1; give at least 2" in refused(fc3, fc3, "--num_images=1")
    main(["fit", "--config=unconditional_mnist5k.yaml", *SHORT[1:], "--trainer.max_steps=1"])
    assert "is of an unconditional model, which has no h" in refused(fc3, "runs/unconditional_mnist5k")
    main(["fit", "--config=deconvnet_mnist5k_fc3.yaml", "--trainer.accelerator=cpu", "--num_agreement=2",
          "--trainer.limit_test_batches=1"])  # fmt: skip
    said = refused(fc3, "runs/deconvnet_mnist5k_fc3")
    assert said.endswith("it has no log p(x | h) to ask for; give a run that has a likelihood")
    run = str(run_with_results())
    other = ["--data.seed=3", "--name=other_seed", "--classifier=null", "--model.weights=untrained"]
    main(["fit", *SHORT, "--trainer.max_steps=1", *other])
    assert "data's seed 0, and runs/inverter_mnist5k_fc3/other_seed 3, so" in refused(run, f"{fc3}/other_seed")
    main(["fit", "--config=world_glyph.yaml", "--trainer.accelerator=cpu", *SHORT[-3:], "--trainer.max_steps=1"])
    assert "give two runs of one data set" in refused(fc3, "runs/world_glyph")
