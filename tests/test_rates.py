"""The verb `rates`, and a run whose images draw their rates at random."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from digests import run_digests
from small_runs import INVERTER, SHORT, SMALL, checkpoint_of, command, failure, run_with_results, signal_at, the_run

import inverters
from cli import main
from datamodules import MNIST5kDataModule
from evaluations.measurements import CompressionResult, LedgerResult
from evaluations.rates import Measured, RatesResult, curve
from evaluations.report import sections
from evaluations.report.rates import section
from evaluations.report.tested_runs import runs_under
from evaluations.results import result_from_json
from runtime.checkpoints import load_checkpoint

NAME = "inverter_mnist5k_fc3_rates"
SENT = [f"--config={NAME}.yaml", *SMALL[1:], "--model.channel.bits=[1, 8]"]
FIT = [
    "fit", *SENT, "--trainer.max_steps=7", "--trainer.val_check_interval=2", "--trainer.limit_train_batches=4",
    "--trainer.limit_val_batches=1", "--trainer.limit_test_batches=1",
]  # fmt: skip
ALONE = ["--model.channel.bits=[1]", "--trainer.default_root_dir=alone"]


@pytest.fixture(scope="module")
def sent_runs(trained_runs, tmp_path_factory):
    """runs/ with an inverter of two rates, and alone/ with one of the first rate alone."""
    folder = tmp_path_factory.mktemp("rates")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        shutil.copytree(trained_runs / "classifier_mnist5k", "runs/classifier_mnist5k", symlinks=True)
        main(FIT)
        classifier = checkpoint_of("classifier_mnist5k", "best")
        main([*FIT, *ALONE, f"--classifier={classifier}"])
        unconditional = ["--config=unconditional_mnist5k.yaml", *SHORT[1:], "--trainer.max_steps=1"]
        main(["fit", *unconditional, "--sample_grid.every_n_steps=5"])
    return folder


@pytest.fixture
def with_sent(sent_runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("runs", "alone"):
        shutil.copytree(sent_runs / name, name, symlinks=True)
    return tmp_path


def test_a_run_that_is_stopped_and_resumed_draws_the_same_rates(with_sent, sent_runs):
    whole = run_digests(the_run(sent_runs, NAME))
    shutil.rmtree(f"runs/{NAME}")
    with pytest.raises(SystemExit):
        main([*FIT, signal_at(3)])
    main([*FIT, "--ckpt_path=last"])
    assert run_digests(the_run(Path(), NAME)) == whole


def test_two_processes_draw_their_own_rates_and_have_one_channel(with_sent):
    shutil.rmtree(f"runs/{NAME}")
    command(Path(), *FIT, "--trainer.devices=2", "--trainer.strategy=ddp")
    two = load_checkpoint(checkpoint_of(NAME))
    assert two["channel"] == "UniformQuantiser, 1, 8 bits a unit"
    assert two["state_dict"]["channel.high"].max() > 0
    first, second = (states["torch"] for states in two["random_states"])
    assert not torch.equal(first, second)
    assert json.loads((run_with_results(NAME) / "results.json").read_text())["num_images"] == 20  # one batch of each


def test_the_verb_measures_every_rate_on_the_same_images(with_sent, capsys):
    few = ["--num_images=40", "--alone=[alone/inverter_mnist5k_fc3_rates]"]
    main(["rates", *SENT, *few])
    said = capsys.readouterr().out
    folder = run_with_results(NAME)
    found = RatesResult.from_json(json.loads((folder / "rates.json").read_text()))
    arrays = np.load(folder / "rates.npz")
    inverter = inverters.load(f"runs/{NAME}")
    low, high = found.rates
    assert [one.called for one in found.rates] == ["1 bit a unit", "8 bits a unit"]
    assert 0 < low.bits <= low.nominal_bits == 256
    assert low.bits < high.bits <= high.nominal_bits == 2048
    assert low.nce_nats == pytest.approx(arrays["log_prob_at_rates"][0].mean())
    assert high.gain_nats == pytest.approx(high.nce_nats - low.nce_nats)
    # The test is of the highest rate, and says so.
    tested = result_from_json(json.loads((folder / "results.json").read_text()))
    assert (tested.channel, tested.rate) == ("UniformQuantiser, 1, 8 bits a unit", "8 bits a unit")
    assert np.load(folder / "log_prob.npy") == pytest.approx(arrays["log_prob_at_rates"][1][:10], abs=1e-3)
    assert np.load(folder / "images.npy").shape[1:] == inverter.image_shape
    # Accuracy with all of h is the network's own, and 8 bits are as good as all.
    data = MNIST5kDataModule(num_train=100)
    data.setup("test")
    first = data.datasets["test"].first(40)
    scores = inverter._inverter.representation.output(first["image"])
    assert found.accuracy == pytest.approx((scores.argmax(1) == first["label"]).double().mean().item())
    assert high.agreement >= 0.95
    assert high.accuracy_lost == pytest.approx(found.accuracy - high.accuracy)
    assert found.prior is not None
    assert found.prior_nce_nats == pytest.approx(arrays["log_prob_prior"].mean())
    less = arrays["log_prob_alone"][0] - arrays["log_prob_at_rates"][0]
    assert low.alone.less_nats == pytest.approx(less.mean())
    assert high.alone is None
    assert arrays["draws_at_rates"].shape == (6, 2, 2, 1, 28, 28)
    assert found.sentence in said
    assert "trained alone" in said


def test_files_and_ledger_are_of_what_arrives_at_the_highest_rate(with_sent, capsys):
    main(["compress", *SENT, "--num_images=2", "--output=out.nats"])
    main(["decompress", *SENT, "--input=out.nats", "--h=out.h.npy", "--output=back.npy"])
    inverter, back, h = inverters.load(f"runs/{NAME}"), np.load("back.npy"), np.load("out.h.npy")
    arrived = inverter._inverter.arrived(inverter.h(back))
    assert torch.equal(torch.from_numpy(h), arrived)
    assert not torch.equal(arrived, inverter.h(back))
    file, again = inverter.compress(back)
    assert file == Path("out.nats").read_bytes()
    assert torch.equal(again, arrived)
    assert torch.equal(inverter.decompress(file, h), torch.from_numpy(back))
    folder = run_with_results(NAME)
    result = CompressionResult.from_json(json.loads((folder / "compression.json").read_text()))
    bits = float(inverter._inverter.channel.sent_bits[1])
    assert (result.rate, result.sent_bits, result.given_bytes) == ("8 bits a unit", bits, bits / 8)
    assert result.is_of(result_from_json(json.loads((folder / "results.json").read_text())))
    main(["ledger", *SENT, "--num_images=20", "--num_train=20", "--layers=[fc3, logits]"])
    rows = [LedgerResult.from_json(row) for row in json.loads((folder / "ledger.json").read_text())]
    sent = "UniformQuantiser, 1, 8 bits a unit", "8 bits a unit"
    assert [(one.layer, one.channel, one.rate) for one in rows] == [("fc3", *sent), ("logits", None, None)]
    said = capsys.readouterr().out
    assert f"of which {bits:,.1f} bits an image are sent" in said
    assert said.count(", at 8 bits a unit\n") == 1


def test_python_asks_each_rate(with_sent):
    inverter = inverters.load(f"runs/{NAME}")
    images = np.load(run_with_results(NAME) / "images.npy")[:3]
    found = inverter.rates(images)
    assert list(found) == ["1 bit a unit", "8 bits a unit"]
    assert torch.equal(found["8 bits a unit"], inverter.log_prob(images))
    assert not torch.equal(found["1 bit a unit"], found["8 bits a unit"])


def test_the_report_has_the_curve_and_keeps_it_apart_from_the_layers(with_sent, capsys):
    main(["rates", *SENT, "--num_images=20"])
    runs = runs_under([Path("runs")])
    found = section(runs)
    html = found.html()
    assert "What is sent of h" in html
    assert "1 bit a unit" in html
    assert "nothing: p(x)" in html
    assert "what is read of the picture, and accuracy, against the bits that are sent" in html
    titles = [one.title for one in sections(runs, [])]
    assert "What is sent of h" in titles
    # fc3 behind a channel is no layer of its data set's table.
    kept = [one.html() for one in sections(runs, []) if one.title == "mnist5k: what is kept"]
    assert not any(NAME in one for one in kept)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["rates", *SENT, "--model.channel=null"], "behind the layer; this config asks for none; give"),
        (["rates", *SENT, "--model.channel.bits=[1, 2]"], "this config asks for UniformQuantiser, 1, 2 bits a unit"),
        (["rates", *SENT, "--model.channel.bits=[]"], "bits of UniformQuantiser is []; give one or more rates"),
        (["rates", *SENT, "--model.channel.bits=[0]"], "bits has 0; give whole numbers from 1 to 16"),
        (["rates", *SENT, "--alone=[nowhere]"], "there is no run at nowhere"),
        (["rates", *SENT, f"--alone=[runs/{NAME}]"], "which is none of the rates of UniformQuantiser, 1, 8 bits"),
        (["rates", *SENT, "--alone=[runs/unconditional_mnist5k]"], "inverts None, of a network that is not the one"),
        (["rates", *SENT, f"--prior=runs/{NAME}"], "is p(x | fc3); give an unconditional model"),
        (["fit", *SENT, "--model.channel=UniformQuantizer"], "did you mean 'UniformQuantiser'?"),
        (["fit", *SENT, "--model.channel.bit=[1]"], "no key --model.channel.bit; did you mean --model.channel.bits?"),
        (["fit", "--config=unconditional_mnist5k.yaml", "--model.channel=UnitsKept", "--model.channel.shares=[1]"],
         "an unconditional model has no h to send"),
        (["fit", "--config=gan_mnist5k_fc3.yaml", "--model.channel=UnitsKept", "--model.channel.shares=[1]"],
         "has no likelihood, and a rate no nats"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_a_sentence(with_sent, capsys, arguments, said):
    assert said in failure(capsys, *arguments)


def test_an_inverter_of_all_of_h_has_no_rates(with_inverter, capsys):
    assert f"{INVERTER} has no channel: all of h is given" in failure(capsys, "rates", *SMALL)
    sent = [f"--config={NAME}.yaml", *SMALL[1:], f"--ckpt_path={checkpoint_of(kind='best')}"]
    assert "was trained with no channel behind the layer" in failure(capsys, "test", *sent)


def measured(means, correct=None):
    rng = np.random.default_rng(0)
    picture = torch.from_numpy(rng.normal(size=200))
    noise = [torch.from_numpy(rng.normal(size=200)) for _ in means]
    correct = correct or [None] * len(means)
    return [Measured(50 * picture + mean + n, c, c) for mean, n, c in zip(means, noise, correct, strict=True)]


def test_a_curve_says_what_the_task_does_not_need():
    whole = torch.ones(200, dtype=torch.bool)
    half, all_but_one = whole.clone(), whole.clone()
    half[:100], all_but_one[0] = False, False
    found = curve(measured([-500, -480, -460, -450, -450], [half, half, all_but_one, whole, whole]), whole, None)
    assert (found.whole["needed"], found.whole["settled"]) == (2, 3)
    assert found.whole["spare_nats"] == pytest.approx(10, abs=0.5)
    assert found.whole["spare_nats_se"] < 0.2  # paired: the picture's own 50 nats cancel
    assert found.rates[0]["accuracy_lost"] == 0.5
    rates = [
        {"rate": k, "called": f"{k} bits", "bits": 100.0 * k + 1, "nominal_bits": 1e4, **one}
        for k, one in enumerate(found.rates)
    ]
    about = {"name": "a", "layer": "b", "channel": "c", "counted": "d", "num_images": 200, "prior": None}
    digests = {"network_digest": "e", "density_digest": "f"}
    result = RatesResult.from_json({**about, **digests, **found.whole, "rates": rates})
    assert "From 201 bits on (2 bits) these 200 images show no loss of accuracy (99.5% of 100.0%)" in result.sentence
    assert "goes on rising, by 10.1 ± 0.1 nats up to 301 bits" in result.sentence
    assert "401 bits, the network still loses accuracy: it is right on 100.0%" in replace(result, needed=None).sentence
    assert RatesResult.from_json(result.to_json()) == result


def test_a_curve_without_a_task_and_one_that_is_not_finite():
    found = curve(measured([-5, -4]), None, measured([-9])[0].log_prob)  # with the noise of the first rate
    assert found.whole["needed"] is None
    assert found.whole["gain_of_first_nats"] == pytest.approx(4, abs=1e-9)
    broken = measured([-5, -4])
    broken[1].log_prob[3] = -torch.inf
    with pytest.raises(ValueError, match="log p of some test images is not finite at rate 2 of 2"):
        curve(broken, None, None)
