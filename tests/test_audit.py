"""The audit of a layer: what is measured stands in it in its order, and what is not is named with its command."""

import json
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_runs import SMALL, failure, run_with_results
from test_report import OTHER, TESTED, Reader, change, result_in, write, write_inverter

from cli import main
from evaluations import measurements, results
from evaluations.information import information_estimate
from evaluations.rates import Measured, curve
from evaluations.regions import Region, inside_and_outside, quarters, region
from evaluations.report.audit import audit_of, sections
from evaluations.report.cells import NONE
from evaluations.report.page import Code, Facts, Lead, Missing, Table, page

SIDE, AUDITED = 8, "inverter_mnist5k_fc3"
TITLES = [
    "Audit of fc3", "The attack", "What can be read, in nats", "What can be read, in pictures", "Where in the picture",
    "Whose is it?", "What it tells, by attribute", "If less of h is sent", "What each defence buys",
    "The proof in bytes", "Weights, data and machine", "What this page does not say",
]  # fmt: skip
NOTHING = {"network": None, "network_digest": None, "class_agreement": None, "shuffled_nce_nats": None}
OF_FC3 = {"name": AUDITED, "layer": "fc3", "network_digest": "of a network"}
DENSITY = {"density_digest": "of a density"}
CONTRAST = measurements.ContrastResult(
    **OF_FC3, num_images=256, bound_nats=4.25, bound_nats_se=0.1, bound_nats_low=4.05, bound_nats_high=4.45,
    ceiling_nats=np.log(256), density_digest="of a density", reidentified=tuple(
        measurements.Reidentification(
            attack="whose h is it", num_images=256, k=k, share=0.75, share_low=0.69, share_high=0.8
        ) for k in (1, 5)
    ),
)  # fmt: skip
LEDGER = measurements.LedgerResult(
    **OF_FC3, network="ConvNet", attribute="class", kind="discrete", kept_nats=2.1, kept_nats_se=0.05, kept_nats_low=2,
    kept_nats_high=2.2, entropy_nats=2.3, num_values=10, num_images=500, num_train=4000,
)  # fmt: skip
COMPRESSION = measurements.CompressionResult(
    **OF_FC3, num_images=500, num_dims=64, num_bytes=35_000, ideal_bytes=34_990.0, h_bytes=640_000,
    alone_bytes={"PNG": 90_000}, mosaic_bytes={"PNG": 80_000}, density_digest="of a density",
)  # fmt: skip


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """An inverter, p(x), another layer and another network, as tests leave them."""
    monkeypatch.chdir(tmp_path)
    folder = Path("runs")
    write_inverter(folder / AUDITED, "fc3", -3)
    write_inverter(folder / "unconditional_mnist5k", None, -4, **NOTHING)
    write_inverter(folder / "inverter_mnist5k_conv2", "conv2", -2)
    write_inverter(folder / "inverter_defended", "fc3", -3.5, **OTHER)
    write(folder / "classifier_mnist5k", results.ClassifierResult(
        **TESTED, name="classifier_mnist5k", dataset="mnist5k", num_images=500, accuracy=0.968, accuracy_se=0.008,
        checkpoint="best.ckpt",
    ))  # fmt: skip
    return folder


def asked(runs):
    """And what the verbs answer of the first."""
    for name, row in (("contrast", CONTRAST), ("ledger", [LEDGER]), ("compression", COMPRESSION)):
        rows = [one.to_json() for one in row] if isinstance(row, list) else row.to_json()
        (runs / AUDITED / f"{name}.json").write_text(json.dumps(rows))
    return runs


def parts(places, boxes=()):
    found = audit_of(places)
    return {section.title: list(section.parts) for section in sections(found, boxes)}


def missing(places):
    """The verbs that would make what is missing, by section."""
    return {
        title: [re.findall(r"cli\.py (\w+)", line)[0] for part in its if isinstance(part, Missing)
                for line in part.commands]
        for title, its in parts(places).items()
    }  # fmt: skip


def table(places, title, start, boxes=()):
    """The rows of a table by their first cells."""
    (one,) = [p for p in parts(places, boxes)[title] if isinstance(p, Table) and p.caption.startswith(start)]
    return {row[0]: row[1:] for row in one.rows}


def test_regions_add_up_to_the_whole_estimate():
    torch.manual_seed(0)
    given, without = torch.randn(2, 40, 9, 7).unbind()
    whole = information_estimate(given.double().sum((1, 2)), without.double().sum((1, 2))).mean
    for box in [*quarters(9, 7), region("face=2:5,1:6")]:
        inside, outside = inside_and_outside(given, without, box)
        assert inside.mean + outside.mean == pytest.approx(whole, abs=1e-9)
    assert sum(inside_and_outside(given, without, box)[0].mean for box in quarters(9, 7)[1:]) == pytest.approx(whole)
    changed = given.clone()
    changed[:, 2:5, 1:6] += 1
    before, after = (inside_and_outside(its, without, region("face=2:5,1:6")) for its in (given, changed))
    assert after[0].mean - before[0].mean == pytest.approx(15, abs=1e-5)
    assert after[1].mean == pytest.approx(before[1].mean, abs=1e-5)


def test_the_page_tells_the_nats_of_the_regions_that_are_given(runs):
    rows = table([runs / AUDITED, runs], "Where in the picture", "The estimate", [region("face=2:6,1:5")])
    nats = [float(rows[name][2].split(" ±")[0]) for name in ("face", "outside of face")]
    p_h, p_x = (np.load(runs / name / "log_prob.npy") for name in (AUDITED, "unconditional_mnist5k"))
    assert sum(nats) == pytest.approx((p_h - p_x).mean(), abs=0.011)
    assert rows["face"][0] == "rows 2 to 5, columns 1 to 4"
    assert [rows[name][1] for name in ("face", "outside of face")] == ["16", "48"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("face", "is no box; give NAME=TOP:BOTTOM,LEFT:RIGHT"),
        ("face=1:2", "is no box"),
        ("=1:2,3:4", "is no box"),
        ("face=5:5,1:2", "holds no pixel"),
        ("face=5:2,6:2", "holds no pixel"),
        ("face=1:2,3:9", "face=1:2,3:9 reaches beyond the 8 x 8 pixels"),
        ("face=1:99999999999999999999,3:4", "reaches beyond the 8 x 8 pixels"),
    ],
)
def test_a_box_that_cannot_be_is_one_sentence(runs, capsys, given, words):
    assert words in failure(capsys, "report", "--for", "audit", "--regions", given)
    assert not Path("runs/audit.html").exists()


def test_two_boxes_of_one_name_and_keys_without_an_audit_are_one_sentence(runs, capsys):
    twice = "face=1:2,1:2", "face=1:3,1:2"
    assert "two boxes called 'face'" in failure(capsys, "report", "--for", "audit", "--regions", *twice)
    assert "give --for audit too" in failure(capsys, "report", "--regions", "face=1:2,1:2")
    assert "leave away --for audit" in failure(capsys, "report", "--for", "audit", "--picture", "a.png")


def test_the_page_has_all_its_sections_in_their_order_whatever_was_measured(runs):
    places = [runs / AUDITED, runs]
    assert list(parts(places)) == TITLES
    assert list(parts([runs / AUDITED])) == TITLES
    asked(runs)
    assert list(parts(places)) == TITLES


def test_what_is_not_measured_is_named_with_its_command(runs):
    found = missing([runs / AUDITED])
    assert found["What can be read, in nats"] == ["contrast", "fit"]  # p(x)
    assert found["Where in the picture"] == ["fit"]
    assert found["Whose is it?"] == ["contrast", "fit", "contrast"]  # unseen classes
    assert found["What it tells, by attribute"] == ["ledger"]
    assert found["If less of h is sent"] == ["fit", "rates"]
    assert found["What each defence buys"] == ["fit", "fit", "report"]
    assert found["The proof in bytes"] == ["compress"]
    everything = missing([asked(runs) / AUDITED, runs])
    assert {title for title, verbs in everything.items() if verbs} == {
        "Whose is it?", "If less of h is sent", "What each defence buys"
    }  # fmt: skip
    assert everything["What each defence buys"] == ["diff"]


def of_unseen_classes(runs):
    """A second inverter of the same h, which was trained without some classes and asked about them."""
    folder = runs / "without" / AUDITED
    write_inverter(folder, "fc3", -5)
    row = CONTRAST.reidentified[0]
    unseen = replace(row, classes=(8, 9), unseen=True, num_images=50, share=0.5, share_low=0.37, share_high=0.63)
    found = replace(CONTRAST, reidentified=(row, unseen))
    (folder / "contrast.json").write_text(json.dumps(found.to_json()))
    return folder


def test_unseen_classes_are_found_by_one_that_never_saw_them_which_is_no_defence(runs):
    folder = of_unseen_classes(asked(runs))
    places = [runs / AUDITED, runs]
    assert missing(places)["Whose is it?"] == []
    (its,) = [p for p in parts(places)["Whose is it?"] if isinstance(p, Table)]
    assert [row[1] for row in its.rows] == ["256 unseen images"] * 2 + ["50 of unseen classes 8, 9"]
    assert its.rows[-1][0] == f"fc3, by {AUDITED}"
    assert AUDITED not in table(places, "What each defence buys", "Of the same")
    change(folder, network_digest="of another network")
    assert missing(places)["Whose is it?"] == ["fit", "contrast"]


def test_what_was_asked_is_made_again_by_the_page_s_own_commands(runs):
    of_unseen_classes(asked(runs))
    (code,) = [p for p in parts([runs / AUDITED, runs])["Weights, data and machine"] if isinstance(p, Code)]
    verbs = [re.findall(r"cli\.py (\w+)", line)[0] for line in code.lines]
    assert verbs == ["fit"] * 5 + ["contrast", "ledger", "compress", "contrast", "report"]
    assert re.search(f"contrast --config runs/without/{AUDITED}/.*config.yaml --name again", code.lines[-2])
    assert code.lines[6].endswith("--name again --num_images 500 --num_train 4000 --layers '['\"'\"'fc3'\"'\"']'")


def test_a_command_names_the_run_and_the_folder_that_it_is_in(runs):
    record = {"number": 1, "folder": "study", "named": True}
    shutil.copytree(runs / AUDITED, f"my runs/{AUDITED}/study")
    Path(f"my runs/{AUDITED}/study/run.json").write_text(json.dumps(record))
    (part,) = [p for p in parts([Path("my runs")])["What it tells, by attribute"] if isinstance(p, Missing)]
    command = f"python cli.py ledger --config {AUDITED} --name study --trainer.default_root_dir 'my runs'"
    assert part.commands == [command]


def test_what_is_of_other_weights_does_not_count(runs):
    asked(runs)
    change(runs / AUDITED, density_digest="of another density")
    (nats,) = [p for p in parts([runs / AUDITED])["What can be read, in nats"][1:] if isinstance(p, Missing)][:1]
    assert "of other weights" in nats.what
    assert "no bound was measured" not in str(parts([runs / AUDITED])["Audit of fc3"][0])  # nor is there p(x)


def test_the_verdict_has_the_guaranteed_bound_first_and_never_says_safe(runs):
    (lead,) = [p for p in parts([asked(runs) / AUDITED, runs])["Audit of fc3"] if isinstance(p, Lead)]
    interval = "95 % interval of the bound 4.05 to 4.45"
    assert lead.text == f"At least 4.05 nats an image are readable from fc3 ({interval})."
    rows = table([runs / AUDITED, runs], "What can be read, in nats", "Nats an image")
    assert list(rows)[:2] == ["I(x; h), at least", "I(x; h), estimated"]
    assert any("of 57 equally likely pictures" in part for part in parts([runs / AUDITED])["Audit of fc3"][1:])
    high = replace(CONTRAST, bound_nats=5.5, bound_nats_high=5.54)
    (runs / AUDITED / "contrast.json").write_text(json.dumps(high.to_json()))
    (lead,) = [p for p in parts([runs / AUDITED])["Audit of fc3"] if isinstance(p, Lead)]
    assert "to 5.54, of 5.55 that 256 images can show)" in lead.text
    low = replace(CONTRAST, bound_nats=0.1, bound_nats_low=-0.1)
    (runs / AUDITED / "contrast.json").write_text(json.dumps(low.to_json()))
    (lead,) = [p for p in parts([runs / AUDITED, runs])["Audit of fc3"] if isinstance(p, Lead)]
    assert lead.text.startswith("No leak was proven of fc3")
    words = parts([runs / AUDITED, runs])["Audit of fc3"]
    assert any("never that the rest is safe" in part for part in words if isinstance(part, str))


def test_the_first_inverter_that_is_given_is_audited_and_the_others_are_beside_it(runs):
    names = [AUDITED, "inverter_defended", "inverter_mnist5k_conv2"]
    for first in names:
        found = audit_of([runs / first, runs])
        assert found.result.name == first
        assert sorted(run.result.name for run in found.others) == sorted({*names} - {first})
        assert found.prior.result.name == "unconditional_mnist5k"
    found = audit_of([runs / "unconditional_mnist5k", runs / "classifier_mnist5k", runs / AUDITED])
    assert (found.result.name, found.others) == (AUDITED, [])


def test_a_defence_is_compared_by_paired_nats_with_the_accuracy_of_its_network(runs):
    places = [runs / AUDITED, runs]
    rows = table(places, "What each defence buys", "Of the same")
    ours, theirs = (np.load(runs / name / "log_prob.npy") for name in (AUDITED, "inverter_defended"))
    assert rows["inverter_defended"][3].startswith(f"{(theirs - ours).mean():.2f} ± ")
    assert rows["inverter_mnist5k_conv2"][5] == rows["fc3, audited"][5] == "96.8 [94.9, 98.0]"
    assert rows["inverter_defended"][5] == NONE  # of another network, whose classifier is not there
    np.save(runs / "inverter_defended" / "index.npy", np.arange(20)[::-1])
    assert "inverter_defended" not in table(places, "What each defence buys", "Of the same")
    assert "inverter_defended" in " ".join(p for p in parts(places)["What each defence buys"] if isinstance(p, str))


def test_a_later_layer_of_which_more_is_read_shows_that_the_numbers_are_too_low(runs):
    words = str(parts([runs / "inverter_mnist5k_conv2", runs])["What can be read, in nats"])
    assert "too low" not in words
    write_inverter(runs / AUDITED, "fc3", -1)
    places = [runs / "inverter_mnist5k_conv2", runs]
    assert "too low" in str(parts(places)["What can be read, in nats"])
    change(runs / "inverter_mnist5k_conv2", channel="UniformQuantiser, 1 bits a unit", rate="1 bit a unit")
    assert "too low" not in str(parts(places)["What can be read, in nats"])  # fc3 is of all of conv2
    assert "conv2 sent at 1 bit a unit" in parts(places)["Audit of conv2"][0].text


CHANNEL = {"channel": "UniformQuantiser, 1, 8 bits a unit", "rate": "8 bits a unit"}


def write_rates(runs):
    """What `rates` says of the inverter of what is sent."""
    right = torch.ones(20, dtype=torch.bool)
    found = curve([Measured(torch.linspace(-300, nce, 20).double(), right, right) for nce in (-100, -93)], right, None)
    rates = [
        {"rate": bits, "called": f"{bits:.0f} bits a unit", "bits": 50 * bits, "nominal_bits": 100 * bits, **its}
        for bits, its in zip((1.0, 8.0), found.rates, strict=True)
    ]
    about = {**OF_FC3, **DENSITY, **found.whole, "channel": "UniformQuantiser", "counted": "bits", "num_images": 20}
    about["prior"] = None
    path = runs / "inverter_sent" / "rates.json"
    path.write_text(json.dumps({**about, "rates": rates}))
    return path


def test_a_defence_by_a_channel_costs_the_accuracy_that_rates_measured_at_its_rate(runs):
    write_inverter(runs / "inverter_sent", "fc3", -3.2, **CHANNEL)
    places = [runs / AUDITED, runs]
    assert table(places, "What each defence buys", "Of the same")["inverter_sent"][5] == NONE
    path = write_rates(runs)
    found = json.loads(path.read_text())
    found["rates"][1]["accuracy"] = 0.75  # at 8 bits; of 20 images
    path.write_text(json.dumps(found))
    assert table(places, "What each defence buys", "Of the same")["inverter_sent"][5] == "75.0 [53.1, 88.8]"


def test_of_what_is_sent_the_attacker_has_the_bits_that_are_sent(runs):
    write_inverter(runs / AUDITED, "fc3", -3, **CHANNEL)
    path = runs / AUDITED / "compression.json"
    path.write_text(json.dumps(COMPRESSION.to_json()))  # as up to 0.12, of all of h
    assert missing([runs / AUDITED])["The proof in bytes"] == ["compress"]
    path.write_text(json.dumps(replace(COMPRESSION, rate="8 bits a unit", sent_bits=1200.0).to_json()))
    (facts, _) = [part for part in parts([runs / AUDITED])["The attack"] if isinstance(part, Facts)]
    assert "at 8 bits a unit, 150 bytes:" in dict(facts.rows)["h of one picture"]
    (its,) = [part for part in parts([runs / AUDITED])["The proof in bytes"] if isinstance(part, Table)]
    assert dict(zip(its.header, its.rows[0], strict=True))["h"] == "150.00"


@pytest.mark.parametrize("asked_of", [AUDITED, "inverter_sent"])
def test_the_rate_curve_is_that_of_a_channel_behind_the_audited_layer(runs, asked_of):
    write_inverter(runs / "inverter_sent", "fc3", -3.2, **CHANNEL)
    title = "If less of h is sent"
    assert missing([runs / asked_of, runs])[title] == ["rates"]
    write_rates(runs)
    its = parts([runs / asked_of, runs])[title]
    assert not any(isinstance(part, Missing) for part in its)
    assert any("by 3.5 ± " in part for part in its if isinstance(part, str))
    change(runs / "inverter_sent", network_digest="of another network")
    assert (missing([runs / asked_of, runs])[title] == ["fit", "rates"]) == (asked_of == AUDITED)


def test_a_training_that_had_not_ended_is_said_and_of_p_x_what_it_means_for_the_estimate(runs):
    course = "step,val/nce_nats\n" + "".join(f"{step},{-400 + step}\n" for step in range(9, 100, 10))
    for folder in (AUDITED, "unconditional_mnist5k"):
        its = runs / folder / "2026-01-01_00-00-00"
        its.mkdir()
        (its / "metrics.csv").write_text(course)
    words = " ".join(part for part in parts([runs / AUDITED, runs])["Audit of fc3"] if isinstance(part, str))
    assert "more of it would read more" in words
    assert "would make the estimate smaller" in words


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"layer": None, **NOTHING}, "an unconditional model, which has no h that could leak"),
        (dict.fromkeys(("nce_nats", "nce_nats_se", "bits_per_dim")), "PixelCNN has no log p(x | h), and so no nats"),
        ({"point_estimate": True}, "a point estimate"),
    ],
)
def test_what_cannot_be_audited_is_one_sentence(runs, capsys, changes, words):
    change(runs / AUDITED, **changes)
    said = failure(capsys, "report", "--for", "audit", str(runs / AUDITED))
    assert words in said
    assert "give the folder of a tested inverter" in said


def test_no_inverter_and_no_folder_are_one_sentence(runs, capsys):
    assert "no tested inverter" in failure(capsys, "report", "--for", "audit", "runs/classifier_mnist5k")
    assert "no folder nowhere" in failure(capsys, "report", "--for", "audit", "nowhere")


def test_every_name_is_escaped_and_the_page_needs_nothing_beside_it(runs):
    asked(runs)
    evil = '</script><img src="http://a.example/b" onerror="alert(1)">$x$'
    for folder in (AUDITED, "inverter_defended", "unconditional_mnist5k"):
        change(runs / folder, name=evil, density=evil, commit=evil, dataset=evil, dataset_note=evil, checkpoint=evil)
    change(runs / AUDITED, network=evil, classifier=evil, layer=evil)
    for name in ("contrast", "ledger"):
        path = runs / AUDITED / f"{name}.json"
        path.write_text(path.read_text().replace('"name": "', '"name": "<b>').replace('"class"', json.dumps(evil)))
    audit = audit_of([runs / AUDITED, runs])
    html = page("Audit", sections(audit, [Region("<i>", 0, 4, 0, 4)]))
    found = Reader(html)
    assert found.elsewhere == []
    assert all("onerror" not in image for image in found.images)
    assert "<b>" in found.text
    assert "<i>" in found.text
    assert evil in found.text


def test_the_verb_writes_one_page_whose_anchors_resolve(runs, capsys):
    main(["report", "--for", "audit", str(asked(runs) / AUDITED), "runs", "--regions", "face=1:5,2:6"])
    assert f"audit of fc3, {AUDITED} (runs/{AUDITED}), beside 2 more: runs/audit.html" in capsys.readouterr().out
    found = Reader(Path("runs/audit.html").read_text())
    assert set(found.anchors) < set(found.ids)
    for words in ("4.25 ± 0.10", "outside of face", "75.0 [69.4, 79.9]", "2.10 ± 0.05", "of a density", "never safety"):
        assert words in found.text


def test_a_trained_inverter_is_audited_and_all_of_it_made_again(with_inverter, capsys):
    main(["contrast", "--config", f"{AUDITED}.yaml", *SMALL[1:], "--num_images=3"])
    main(["report", "--for", "audit"])
    assert "audit of fc3" in capsys.readouterr().out
    found, run = Reader(Path("runs/audit.html").read_text()), run_with_results()
    assert result_in(run).network_digest in found.text
    (code,) = [p for p in parts([Path("runs")])["Weights, data and machine"] if isinstance(p, Code)]
    for line in code.lines:
        main(shlex.split(line)[2:])
    again = Path(f"runs/{AUDITED}/again")
    assert result_in(again).density_digest == result_in(run).density_digest
    assert np.array_equal(np.load(again / "scores.npy"), np.load(run / "scores.npy"))
