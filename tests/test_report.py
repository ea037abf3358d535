"""The report: every number in it is one of the runs', and the file needs nothing beside it."""

import base64
import io
import json
import math
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from evaluations import measurements, results
from evaluations.report import sections
from evaluations.report.cells import NONE
from evaluations.report.page import Explorer, Lead, Picture, Section, Table, page
from evaluations.report.tested_runs import runs_under

N, SIDE = 20, 8
LAYERS = ("conv1", "conv2", "fc3")
KEPT = "What the layers of mnist5k keep."
TESTED = {"commit": "c0ffee", "dataset_note": None, "network": "ConvNet", "network_digest": "of a network"}
OTHER = {"classifier": "classifier_other", "network_digest": "of another network"}
NO_LIKELIHOOD = dict.fromkeys(("nce_nats", "nce_nats_se", "bits_per_dim", "shuffled_nce_nats"))
BIT_DROP = results.WorldResult(
    entropy_nats=133.08, exact_nce_nats=-88.72, excess_nats=1.234, excess_nats_se=0.056, passes=True, must_fail=False
)
DISTANCES = measurements.DistancesResult(
    name="inverter_mnist5k_fc3", layer="fc3", seed=0, num_images=500, num_samples=10, class_agreement=0.8,
    class_agreement_se=0.02, one_nn=1.25, one_nn_se=0.1, im_s=2.25, im_s_se=1.1, im_nn=3.25, im_nn_se=2.1,
    im_s_ratio=4.25, im_s_ratio_se=3.1, im_nn_ratio=5.25, im_nn_ratio_se=4.1, network_digest="of a network",
    density_digest="of a density",
)  # fmt: skip
OPTIONAL = {"split", "published", "files", "class_agreement_low", "class_agreement_high", "bottleneck"}
OPTIONAL |= {"sees", "seen_shape", "image_shape", "preprocessing", "tokens", "pictures_digest"}
OPTIONAL |= {"training_images", "training_flop", "recipe"}
OPTIONAL |= {"diversity_over_h", "diversity_over_noise", "loss_weights", "channel", "rate"}
BINNING = measurements.EstimatorResult(
    estimator="a", estimate_nats=2.345, ceiling_nats=3.0, parameters={}, num_images=9, network_digest="of a network"
)


def write(folder, result):
    """A result as a test leaves it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(result.to_json()))


def result_in(folder):
    return results.result_from_json(json.loads((folder / "results.json").read_text()))


def change(folder, **more):
    """Other values in its result."""
    write(folder, replace(result_in(folder), **more))


def write_inverter(folder, layer, level, **more):
    """A run as a test leaves it."""
    rng = np.random.default_rng(len(folder.name))
    per_pixel = (level * rng.uniform(0.5, 1.5, (N, SIDE, SIDE))).astype(np.float32)
    log_prob = per_pixel.astype(float).sum((1, 2))
    nce = log_prob.mean()
    values = {
        "dataset": "mnist5k", "layer": layer, "depth": layer and LAYERS.index(layer) + 1, "density": "PixelCNN",
        "classifier": layer and "classifier_mnist5k", "classifier_updates": 30, "course": None, "num_images": N,
        "num_dims": SIDE**2, "nce_nats": nce, "nce_nats_se": log_prob.std(ddof=1) / N**0.5,
        "bits_per_dim": -nce / SIDE**2 / np.log(2), "shuffled_nce_nats": nce - 10, "class_agreement": 0.9,
        "class_agreement_se": 0.01, "num_samples": N, "density_digest": "of a density", "point_estimate": False,
        "world": None,
    }  # fmt: skip
    checkpoint = f"runs/{folder.name}/2026-01-01_00-00-00/checkpoints/best.ckpt"
    result = results.InverterResult(**{**TESTED, **values, **more}, name=folder.name, checkpoint=checkpoint)
    write(folder, result)
    np.save(folder / "index.npy", np.arange(N))
    if result.nce_nats is not None:
        np.save(folder / "log_prob_per_pixel.npy", per_pixel)
        np.save(folder / "log_prob.npy", log_prob)
    images = np.random.default_rng(0).integers(256, size=(4, 1, SIDE, SIDE), dtype=np.uint8)
    draws = np.stack([images] * (1 if result.point_estimate else 4), axis=1)
    np.savez(folder / "samples.npz", inputs=images, index=np.arange(4), draws=draws)


def write_over_training(runs, course, updates, layer, level, **more):
    folder = runs / "updates" / f"{course}_{updates:06d}" / f"inverter_mnist5k_{layer}"
    about = {"course": course, "classifier": f"a {course} one", "network_digest": f"{course} {updates}"}
    write_inverter(folder, layer, level, classifier_updates=updates, **about, **more)


@pytest.fixture(scope="module")
def all_runs(tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("runs")
    for k, layer in enumerate(LAYERS):
        write_inverter(tmp_path / f"inverter_mnist5k_{layer}", layer, -1 - k)
    write_inverter(tmp_path / "mse_mnist5k_fc3", "fc3", -5, density="MSEDecoder", point_estimate=True)
    unconditional = {"network": None, "network_digest": None, "class_agreement": None, "shuffled_nce_nats": None}
    write_inverter(tmp_path / "unconditional_mnist5k", None, -4, **unconditional)
    write(tmp_path / "classifier_mnist", results.ClassifierResult(
        **TESTED | {"dataset_note": "Of digits."}, name="classifier_mnist", dataset="mnist", num_images=10_000,
        accuracy=0.9876, accuracy_se=0.0011, checkpoint="best.ckpt", published=results.Published(accuracy=99.6),
    ))  # fmt: skip
    write_inverter(tmp_path / "my_bit_drop", "fc3", -1, dataset="a world", world=BIT_DROP)
    control = replace(BIT_DROP, passes=False, must_fail=True)
    write_inverter(tmp_path / "my_control", "fc3", -1, dataset="another", world=control)
    for updates in (0, 100):
        write_over_training(tmp_path, "regular", updates, "fc3", -6 + updates / 100)
    folder = tmp_path / "inverter_mnist5k_fc3"
    change(folder, published=results.Published(im_s_ratio=1.107, im_nn_ratio=0.78, note="those of MNIST"))
    (folder / "distances.json").write_text(json.dumps(DISTANCES.to_json()))
    (folder / "estimators.json").write_text(json.dumps([BINNING.to_json()]))
    shown = np.random.default_rng(1).integers(256, size=(2, 6, 1, SIDE, SIDE), dtype=np.uint8)
    far = np.sort(np.random.default_rng(1).uniform(size=(2, 6)))
    images = {"inputs": shown[:, 0], "samples": shown, "training": shown, "blind": shown}
    named = {f"{name}_distances": far for name in ("sample", "training", "blind")}
    np.savez(folder / "nearest.npz", **images, **named, num_samples=1024, space="layer")
    for day, text in (("01", "lr: 0.001 # <script>alert(1)</script>\n"), ("02", "lr: 9 # never tested\n")):
        (folder / f"2026-01-{day}_00-00-00").mkdir()
        (folder / f"2026-01-{day}_00-00-00" / "config.yaml").write_text(text)
    return tmp_path


@pytest.fixture
def runs(all_runs, tmp_path):
    """A copy to change."""
    return Path(shutil.copytree(all_runs, tmp_path / "runs"))


@pytest.fixture(scope="module")
def all_said(all_runs):
    return parts(all_runs)


@pytest.fixture(scope="module")
def html(all_runs):
    return page("What do the layers keep?", sections(runs_under([all_runs]), []))


@pytest.fixture(scope="module")
def found(html):
    return Reader(html)


class Reader(HTMLParser):
    """Checks the nesting; collects cells of tables, images, text and references to elsewhere."""

    def __init__(self, html):
        super().__init__()
        self.open, self.cells, self.images, self.elsewhere, self.text = [], [], [], [], ""
        self.ids, self.anchors, self.json = [], [], []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "img":
            self.images.append(attributes)
        elif tag not in ("meta", "input"):
            self.open.append(tag)
        self.elsewhere += [
            v for k, v in attributes.items() if k in ("src", "href") and not v.startswith(("data:", "#"))
        ]
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.anchors += [v[1:] for k, v in attributes.items() if k == "href" and v.startswith("#")]
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("script", "style"):
            self.json += [json.loads(data)] if data.startswith("{") else []
            return
        data = data.replace("\N{NO-BREAK SPACE}", " ").replace("\N{MINUS SIGN}", "-")
        self.text += data
        if self.open and self.open[-1] in ("td", "th"):
            self.cells[-1] += data


def parts(folder):
    """Tables' rows by caption, all words, and figures by the first words of what is said of them."""
    made = sections(runs_under([folder]), [])
    found = [part for section in made for part in section.parts]
    tables = {part.caption: [list(part.header), *part.rows] for part in found if isinstance(part, Table)}
    made_of = tables.pop("Of the runs.")
    return SimpleNamespace(
        tables=tables,
        made=made_of,
        words=" ".join(part for part in found if isinstance(part, str)),
        charts={part.caption[:30]: part.figure for section in made for part in section.pictures},
        lead=[part.text for part in found if isinstance(part, Lead)],
        explorers=[part.data for part in found if isinstance(part, Explorer)],
    )


def test_page_needs_nothing_beside_it_and_all_its_pictures_are_pictures(found):
    assert found.elsewhere == []
    kinds = [image["class"] for image in found.images]
    assert kinds.count("pixels") == 5  # nats by depth, fig 2, three maps
    assert kinds.count("chart") == 3  # fig 5a, table 1, 5b
    assert kinds.count("pixelated") == 3 * 5 + 4 * (1 + 3 * 3 + 1)  # in short; fig 1
    for image in found.images:
        assert image["alt"]
        head, data = image["src"].split(",")
        content = base64.b64decode(data)
        if image["class"] == "chart":
            assert head == "data:image/svg+xml;base64"
            assert ElementTree.fromstring(content).tag.endswith("svg")
        else:
            assert head == "data:image/png;base64"
            width = Image.open(io.BytesIO(content)).size[0]
            assert width > 200 if image["class"] == "pixels" else width == SIDE


def test_anchors_resolve_and_ids_are_unique(found):
    assert len(set(found.ids)) == len(found.ids)
    assert set(found.anchors) < set(found.ids)
    assert len(found.anchors) > 10
    twice = Reader(page("", [Section("a: b", ["c"]), Section("a; b", ["c"]), Section("numbers", ["c"])]))
    assert twice.anchors == ["a-b", "a-b-2", "numbers-2"]


def test_the_same_runs_give_the_same_page(all_runs, html):
    assert page("What do the layers keep?", sections(runs_under([all_runs]), [])) == html


def log_prob(runs, *names):
    return np.load(runs.joinpath(*names, "log_prob.npy"))


def nats(values):
    """Mean and standard error of [N] values, as cells have them; without the interval, which is random."""
    return f"{values.mean():.2f} ± {values.std(ddof=1) / len(values) ** 0.5:.2f}"


def without_intervals(rows):
    return [[cell.split(" [")[0] for cell in row] for row in rows]


def test_cells_of_the_page_are_those_of_the_tables(all_said, found):
    tables = (*all_said.tables.values(), all_said.made)  # which is the last
    assert found.cells == [cell for rows in tables for row in rows for cell in row]


def test_what_is_kept_is_that_of_the_runs(all_runs, all_said):
    of_layer = {layer: log_prob(all_runs, f"inverter_mnist5k_{layer}") for layer in LAYERS}
    p_x, decoder = (log_prob(all_runs, name) for name in ("unconditional_mnist5k", "mse_mnist5k_fc3"))
    header, *rows = all_said.tables[KEPT]
    assert header == [
        "layer", "images", "NCE, nats", "bits/dim", "NCE / |NCE of conv1|", "estimate of I(x; h), nats",
        "NCE with other images' h", "class agreement", "NCE of the MSE decoder",
    ]  # fmt: skip
    expected = []
    for layer in LAYERS:
        a, b = of_layer[layer], of_layer["conv1"]
        ratio = a.mean() / abs(b.mean())
        leave_one_out = np.array([np.delete(a, i).mean() / abs(np.delete(b, i).mean()) for i in range(N)])
        jackknife = ((N - 1) * leave_one_out.var()) ** 0.5
        cells = [layer, str(N), nats(a), f"{-a.mean() / SIDE**2 / np.log(2):.3f}", f"{ratio:.3f} ± {jackknife:.3f}"]
        mse = nats(decoder) if layer == "fc3" else "\N{EN DASH}"
        expected.append([*cells, nats(a - p_x), f"{a.mean() - 10:.2f}", "0.90", mse])
    bits = f"{-p_x.mean() / SIDE**2 / np.log(2):.3f}"
    expected.append(["nothing: p(x)", str(N), nats(p_x), bits, *["\N{EN DASH}"] * 5])
    assert without_intervals(rows) == expected
    assert without_intervals(all_said.tables["Differences of NCE, nats."][1:]) == [
        ["conv2 less conv1", nats(of_layer["conv2"] - of_layer["conv1"])],
        ["fc3 less conv2", nats(of_layer["fc3"] - of_layer["conv2"])],
    ]


def test_other_tables_are_those_of_the_runs(all_runs, all_said):
    assert all_said.tables["Accuracy of the classifiers whose layers are inverted."][1:] == [
        ["classifier_mnist", "mnist", "ConvNet", "10000", "98.76 [98.52, 98.96]", "99.6"]
    ]
    assert all_said.tables["Of the same layers, nats."][1:] == [["mnist5k fc3", "a", "9", "2.35", "3.00"]]
    header, row = all_said.tables["Distances in the layer's space (the paper's table 1)."]
    assert header[2:7] == ["1NN", "IM-S", "IM-NN", "IM-S / 1NN", "IM-NN / 1NN"]
    distances = ["1.25 ± 0.1", "2.25 ± 1.1", "3.25 ± 2.1", "4.250 ± 3.100", "5.250 ± 4.100"]
    assert row == ["mnist5k fc3", "500 x 10", *distances, "1.107 / 0.780", "0.80 [0.76, 0.83]"]
    assert "The paper's ratios beside mnist5k are those of MNIST:" in all_said.words
    assert "Of digits." in all_said.words
    header, *worlds = all_said.tables["Known against measured, nats."]
    assert header[1:6] == ["H(x)", "exact NCE", "measured NCE", "excess", "allowed"]
    for (name, *cells, _), run in zip(worlds, ("my_bit_drop", "my_control"), strict=True):
        result = result_in(all_runs / run)
        measured = f"{result.nce_nats:.3f} ± {result.nce_nats_se:.3f}"
        assert [name, *cells] == [run, "133.080", "-88.720", measured, "1.234 ± 0.056", "2.662"]


def test_charts_show_the_numbers_of_the_tables(all_runs, all_said):
    drawn, means = all_said.charts, [log_prob(all_runs, f"inverter_mnist5k_{layer}").mean() for layer in LAYERS]
    (axis,) = drawn["NCE over layers, relative to th"[:30]].axes
    assert axis.containers[0].lines[0].get_ydata() == pytest.approx([mean / abs(means[0]) for mean in means])
    (axis,) = drawn["The ratios, bars of one standard error."[:30]].axes
    ends = [container.lines[2][0].get_segments()[0][:, 1] for container in axis.containers]
    assert np.concatenate(ends) == pytest.approx([4.25 - 3.1, 4.25 + 3.1, 5.25 - 4.1, 5.25 + 4.1])
    (axis,) = drawn["NCE of mnist5k against the number"[:30]].axes
    nce = [run.result.nce_nats for run in runs_under([all_runs / "updates"])]
    assert axis.containers[0].lines[0].get_ydata() == pytest.approx(nce)


def test_maps_are_of_the_images_beside_them_and_sum_to_the_estimate_in_the_table(all_runs, all_said, found):
    names = ("inverter_mnist5k_fc3", "unconditional_mnist5k")
    fc3, p_x = (np.load(all_runs / name / "log_prob_per_pixel.npy").astype(float) for name in names)
    titles = [axis.get_title() for axis in all_said.charts[f"mnist5k, fc3: mean over {N} images"[:30]].axes]
    assert {f"{image.sum():.2f} nats" for image in (fc3 - p_x)[:4]} < set(titles)
    header, _, _, row, _ = all_said.tables[KEPT]
    estimate = row[header.index("estimate of I(x; h), nats")].split()[0]
    assert f"fc3: mean,\n{estimate} nats in all" in titles
    assert any(f"fc3: mean over {N} images, {estimate} nats in all" in image["alt"] for image in found.images)


def test_rows_in_which_p_x_is_better_are_named_and_left_to_it(runs):
    names = ("inverter_mnist5k_fc3", "unconditional_mnist5k")
    fc3, p_x = (np.load(runs / name / "log_prob_per_pixel.npy") for name in names)
    fc3[:, [2, 5]] = p_x[:, [2, 5]] - np.float32(0.25)
    np.save(runs / names[0] / "log_prob_per_pixel.npy", fc3)
    np.save(runs / names[0] / "log_prob.npy", fc3.astype(float).sum((1, 2)))
    change(runs / names[0], nce_nats=float(fc3.astype(float).sum((1, 2)).mean()))
    (table,) = (rows for words, rows in parts(runs).tables.items() if words.startswith("Rows of pixels in which"))
    assert [row[0] for row in table[1:]] == list(LAYERS)
    row, conv1 = (dict(zip(table[0], cells, strict=True)) for cells in (table[3], table[1]))
    gain = (fc3.astype(float) - p_x).sum((1, 2))
    assert row["estimate of I(x; h), nats"] == f"{gain.mean():.2f} ± {gain.std(ddof=1) / N**0.5:.2f}"
    assert row["such rows"] == f"2 (-{SIDE / 4:.2f}), 5 (-{SIDE / 4:.2f})"
    gain += 2 * SIDE / 4
    better = f"{gain.mean():.2f} ± {gain.std(ddof=1) / N**0.5:.2f}"
    assert row["with the better of the two in each row"] == better
    assert {row["such rows then"], conv1["such rows"], conv1["such rows then"]} == {"\N{EN DASH}"}


def test_the_negative_control_is_to_fail(runs, all_said):
    change(runs / "my_bit_drop", world=replace(BIT_DROP, passes=False))
    change(runs / "my_control", world=replace(BIT_DROP, must_fail=True))
    expected = ["passes, as it must", "fails, as it must"], ["fails, but must pass", "passes, but must fail"]
    for said, verdicts in zip((all_said, parts(runs)), expected, strict=True):
        assert [row[-1] for row in said.tables["Known against measured, nats."][1:]] == verdicts


def test_text_of_files_is_not_markup(html, found):
    assert "<script>alert(1)</script>" in found.text
    assert "never tested" not in found.text  # the config of a run that the numbers are not of
    assert "<script>alert" not in html
    assert html.count("<script>") == 1  # the page's own


def test_a_run_on_other_images_is_left_out_of_what_is_paired(runs):
    np.save(runs / "inverter_mnist5k_conv2" / "index.npy", np.arange(N)[::-1])
    said = parts(runs)
    assert [row[0] for row in said.tables[KEPT]][1:3] == ["conv1", "fc3"]
    assert "Left out, because tested on other images than these: inverter_mnist5k_conv2." in said.words


@pytest.mark.parametrize("other", [{"pictures_digest": "of others of the same name"}, {"num_dims": 4 * SIDE**2}])
def test_runs_on_other_pictures_of_the_same_name_are_not_paired(runs, other):
    change(runs / "inverter_mnist5k_conv2", **other)
    said = parts(runs)
    assert "Left out, because tested on other images than these: inverter_mnist5k_conv2." in said.words


def test_what_is_taken_of_tokens_and_how_a_network_sees_are_experiments_of_their_own(runs):
    for number, more in enumerate(({"tokens": "mean"}, {"preprocessing": {"side": 32}}, {})):
        write_run(runs, f"run_{number}", 10 + number, "fc3", -2.0)
        change(runs / "inverter_mnist5k_fc3" / f"run_{number}", **more)
    found = [run for run in runs_under([runs]) if run.result.name == "inverter_mnist5k_fc3"]
    assert len({run.experiment[-4:] for run in found}) == 3


def test_nothing_is_shown_that_was_not_measured(tmp_path):
    write_inverter(tmp_path / "inverter_mnist5k_conv1", "conv1", -1)
    said = parts(tmp_path)
    assert "as it should be" not in said.words
    assert list(said.tables) == [KEPT]
    assert "There is no estimate of I(x; h) without an unconditional model" in said.words


def test_a_rise_of_nce_is_called_a_weak_inverter(runs, all_said):
    assert "as it should be" in all_said.words
    usual = log_prob(runs, "inverter_mnist5k_fc3")
    for more, words in ((500, "fc3 above conv2 by"), (-500, "nothing: p(x) above fc3 by")):
        np.save(runs / "inverter_mnist5k_fc3" / "log_prob.npy", usual + more)
        assert words in parts(runs).words


def test_layers_of_other_weights_are_not_compared_as_layers(runs, all_said):
    assert "Differences of NCE, nats." in all_said.tables
    change(runs / "inverter_mnist5k_fc3", network_digest="of the same network, trained again")
    said = parts(runs)
    assert "Differences of NCE, nats." not in said.tables
    assert "as it should be" not in said.words
    assert "classifiers of one name and other weights" in said.words
    assert "NCE over layers, relative to th"[:30] not in said.charts


def test_a_sweep_stands_apart(runs, all_said):
    folders = runs / "a_sweep" / "lr=1" / "inverter_mnist5k_fc3", runs / "inverter_mnist5k_fc3"
    write_inverter(folders[0], "fc3", -9, network_digest="of another network", class_agreement=0.7)
    after = parts(runs).tables
    its, usual = map(log_prob, folders)
    (row,) = without_intervals(after.pop("Other settings.")[1:])
    assert row == [str(folders[0]), nats(its), "0.70", nats(its - usual), str(folders[1])]
    assert after == all_said.tables


def write_run(runs, name, number, layer, level, named=None):
    """A run in the folder of fc3's config; it is a copy where it says another name."""
    folder = runs / "inverter_mnist5k_fc3" / name
    write_inverter(folder, layer, level)
    change(folder, name="inverter_mnist5k_fc3")
    record = {"number": number, "folder": named or name, "named": True}
    (folder / "run.json").write_text(json.dumps(record))
    return log_prob(folder)


def test_the_newest_run_of_an_experiment_is_its_row_and_another_layer_has_its_own(runs, all_said):
    shutil.rmtree(runs / "inverter_mnist5k_conv2")
    write_run(runs, "2099", 1, "fc3", -2)
    fc3, conv2 = write_run(runs, "2026", 3, "fc3", -2.5), write_run(runs, "2025", 2, "conv2", -1.5)
    shutil.copytree(runs / "inverter_mnist5k_fc3/2026", runs / "inverter_mnist5k_fc3/zz_copy")
    change(runs / "inverter_mnist5k_fc3/zz_copy", nce_nats=-1.0)
    said = parts(runs)
    rows = {row[0]: row[2] for row in said.tables[KEPT][1:]}
    assert (rows["fc3"], rows["conv2"]) == (nats(fc3), nats(conv2))
    assert len(rows) == len(all_said.tables[KEPT]) - 1
    assert "Other settings." not in said.tables


def test_what_is_measured_now_of_a_run_that_version_0_4_tested_counts(runs):
    """Its results lie beside its folder, what was asked since in it."""
    folder = runs / "inverter_mnist5k_fc3"
    new = replace(DISTANCES, num_images=7).with_files({"nearest.npz": (folder / "nearest.npz").read_bytes()})
    (folder / "2026-01-01_00-00-00/distances.json").write_text(json.dumps(new.to_json()))
    shutil.copy(folder / "nearest.npz", folder / "2026-01-01_00-00-00")
    said = parts(runs)
    assert said.tables["Distances in the layer's space (the paper's table 1)."][1][1] == "7 x 10"
    assert "mnist5k, fc3: the nearest of 1"[:30] in said.charts


@pytest.mark.parametrize("file", ["log_prob.npy", "nearest.npz"])
def test_a_file_of_another_test_is_not_taken_for_one_of_this(runs, file):
    folder = runs / "inverter_mnist5k_fc3"
    test, asked = result_in(folder), DISTANCES.with_files({"nearest.npz": (folder / "nearest.npz").read_bytes()})
    write(folder, test.with_files({path.name: path.read_bytes() for path in folder.glob("*.np*")}))
    (folder / "distances.json").write_text(json.dumps(asked.to_json()))
    parts(runs)
    other = runs / "inverter_mnist5k_conv2" / "log_prob.npy"
    shutil.copy(other, folder / file)
    with pytest.raises(ValueError, match=f"{file} cannot be read .its checksum is not the one that is given beside it"):
        parts(runs)


def test_two_classifiers_of_one_kind_have_rows_of_their_own(runs):
    write_inverter(runs / "inverter_other_fc3", "fc3", -9, **OTHER, published=results.Published(nce_nats=-715.17))
    change(runs / "inverter_mnist5k_fc3", published=results.Published(nce_nats=-704.01))
    said = parts(runs)
    names = [row[0] for row in said.tables[KEPT]]
    assert {"fc3 of classifier_mnist5k", "fc3 of classifier_other"} < set(names)
    assert "Other settings." not in said.tables
    assert said.tables[KEPT][0][4] == "NCE / |NCE of the first layer|"
    a, b = (log_prob(runs, name) for name in ("inverter_mnist5k_fc3", "inverter_other_fc3"))
    assert without_intervals(said.tables["Networks by their fc3 (the paper's section 5.2)."][1:]) == [
        ["classifier_mnist5k", nats(a), "-704.01", "\N{EN DASH}"],
        ["classifier_other", nats(b), "-715.17", nats(b - a)],
    ]
    assert not [caption for caption in said.tables if "by their conv1" in caption]
    (axis,) = said.charts["Differences of NCE of fc3, nats."[:30]].axes
    (paper,) = (line for line in axis.lines if line.get_fillstyle() == "none")
    assert paper.get_xdata() == pytest.approx(-715.17 + 704.01)


def test_networks_are_compared_at_every_layer_with_the_one_that_keeps_most(runs):
    for layer, level in (("conv1", -0.5), ("fc3", -9)):
        write_inverter(runs / f"inverter_other_{layer}", layer, level, **OTHER, dataset_note="A note.")
    said = parts(runs)
    for layer, best in (("conv1", "classifier_other"), ("fc3", "classifier_mnist5k")):
        header = said.tables[f"Networks by their {layer} (the paper's section 5.2)."][0]
        assert header[-1] == f"less that of {best}"
    assert "A note. Only differences can be compared" in said.words


def test_nce_is_relative_to_the_first_layer_whatever_its_name(runs):
    change(runs / "inverter_mnist5k_conv1", layer="stem")
    assert parts(runs).tables[KEPT][0][4] == "NCE / |NCE of stem|"
    change(runs / "inverter_mnist5k_conv1", depth=2)
    header, row, *_ = parts(runs).tables[KEPT]
    assert (header[4], row[4]) == ("NCE / |NCE of the first layer|", "\N{EN DASH}")


def test_a_generator_without_likelihood_is_shown_by_its_samples_alone(runs, all_said):
    write_inverter(runs / "gan_mnist5k_fc3", "fc3", -1, density="GAN", **NO_LIKELIHOOD)
    said = parts(runs)
    (row,) = (row for row in said.tables[KEPT] if row not in all_said.tables[KEPT])
    assert row == ["fc3, GAN", str(N), *["\N{EN DASH}"] * 5, "0.90 [0.70, 0.97]", "\N{EN DASH}"]
    said.tables[KEPT].remove(row)
    assert said.tables == all_said.tables
    assert "fc3, GAN" in [axis.get_title() for axis in said.charts["Test images, and draws from p("].axes]


@pytest.mark.parametrize(("digest", "lost"), [("density_digest", 1), ("network_digest", 2)])
def test_what_was_measured_on_an_earlier_model_is_left_out(runs, digest, lost):
    change(runs / "inverter_mnist5k_fc3", **{digest: "of a model that was trained since"})
    said = parts(runs)
    names = ("Distances in the layer's space (the paper's table 1).", "Of the same layers, nats.")
    assert [name not in said.tables for name in names] == [True, lost == 2]
    assert "The distances of inverter_mnist5k_fc3 are left out" in said.words
    assert ("The estimators of inverter_mnist5k_fc3 are left out" in said.words) == (lost == 2)
    assert "mnist5k, fc3: the nearest of 1"[:30] not in said.charts


def test_nearest_images_without_the_row_that_tells_their_weights_are_left_out(runs, all_said):
    title = "mnist5k, fc3: the nearest of 1"[:30]
    assert title in all_said.charts
    (runs / "inverter_mnist5k_fc3" / "distances.json").unlink()
    assert title not in parts(runs).charts


def test_over_training_there_are_paired_differences(runs):
    write_over_training(runs, "regular", 100, "conv2", -5.5)
    write_over_training(runs, "overfitted", 100, "fc3", -5)
    change(runs / "updates" / "overfitted_000100" / "inverter_mnist5k_fc3", network_digest="regular 100")
    more = {"classifier_updates": 100, "course": "regular", "point_estimate": True}
    write_inverter(runs / "updates" / "regular_000100" / "mse_mnist5k_fc3", "fc3", -9, **more)
    said = parts(runs)
    conv2 = log_prob(runs, "updates", "regular_000100", "inverter_mnist5k_conv2")
    courses = ("regular_000000", "regular_000100", "overfitted_000100")
    first, second, overfitted = (log_prob(runs, "updates", course, "inverter_mnist5k_fc3") for course in courses)
    p_x = log_prob(runs, "unconditional_mnist5k")
    assert without_intervals(said.tables["NCE, nats."][1:]) == [
        ["regular, conv2", "100", nats(conv2), nats(conv2 - p_x)],
        ["regular, fc3", "0", nats(first), nats(first - p_x)],
        ["regular, fc3", "100", nats(second), nats(second - p_x)],
        ["overfitted, fc3", "100", nats(overfitted), nats(overfitted - p_x)],
    ]
    assert without_intervals(said.tables["Differences of NCE, paired, nats."][1:]) == [
        ["regular, fc3: 100 less 0 updates", nats(second - first)],
        ["fc3, 100 updates: overfitted less regular", nats(overfitted - second)],
    ]
    assert said.words.count("regular, 100 updates: fc3 above conv2 by") == 1
    assert "Below 0 against p(x)" in said.words
    np.save(runs / "updates" / "overfitted_000100" / "inverter_mnist5k_fc3" / "index.npy", np.arange(N)[::-1])
    assert len(parts(runs).tables["Differences of NCE, paired, nats."]) == 2  # header and one


def test_a_number_and_its_error_stay_on_one_line():
    html = Table("", ["layer", "estimate"], [["fc3 of ConvNet", "1.00 ± 0.10 [-0.80, -1.20]"]]).html()
    assert "<td>1.00&nbsp;±&nbsp;0.10 [\N{MINUS SIGN}0.80,&nbsp;\N{MINUS SIGN}1.20]</td>" in html
    assert '<th scope="row">fc3 of ConvNet</th>' in html


@pytest.mark.parametrize("file", ["results.json", "log_prob.npy", "index.npy", "samples.npz", "distances.json"])
def test_a_broken_file_is_named(runs, file):
    path = runs / "inverter_mnist5k_fc3" / file
    if file == "index.npy":  # a pickle, which could run anything
        np.save(path, np.array([{}], dtype=object))
    else:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    again = "ask for the distances of" if file == "distances.json" else "test"
    with pytest.raises(ValueError, match=f"{file} cannot be read .*; delete it and {again} that config again"):
        parts(runs)


def test_results_are_what_was_written(all_runs):
    written = [run.result for run in runs_under([all_runs])]
    assert len(written) > 8
    for result in (*written, DISTANCES, BINNING):
        assert type(result).from_json(json.loads(json.dumps(result.to_json()))) == result


def test_an_unknown_error_is_null_in_json_and_no_part_of_a_cell(runs):
    change(runs / "inverter_mnist5k_fc3", nce_nats_se=math.nan)
    row = json.loads((runs / "inverter_mnist5k_fc3" / "results.json").read_text())
    assert row["nce_nats_se"] is None
    assert ["fc3", str(N), f"{row['nce_nats']:.2f}"] in [cells[:3] for cells in parts(runs).tables[KEPT]]


def test_four_of_four_are_not_certain(runs):
    change(runs / "inverter_mnist5k_fc3", class_agreement=1.0, class_agreement_se=0.0, num_samples=4)
    (row,) = [cells for cells in parts(runs).tables[KEPT] if cells[0] == "fc3"]
    assert row[7] == "1.00 [0.51, 1.00]"
    told = result_in(runs / "inverter_mnist5k_fc3").summary()
    assert "100.0% of 4 samples get the class predicted for their input (95 % interval 51.0% to 100.0%)" in told


def test_a_result_of_another_shape_is_one_sentence_that_names_the_file(all_runs, tmp_path):
    file, given = tmp_path / "results.json", json.loads((all_runs / "my_control" / "results.json").read_text())
    without = [{k: v for k, v in given.items() if k != key} for key in given.keys() - OPTIONAL]
    text = [{**given, key: "1"} for key, value in given.items() if isinstance(value, int | float)]
    broken = [{**given, "world": {**given["world"], "entropy_nats": "text"}}, {**given, "course": "x"}, [given, 1], []]
    assert len(text) > 10
    for row in (*without, *text, *broken):
        file.write_text(json.dumps(row))
        with pytest.raises(
            ValueError, match=f"{file} cannot be read .*; delete it and test that config again"
        ) as found:
            runs_under([tmp_path])
        assert "\n" not in str(found.value)


def test_a_row_of_version_0_4_is_read(all_runs, runs):
    """What names told then: the negative control, a point estimate, fig 5b; and a decoder's images were its means."""
    for name in ("inverter_mnist5k_fc3", "classifier_mnist"):
        change(runs / name, published=results.Published(), dataset_note=None)
    now = parts(runs)
    for file in runs.rglob("results.json"):
        row = json.loads(file.read_text())
        del row["dataset_note"], row["published"]
        if row["kind"] == "inverter":
            course, world, _ = row.pop("course"), row.pop("world"), row.pop("point_estimate")
            if course:
                row["classifier"] = "classifier_mnist5k_updates"
            if world:
                row |= world | {"dataset": "shuffled" if world.pop("must_fail") else "bit_drop"}
        file.write_text(json.dumps(row))
    file = runs / "mse_mnist5k_fc3" / "samples.npz"
    samples = dict(np.load(file))
    np.savez(file, means=samples.pop("draws")[:, 0], **samples)
    then = parts(runs)
    assert (then.tables, then.words, then.charts.keys()) == (now.tables, now.words, now.charts.keys())
    assert all(map(np.array_equal, *(runs_under([r / "mse_mnist5k_fc3"])[0].samples for r in (runs, all_runs))))


@pytest.mark.browser
@pytest.mark.parametrize("width", [400, 1200])
def test_a_browser_shows_every_picture_and_scrolls_only_down(html, tmp_path, width):
    """Needs chromium. Its windows are 500 pixels wide at least, so the page is put in a frame."""
    count = """<script>addEventListener("load", () => {
        const page = document.getElementById("page").contentDocument, root = page.documentElement;
        const pictures = [...page.images].filter(image => image.naturalWidth > 200).length;
        document.title = pictures + " pictures, " + (root.scrollWidth - root.clientWidth) + " too wide";
    })</script>"""
    (tmp_path / "page.html").write_text(html)
    frame = f'<iframe id="page" src="page.html" width="{width}" height="800"></iframe>'
    (tmp_path / "frame.html").write_text(f"<!DOCTYPE html>{count}{frame}")
    chromium = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files",
                f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=10000", "--dump-dom"]  # fmt: skip
    command = [*chromium, (tmp_path / "frame.html").as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    assert "<title>8 pictures, 0 too wide</title>" in shown


NATS = "Nats by depth: mnist5k, ConvNet (classifier_mnist5k)"[:30]


def test_nats_by_depth_are_those_of_the_table_with_standard_errors_and_a_draw_a_layer(all_runs, all_said):
    of_layer = [log_prob(all_runs, f"inverter_mnist5k_{layer}") for layer in LAYERS]
    p_x = log_prob(all_runs, "unconditional_mnist5k")
    nce, information, images = all_said.charts[NATS].axes
    assert [label.get_text() for label in information.get_xticklabels()] == [*LAYERS, "p(x)"]
    for axis, values in ((nce, of_layer), (information, [a - p_x for a in of_layer])):
        ends = [segment[:, 1] for segment in axis.containers[0].lines[2][0].get_segments()]
        for end, value in zip(ends, values, strict=True):
            error = value.std(ddof=1) / N**0.5
            assert end == pytest.approx([value.mean() - error, value.mean() + error])
    assert nce.containers[1].lines[0].get_ydata() == pytest.approx([p_x.mean()])
    columns = {round(image.get_extent()[0]) for image in images.images}
    assert len(columns) == 1 + len(LAYERS) + 1
    assert len(images.images) == 3 * len(columns)


def test_layers_of_any_depth_and_name_stand_in_the_order_of_execution(runs):
    for name, layer, depth in (("conv1", "encoder.layers.3.$mlp", 4.5), ("conv2", "stem", 0.25), ("fc3", "head", 5)):
        change(runs / f"inverter_mnist5k_{name}", layer=layer, depth=depth)
    nce = parts(runs).charts[NATS].axes[1]
    assert [label.get_text().replace("\n", "") for label in nce.get_xticklabels()][:3] == [
        "stem", r"encoder.layers.3.\$mlp", "head",
    ]  # fmt: skip


def test_without_p_x_or_samples_nats_by_depth_are_nce_alone(tmp_path):
    for k, layer in enumerate(LAYERS[:2]):
        write_inverter(tmp_path / f"inverter_mnist5k_{layer}", layer, -1 - k)
        (tmp_path / f"inverter_mnist5k_{layer}" / "samples.npz").unlink()
    (axis,) = parts(tmp_path).charts[NATS].axes
    assert axis.get_ylabel() == "NCE, nats"


def test_a_network_has_its_own_nats_by_depth_and_a_density_its_own_line(runs):
    for layer, level in (("conv1", -0.5), ("fc3", -9)):
        write_inverter(runs / f"inverter_other_{layer}", layer, level, **OTHER, network="OtherNet")
        write_inverter(runs / f"mine_mnist5k_{layer}", layer, level, density="Mine")
    charts = parts(runs).charts
    assert [line.get_label() for line in charts[NATS].axes[0].containers] == ["PixelCNN", "Mine", "p(x)"]
    other = charts["Nats by depth: mnist5k, OtherNet (classifier_other)"[:30]].axes[0]
    assert [line.get_label() for line in other.containers] == ["PixelCNN", "p(x)"]
    assert list(other.containers[0].lines[0].get_xdata()) == [0, 1]


def test_what_comes_after_a_branch_may_hold_more_than_it(runs):
    np.save(runs / "inverter_mnist5k_fc3" / "log_prob.npy", log_prob(runs, "inverter_mnist5k_fc3") + 500)
    for name in ("inverter_mnist5k_conv1", "inverter_mnist5k_conv2"):
        change(runs / name, bottleneck=False)
    words = parts(runs).words
    assert "fc3 above" not in words
    assert "What comes after conv1, conv2 may hold more" in words
    change(runs / "inverter_mnist5k_conv1", bottleneck=True)
    words = parts(runs).words
    assert "fc3 above conv1 by" in words
    assert "fc3 above conv2 by" not in words


def test_two_networks_of_one_name_of_weights_are_two(runs):
    """As two of torchvision's that are untrained."""
    for name in (*(f"inverter_mnist5k_{layer}" for layer in LAYERS), "mse_mnist5k_fc3"):
        change(runs / name, classifier="untrained")
    more = {"classifier": "untrained", "network": "OtherNet", "network_digest": "of another network"}
    write_inverter(runs / "inverter_other_fc3", "fc3", -9, **more)
    said = parts(runs)
    assert {"fc3 of ConvNet", "fc3 of OtherNet"} < {row[0] for row in said.tables[KEPT]}
    rows = said.tables["Networks by their fc3 (the paper's section 5.2)."][1:]
    assert [row[0] for row in rows] == ["untrained, ConvNet", "untrained, OtherNet"]


def test_what_sees_the_original_has_nats_of_its_own(runs):
    more = {"sees": "original", "seen_shape": (1, 16, 16), "image_shape": (1, SIDE, SIDE)}
    for layer in LAYERS[:2]:
        write_inverter(runs / f"original_mnist5k_{layer}", layer, -0.1, **more)
    charts = [part.caption for section in sections(runs_under([runs]), []) for part in section.parts
              if isinstance(part, Picture) and part.caption.startswith("Nats by depth")]  # fmt: skip
    assert len(charts) == 2
    assert "classifier_mnist5k, seen at 16x16)." in charts[0] + charts[1]
    assert "above conv1" not in parts(runs).words


def test_the_contrastive_bound_stands_beside_the_estimate_where_it_was_measured(runs, all_said):
    found = measurements.ContrastResult(
        name="a", layer="fc3", num_images=9, bound_nats=2.125, bound_nats_se=0.25, bound_nats_low=1.5,
        bound_nats_high=2.5, ceiling_nats=math.log(9), network_digest="of a network", density_digest="of a density",
    )  # fmt: skip
    path = runs / "inverter_mnist5k_fc3" / "contrast.json"
    path.write_text(json.dumps(found.to_json()))
    said = parts(runs)
    cells = {row[0]: row[6] for row in said.tables[KEPT]}
    assert (cells["fc3"], cells["conv1"]) == ("2.12 ± 0.25", NONE)
    assert "2.20 for fc3 (9 images). It stands near that for fc3" in said.words
    assert "contrastive bound" not in all_said.words
    path.write_text(json.dumps(replace(found, density_digest="of one that was trained since").to_json()))
    said = parts(runs)
    assert said.tables == all_said.tables
    assert "The contrast of inverter_mnist5k_fc3 are left out" in said.words
