"""What a reader can explore in a report: with a parser, and in a browser where there is one."""

import base64
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from small_runs import failure
from test_report import LAYERS, SIDE, N, Reader, all_runs, change, log_prob, parts, runs, write_inverter  # noqa: F401

from cli import main
from evaluations import report
from evaluations.report import sections
from evaluations.report.maps import explorable
from evaluations.report.page import Grid, Table, base64_of, json_block, page
from evaluations.report.tested_runs import runs_under
from evaluations.report.training import Course

EVIL = "<script>alert(1)</script>\"'&</script>"


def test_a_number_of_a_csv_is_left_as_it_is_and_what_a_spreadsheet_would_calculate_is_not():
    source = (Path(report.__file__).parent / "explorer.js").read_text()
    (pattern,) = re.findall(r"\(/(.*)/\.test\(text\) \? \"'\"", source)
    assert not any(re.search(pattern, text) for text in ("+1.23", "-4", "+.5", "-0.1 ± 2", "fc3"))
    assert all(re.search(pattern, text) for text in ("=1+1", "+A1", "-cmd", "@x", "\t=1", "+-1", "+"))


def test_the_headline_is_the_paired_estimate_of_the_last_layer_beside_the_first(all_runs):  # noqa: F811
    fc3, conv1, p_x = (log_prob(all_runs, f"{name}_mnist5k{rest}") for name, rest in (
        ("inverter", "_fc3"), ("inverter", "_conv1"), ("unconditional", "")))  # fmt: skip
    gain = fc3 - p_x
    error = gain.std(ddof=1) / N**0.5
    said = parts(all_runs).lead[0]
    assert said == f"fc3 keeps {gain.mean():.1f} ± {error:.1f} of conv1's {(conv1 - p_x).mean():.1f} nats."


def test_a_layer_that_tells_no_more_than_p_x_is_said_to(runs):  # noqa: F811
    np.save(runs / "inverter_mnist5k_fc3" / "log_prob.npy", log_prob(runs, "unconditional_mnist5k") - 1)
    assert parts(runs).lead[0].startswith("In fc3, p(x | h) finds no more than p(x) knows: -1.0 ± 0.0")


def test_without_p_x_the_headline_is_a_difference_of_nce(runs):  # noqa: F811
    shutil.rmtree(runs / "unconditional_mnist5k")
    assert parts(runs).lead[0].startswith("NCE of conv1 is ")
    assert " nats above that of fc3." in parts(runs).lead[0]


@pytest.mark.parametrize("with_p_x", [True, False])
def test_of_several_networks_the_headline_is_how_far_each_is_below_the_best_paired(runs, with_p_x):  # noqa: F811
    for name, level in (("deep", -0.5), ("wide", -9)):
        about = {"network": name, "network_digest": name, "classifier": f"classifier_{name}"}
        write_inverter(runs / f"inverter_{name}_fc3", "fc3", level, **about)
    p_x = log_prob(runs, "unconditional_mnist5k")
    if not with_p_x:
        shutil.rmtree(runs / "unconditional_mnist5k")
    best, *others = (log_prob(runs, f"inverter_{name}_fc3") for name in ("deep", "mnist5k", "wide"))
    told = [best - p_x if with_p_x else best, *(best - other for other in others)]
    of_best, first, second = (f"{one.mean():.1f} ± {one.std(ddof=1) / N**0.5:.1f}" for one in told)
    begins = f"fc3 of deep keeps {of_best} nats of the image, by estimate"
    if not with_p_x:
        begins = f"NCE of fc3 of deep is {of_best} nats an image"
    more = f"{first} more than fc3 of ConvNet and {second} more than fc3 of wide."
    assert parts(runs).lead[0] == f"{begins}, {more}"
    if with_p_x:
        np.save(runs / "unconditional_mnist5k" / "log_prob.npy", best + 1)
        nothing = "In fc3 of deep, p(x | h) finds no more than p(x) knows: -1.0 ± 0.0 nats"
        assert parts(runs).lead[0] == f"{nothing}, {more}"


def test_maps_to_explore_are_the_exact_ones_within_half_a_step(all_runs):  # noqa: F811
    (data,) = parts(all_runs).explorers
    assert [layer["name"] for layer in data["layers"]] == list(LAYERS)
    p_x = np.load(all_runs / "unconditional_mnist5k" / "log_prob_per_pixel.npy").astype(float)
    for layer in data["layers"]:
        exact = np.load(all_runs / f"inverter_mnist5k_{layer['name']}" / "log_prob_per_pixel.npy").astype(float) - p_x
        read = np.frombuffer(base64.b64decode(layer["map"]), "<i2").reshape(N, SIDE, SIDE) * layer["step"]
        assert abs(read - exact).max() <= layer["step"] / 2 + 1e-9
        assert layer["sums"] == pytest.approx(exact.sum((1, 2)), abs=1e-4)
        mean = np.frombuffer(base64.b64decode(layer["mean"]), "<f4").reshape(SIDE, SIDE)
        assert mean == pytest.approx(exact.mean(0), abs=1e-6)


def test_what_is_far_off_is_rounded_more_and_said_so_and_many_images_are_cut():
    maps = {"a": np.array([[[-100.0, 0.001]]])}
    data = explorable(maps, None, np.arange(1))
    step = data["layers"][0]["step"]
    assert step == pytest.approx(100 / 32767)
    assert f"rounded to {step:.2g}" in data["told"]
    data = explorable({"a": np.zeros((600, 64, 64))}, None, np.arange(600))
    assert data["count"] < data["total"] == 600
    assert f"the first {data['count']} of 600" in data["told"]


def test_pictures_that_a_test_kept_lie_behind_the_maps(runs):  # noqa: F811
    folder = runs / "inverter_mnist5k_fc3"
    images = np.random.default_rng(0).integers(256, size=(N, 1, SIDE, SIDE), dtype=np.uint8)
    assert parts(runs).explorers[0]["pictures"] == 4  # the inputs of the samples
    np.save(folder / "images.npy", images)
    (data,) = parts(runs).explorers
    assert (data["pictures"], data["images"]) == (N, base64_of(images))


@pytest.mark.parametrize(("last", "verdict"), [(-9.0, "still improving"), (-11, "getting worse"), (-10.01, "settled")])
def test_whether_training_had_ended_is_told_by_its_last_quarter(last, verdict):
    course = Course([(25, -40.0), (50, -20.0), (75, -10.0), (100, last)], 0.5)
    assert course.verdict == verdict
    assert course.last == (25, pytest.approx(last + 10))
    assert Course([(25, -40.0)], 0.5).verdict == "not known"


def test_learning_curves_are_those_of_the_metrics_and_a_broken_file_is_none(runs):  # noqa: F811
    folder = runs / "inverter_mnist5k_fc3" / "2026-01-01_00-00-00"
    folder.mkdir(exist_ok=True)
    change(runs / "inverter_mnist5k_fc3", checkpoint=f"{folder}/checkpoints/best.ckpt")
    (folder / "metrics.csv").write_text("epoch,step,val/nce_nats\n0,49,-900.5\n0,74,\n0,99,-500.25\n")
    table = parts(runs).tables["Of trainings."]
    assert table[1][:4] == ["fc3", "100", "-500.25", "50"]
    assert "Training had not ended for fc3" in parts(runs).words
    (folder / "metrics.csv").write_text("step,val/nce_nats\nx,y\n")
    assert "Of trainings." not in parts(runs).tables


def test_names_of_runs_layers_and_data_are_never_markup(runs):  # noqa: F811
    for name in ("inverter_mnist5k_conv1", "inverter_mnist5k_conv2", "inverter_mnist5k_fc3"):
        change(runs / name, layer=f"{EVIL}{name}", classifier=EVIL, dataset=EVIL, network=EVIL, name=EVIL)
    change(runs / "unconditional_mnist5k", dataset=EVIL)
    made = runs_under([runs])
    html = page(EVIL, sections(made, []), [run.result.to_json() for run in made])
    found = Reader(html)
    assert "<script>alert" not in html
    assert EVIL in found.text
    assert len(found.json) == 2
    assert found.json[0]["layers"][0]["name"].startswith(EVIL)


def test_json_in_a_page_has_no_character_of_html():
    block = json_block({"a": "</script><!--&\u2028"})
    inner = block.removeprefix('<script type="application/json">').removesuffix("</script>")
    assert not set("<>&\u2028") & set(inner)
    assert json.loads(inner) == {"a": "</script><!--&\u2028"}


def test_a_minus_sign_is_one_and_names_keep_their_hyphens():
    html = Table("", ["a"], [["-1.50 ± 0.10", "2026-01-02", "ResNet-18", "a -2"]]).html()
    assert "\N{MINUS SIGN}1.50" in html
    assert "2026-01-02" in html
    assert "ResNet-18" in html


def test_the_script_names_no_address_and_sets_no_markup():
    html = page("", [])
    assert not [word for word in ("http:", "https:", "innerHTML", "insertAdjacent", "eval(", "fetch(") if word in html]


def test_a_grid_has_every_image_once_and_a_word_for_each(all_runs):  # noqa: F811
    grids = [part for one in sections(runs_under([all_runs]), []) for part in one.parts if isinstance(part, Grid)]
    found = Reader(grids[0].html())
    assert len(found.images) == len(grids[0].inputs) * (1 + sum(c.shape[1] for c in grids[0].columns.values()))
    assert all(image["alt"] for image in found.images)


def test_the_first_picture_is_written_as_a_file_and_none_is_one_sentence(runs, capsys, monkeypatch):  # noqa: F811
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.chdir(runs)
    main(["report", ".", "--output", "a.html", "--picture", "a.png"])
    assert (runs / "a.png").read_bytes().startswith(b"\x89PNG")
    for file in runs.rglob("samples.npz"):
        file.unlink()
    assert "no picture for b.png" in failure(capsys, "report", ".", "--output", "b.html", "--picture", "b.png")
    assert not (runs / "b.html").exists()


TRIED = """<script>addEventListener("load", () => {
    const page = document.getElementById("page").contentWindow, at = page.document, found = [];
    const press = (element, name = "click") => element.dispatchEvent(new page.Event(name, {bubbles: true}));
    const place = at.querySelector(".explorer"), canvases = [...place.querySelectorAll("canvas")];
    const told = () => canvases.slice(1).map(canvas => canvas.previousSibling.lastChild.textContent);
    found.push(place.hidden, canvases.length, at.querySelectorAll(".still img")[0].offsetHeight, told().join());
    const slider = place.querySelector("input[type=range]");
    const order = place.querySelector("select");
    order.value = "2 up"; press(order, "change"); found.push(told()[2]);
    slider.value = slider.max; press(slider, "input"); found.push(told()[2]);
    canvases[3].dispatchEvent(new page.KeyboardEvent("keydown", {key: "ArrowUp"}));
    found.push(place.querySelector("output").textContent);
    const head = at.querySelector("th button"); press(head); press(head);
    found.push(head.parentNode.getAttribute("aria-sort"), at.documentElement.dataset.ready);
    const root = at.documentElement; found.push(root.scrollWidth - root.clientWidth);
    document.title = JSON.stringify(found);
})</script>"""


@pytest.mark.browser
@pytest.mark.parametrize("width", [400, 1200])
def test_a_browser_explores(all_runs, tmp_path, width):  # noqa: F811
    """Needs chromium. Its windows are 500 pixels wide at least, so the page is put in a frame."""
    (tmp_path / "page.html").write_text(page("", sections(runs_under([all_runs]), [])))
    frame = f'<iframe id="page" src="page.html" width="{width}" height="800"></iframe>'
    (tmp_path / "frame.html").write_text(f'<!DOCTYPE html><meta charset="utf-8">{TRIED}{frame}')
    chromium = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files",
                f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=10000", "--dump-dom"]  # fmt: skip
    command = [*chromium, (tmp_path / "frame.html").as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=240).stdout
    found = json.loads(shown.split("<title>")[1].split("</title>")[0])
    gains = {
        layer: log_prob(all_runs, f"inverter_mnist5k_{layer}") - log_prob(all_runs, "unconditional_mnist5k")
        for layer in LAYERS
    }
    nats = lambda value: f"{value:.2f} nats".replace("-", "\N{MINUS SIGN}")  # noqa: E731
    assert found[:4] == [False, 4, 0, ",".join(nats(gain[0]) for gain in gains.values())]
    assert found[4:6] == [nats(gains["fc3"].min()), nats(gains["fc3"].max())]
    p_x, fc3 = (np.load(all_runs / f"{name}" / "log_prob_per_pixel.npy").astype(float)
                for name in ("unconditional_mnist5k", "inverter_mnist5k_fc3"))  # fmt: skip
    pixel = (fc3 - p_x)[gains["fc3"].argmax(), SIDE // 2 - 1, SIDE // 2]
    assert found[6].startswith(f"row {SIDE // 2}, column {SIDE // 2 + 1}: conv1 ")
    assert float(found[6].split("fc3 ")[1].split(" ")[0].replace("\N{MINUS SIGN}", "-")) == pytest.approx(
        pixel, abs=6e-3
    )
    assert found[7:] == ["descending", "", 0]
