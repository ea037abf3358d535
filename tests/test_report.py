"""The report: every number in it is one of the runs', and the file needs nothing beside it."""

import base64
import io
import json
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evaluations.html import Picture, Table, page
from evaluations.report import sections
from evaluations.runs import runs_under

N, SIDE = 20, 8
LAYERS = ("conv1", "conv2", "fc3")


def write(folder, row, **arrays):
    """A run as a test leaves it."""
    folder.mkdir(parents=True)
    checkpoint = f"runs/{folder.name}/2026-01-01_00-00-00/checkpoints/best.ckpt"
    row = {"name": folder.name, "commit": "c0ffee", "checkpoint": checkpoint, "network_digest": "of a network", **row}
    (folder / "results.json").write_text(json.dumps(row))
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)


def change(folder, **more):
    """Other values in its row of results; None takes one out."""
    file = folder / "results.json"
    row = {**json.loads(file.read_text()), **more}
    file.write_text(json.dumps({key: value for key, value in row.items() if value is not None}))


def inverter_row(layer, per_pixel, **more):
    nce = per_pixel.astype(float).sum((1, 2))
    return {
        "dataset": "mnist5k", "kind": "inverter", "network": layer and "ConvNet", "layer": layer,
        "depth": layer and LAYERS.index(layer) + 1, "density": "PixelCNN", "classifier": layer and "classifier_mnist5k",
        "classifier_updates": 30, "num_images": N, "num_dims": SIDE**2, "nce_nats": nce.mean(),
        "nce_nats_se": nce.std(ddof=1) / N**0.5, "bits_per_dim": -nce.mean() / SIDE**2 / np.log(2),
        "shuffled_nce_nats": nce.mean() - 10, "class_agreement": 0.9, "class_agreement_se": 0.01, "num_samples": N,
        "density_digest": "of a density",
        **more,
    }  # fmt: skip


def write_inverter(folder, layer, level, index=None, **more):
    rng = np.random.default_rng(len(folder.name))
    per_pixel = (level * rng.uniform(0.5, 1.5, (N, SIDE, SIDE))).astype(np.float32)
    arrays = {"log_prob_per_pixel": per_pixel, "log_prob": per_pixel.astype(float).sum((1, 2))}
    write(folder, inverter_row(layer, per_pixel, **more), index=np.arange(N) if index is None else index, **arrays)
    images = np.random.default_rng(0).integers(256, size=(4, 1, SIDE, SIDE), dtype=np.uint8)
    drawn = {"means": images} if more.get("density") == "MSEDecoder" else {"draws": np.stack([images] * 4, axis=1)}
    np.savez(folder / "samples.npz", inputs=images, index=np.arange(4), **drawn)


def write_over_training(runs, kind, updates, layer, level, **more):
    folder = runs / "updates" / f"{kind}_{updates:06d}" / f"inverter_mnist5k_{layer}"
    about = {"classifier": f"classifier_mnist5k_{kind}", "network_digest": f"{kind} {updates}"}
    write_inverter(folder, layer, level, classifier_updates=updates, **about, **more)


@pytest.fixture(scope="module")
def all_runs(tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("runs")
    for k, layer in enumerate(LAYERS):
        write_inverter(tmp_path / f"inverter_mnist5k_{layer}", layer, -1 - k)
    write_inverter(tmp_path / "mse_mnist5k_fc3", "fc3", -5, density="MSEDecoder")
    write_inverter(tmp_path / "unconditional_mnist5k", None, -4)
    classifier = {"kind": "classifier", "dataset": "mnist", "network": "ConvNet", "num_images": 10_000}
    write(tmp_path / "classifier_mnist", {**classifier, "accuracy": 0.9876, "accuracy_se": 0.0011})
    world = {"entropy_nats": 133.08, "exact_nce_nats": -88.72, "excess_nats": 1.234, "excess_nats_se": 0.056}
    for name, passes in (("bit_drop", True), ("shuffled", False)):
        write_inverter(tmp_path / f"my_{name}", "fc3", -1, dataset=f"world_{name}", **world, passes=passes)
    for updates in (0, 100):
        write_over_training(tmp_path, "updates", updates, "fc3", -6 + updates / 100)
    folder = tmp_path / "inverter_mnist5k_fc3"
    names = ("one_nn", "im_s", "im_nn", "im_s_ratio", "im_nn_ratio")
    distances = {name: 1.25 + k for k, name in enumerate(names)} | {f"{n}_se": 0.1 + k for k, n in enumerate(names)}
    more = {"num_images": 500, "num_samples": 10, "class_agreement": 0.8, "class_agreement_se": 0.02}
    digests = {"network_digest": "of a network", "density_digest": "of a density"}
    (folder / "distances.json").write_text(json.dumps({**distances, **more, **digests}))
    shown = np.random.default_rng(1).integers(256, size=(2, 6, 1, SIDE, SIDE), dtype=np.uint8)
    far = np.sort(np.random.default_rng(1).uniform(size=(2, 6)))
    images = {"inputs": shown[:, 0], "samples": shown, "training": shown, "blind": shown}
    named = {f"{name}_distances": far for name in ("sample", "training", "blind")}
    np.savez(folder / "nearest.npz", **images, **named, num_samples=1024, space="layer")
    row = {"estimator": "binning", "estimate_nats": 2.345, "ceiling_nats": 3.0, "num_images": 9, "parameters": {}}
    (folder / "estimators.json").write_text(json.dumps([{**row, "network_digest": "of a network"}]))
    for day, text in (("01", "lr: 0.001 # <script>alert(1)</script>\n"), ("02", "lr: 9 # never tested\n")):
        (folder / f"2026-01-{day}_00-00-00").mkdir()
        (folder / f"2026-01-{day}_00-00-00" / "config.yaml").write_text(text)
    return tmp_path


@pytest.fixture
def runs(all_runs, tmp_path):
    """A copy to change."""
    return Path(shutil.copytree(all_runs, tmp_path / "runs"))


@pytest.fixture(scope="module")
def html(all_runs):
    return page("What do the layers keep?", sections(runs_under([all_runs]), []))


@pytest.fixture(scope="module")
def found(html):
    reader = Reader()
    reader.feed(html)
    assert reader.open == []
    return reader


class Reader(HTMLParser):
    """Checks the nesting; collects tables by caption, images, text and references to elsewhere."""

    def __init__(self):
        super().__init__()
        self.open, self.tables, self.images, self.elsewhere, self.text = [], {}, [], [], ""

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag not in ("meta", "img"):
            self.open.append(tag)
        if tag == "img":
            self.images.append(attributes)
        self.elsewhere += [v for k, v in attributes.items() if k in ("src", "href") and not v.startswith("data:")]
        if tag == "table":
            self.rows, self.caption = [], ""
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag == "table":
            self.tables[self.caption] = self.rows

    def handle_data(self, data):
        data = data.replace("\N{NO-BREAK SPACE}", " ")
        self.text += data
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data
        if self.open and self.open[-1] == "caption":
            self.caption += data


def parts(folder):
    """Tables' rows by caption, and all words, without the time that it takes to draw figures."""
    found = [part for section in sections(runs_under([folder]), []) for part in section.parts]
    tables = {part.caption: [list(part.header), *part.rows] for part in found if isinstance(part, Table)}
    return tables, " ".join(part for part in found if isinstance(part, str))


def test_page_needs_nothing_beside_it_and_all_its_pictures_are_pictures(found):
    assert found.elsewhere == []
    assert len(found.images) == 8  # fig 1, 5a, table 1, fig 2, three maps, 5b
    for image in found.images:
        assert image["alt"]
        head, data = image["src"].split(",")
        assert head == "data:image/png;base64"
        assert Image.open(io.BytesIO(base64.b64decode(data))).size[0] > 200


def runs_by_name(folder):
    return {run.row["name"]: run for run in runs_under([folder]) if "updates" not in str(run.folder)}


def nats(values):
    """Mean and standard error of [N] values, as cells have them; without the interval, which is random."""
    return f"{values.mean():.2f} ± {values.std(ddof=1) / len(values) ** 0.5:.2f}"


def without_intervals(rows):
    return [[cell.split(" [")[0] for cell in row] for row in rows]


def test_what_is_kept_is_that_of_the_runs(all_runs, found):
    runs = runs_by_name(all_runs)
    log_prob = {layer: runs[f"inverter_mnist5k_{layer}"].array("log_prob") for layer in LAYERS}
    p_x, decoder = (runs[name].array("log_prob") for name in ("unconditional_mnist5k", "mse_mnist5k_fc3"))
    header, *rows = found.tables["What the layers of mnist5k keep."]
    assert header == [
        "layer", "images", "NCE, nats", "bits/dim", "NCE / |NCE of conv1|", "estimate of I(x; h), nats",
        "NCE with other images' h", "class agreement", "NCE of the MSE decoder",
    ]  # fmt: skip
    expected = []
    for layer in LAYERS:
        a, b = log_prob[layer], log_prob["conv1"]
        ratio = a.mean() / abs(b.mean())
        leave_one_out = np.array([np.delete(a, i).mean() / abs(np.delete(b, i).mean()) for i in range(N)])
        jackknife = ((N - 1) * leave_one_out.var()) ** 0.5
        cells = [layer, str(N), nats(a), f"{-a.mean() / SIDE**2 / np.log(2):.3f}", f"{ratio:.3f} ± {jackknife:.3f}"]
        mse = nats(decoder) if layer == "fc3" else "\N{EN DASH}"
        expected.append([*cells, nats(a - p_x), f"{a.mean() - 10:.2f}", "0.90 ± 0.01", mse])
    bits = f"{-p_x.mean() / SIDE**2 / np.log(2):.3f}"
    expected.append(["nothing: p(x)", str(N), nats(p_x), bits, *["\N{EN DASH}"] * 5])
    assert without_intervals(rows) == expected
    assert without_intervals(found.tables["Differences of NCE, nats."][1:]) == [
        ["conv2 less conv1", nats(log_prob["conv2"] - log_prob["conv1"])],
        ["fc3 less conv2", nats(log_prob["fc3"] - log_prob["conv2"])],
    ]


def test_other_tables_are_those_of_the_runs(all_runs, found):
    assert found.tables["Accuracy of the classifiers whose layers are inverted."][1:] == [
        ["classifier_mnist", "mnist", "ConvNet", "10000", "98.76 ± 0.11", "99.6"]
    ]
    assert found.tables["Of the same layers, nats."][1:] == [["mnist5k fc3", "binning", "9", "2.35", "3.00"]]
    header, row = found.tables["Distances in the layer's space (the paper's table 1)."]
    assert header[2:7] == ["1NN", "IM-S", "IM-NN", "IM-S / 1NN", "IM-NN / 1NN"]
    distances = ["1.25 ± 0.1", "2.25 ± 1.1", "3.25 ± 2.1", "4.250 ± 3.100", "5.250 ± 4.100"]
    assert row == ["mnist5k fc3", "500 x 10", *distances, "1.107 / 0.780", "0.80 ± 0.02"]
    header, *worlds = found.tables["Known against measured, nats."]
    assert header[1:6] == ["H(x)", "exact NCE", "measured NCE", "excess", "allowed"]
    for (name, *cells, _), run in zip(worlds, ("my_bit_drop", "my_shuffled"), strict=True):
        row = runs_by_name(all_runs)[run].row
        measured = f"{row['nce_nats']:.3f} ± {row['nce_nats_se']:.3f}"
        assert [name, *cells] == [run, "133.080", "-88.720", measured, "1.234 ± 0.056", "2.662"]


def charts(folder):
    """Figures by the first words of what is said of them."""
    found = [part for section in sections(runs_under([folder]), []) for part in section.parts]
    return {part.caption[:30]: part.figure for part in found if isinstance(part, Picture)}


def test_charts_show_the_numbers_of_the_tables(all_runs):
    runs, drawn = runs_by_name(all_runs), charts(all_runs)
    log_prob = {layer: runs[f"inverter_mnist5k_{layer}"].array("log_prob") for layer in LAYERS}
    (axis,) = drawn["NCE over layers, relative to th"[:30]].axes
    relative = [log_prob[layer].mean() / abs(log_prob["conv1"].mean()) for layer in LAYERS]
    assert axis.containers[0].lines[0].get_ydata() == pytest.approx(relative)
    (axis,) = drawn["The ratios, bars of one standard error."[:30]].axes
    ends = [container.lines[2][0].get_segments()[0][:, 1] for container in axis.containers]
    assert np.concatenate(ends) == pytest.approx([4.25 - 3.1, 4.25 + 3.1, 5.25 - 4.1, 5.25 + 4.1])
    (axis,) = drawn["NCE of mnist5k against the number"[:30]].axes
    rows = [run.row for run in runs_under([all_runs / "updates"])]
    assert axis.containers[0].lines[0].get_ydata() == pytest.approx([row["nce_nats"] for row in rows])


def test_maps_are_of_the_images_beside_them(all_runs):
    runs = runs_by_name(all_runs)
    fc3, p_x = (runs[n].array("log_prob_per_pixel") for n in ("inverter_mnist5k_fc3", "unconditional_mnist5k"))
    gain = fc3.astype(float) - p_x
    titles = [axis.get_title() for axis in charts(all_runs)[f"mnist5k, fc3: mean over {N} images"[:30]].axes]
    for image in gain[:4]:
        assert f"{image.sum():.2f} nats" in titles
    assert f"fc3: mean,\n{gain.sum((1, 2)).mean():.2f} nats in all" in titles


def test_a_map_s_sum_is_the_estimate_in_the_table(found):
    header, _, _, fc3, _ = found.tables["What the layers of mnist5k keep."]
    estimate = fc3[header.index("estimate of I(x; h), nats")].split()[0]
    assert any(f"fc3: mean over {N} images, {estimate} nats in all" in image["alt"] for image in found.images)


def test_the_negative_control_is_to_fail(runs):
    _, bit_drop, shuffled = parts(runs)[0]["Known against measured, nats."]
    assert (bit_drop[-1], shuffled[-1]) == ("passes, as it must", "fails, as it must")
    for name, passes in (("shuffled", True), ("bit_drop", False)):
        file = runs / f"my_{name}" / "results.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "passes": passes}))
    _, bit_drop, shuffled = parts(runs)[0]["Known against measured, nats."]
    assert (bit_drop[-1], shuffled[-1]) == ("fails, but must pass", "passes, but must fail")


def test_text_of_files_is_not_markup(html, found):
    assert "<script>alert(1)</script>" in found.text
    assert "never tested" not in found.text  # the config of a run that the numbers are not of
    assert "<script>" not in html


def test_a_run_on_other_images_is_left_out_of_what_is_paired(runs):
    np.save(runs / "inverter_mnist5k_conv2" / "index.npy", np.arange(N)[::-1])
    tables, words = parts(runs)
    assert [row[0] for row in tables["What the layers of mnist5k keep."]][1:3] == ["conv1", "fc3"]
    assert "Left out, because tested on other images than these: inverter_mnist5k_conv2." in words


def test_nothing_is_shown_that_was_not_measured(tmp_path):
    write_inverter(tmp_path / "inverter_mnist5k_conv1", "conv1", -1)
    write(tmp_path / "inverter_old", {"num_images": 5})
    change(tmp_path / "inverter_old", network_digest=None)
    tables, words = parts(tmp_path)
    assert "as it should be" not in words
    assert list(tables) == ["What the layers of mnist5k keep."]
    assert "tested by an older version: inverter_old" in words
    assert "There is no estimate of I(x; h) without an unconditional model" in words


def test_a_rise_of_nce_is_called_a_weak_inverter(runs):
    assert "as it should be" in parts(runs)[1]
    folder = runs / "inverter_mnist5k_fc3"
    usual = np.load(folder / "log_prob.npy")
    np.save(folder / "log_prob.npy", usual + 500)
    assert "fc3 above conv2 by" in parts(runs)[1]
    np.save(folder / "log_prob.npy", usual - 500)
    assert "nothing: p(x) above fc3 by" in parts(runs)[1]


def test_layers_of_other_weights_are_not_compared_as_layers(runs):
    assert "Differences of NCE, nats." in parts(runs)[0]
    change(runs / "inverter_mnist5k_fc3", network_digest="of the same network, trained again")
    tables, words = parts(runs)
    assert "Differences of NCE, nats." not in tables
    assert "as it should be" not in words
    assert "classifiers of one name and other weights" in words
    assert "NCE over layers, relative to th"[:30] not in charts(runs)


def test_a_sweep_stands_apart(runs):
    before = parts(runs)[0]
    more = {"network_digest": "of another network", "class_agreement": 0.7}
    write_inverter(runs / "a_sweep" / "lr=1" / "inverter_mnist5k_fc3", "fc3", -9, **more)
    after = parts(runs)[0]
    assert without_intervals(after.pop("Other settings.")[1:]) == [[
        str(runs / "a_sweep" / "lr=1" / "inverter_mnist5k_fc3"),
        nats(np.load(runs / "a_sweep" / "lr=1" / "inverter_mnist5k_fc3" / "log_prob.npy")),
        "0.70",
        nats(
            np.load(runs / "a_sweep" / "lr=1" / "inverter_mnist5k_fc3" / "log_prob.npy")
            - np.load(runs / "inverter_mnist5k_fc3" / "log_prob.npy")
        ),
        str(runs / "inverter_mnist5k_fc3"),
    ]]  # fmt: skip
    assert after == before


def test_two_classifiers_of_one_kind_have_rows_of_their_own(runs):
    more = {"classifier": "classifier_other", "network_digest": "of another network"}
    write_inverter(runs / "inverter_other_fc3", "fc3", -9, **more)
    tables, _ = parts(runs)
    names = [row[0] for row in tables["What the layers of mnist5k keep."]]
    assert {"fc3 of classifier_mnist5k", "fc3 of classifier_other"} < set(names)
    assert "Other settings." not in tables
    a, b = (np.load(runs / name / "log_prob.npy") for name in ("inverter_mnist5k_fc3", "inverter_other_fc3"))
    assert without_intervals(tables["Networks (the paper's section 5.2)."][1:]) == [
        ["classifier_mnist5k", nats(a), "\N{EN DASH}", "\N{EN DASH}"],
        ["classifier_other", nats(b), "\N{EN DASH}", nats(b - a)],
    ]


@pytest.mark.parametrize(("digest", "lost"), [("density_digest", 1), ("network_digest", 2)])
def test_what_was_measured_on_an_earlier_model_is_left_out(runs, digest, lost):
    change(runs / "inverter_mnist5k_fc3", **{digest: "of a model that was trained since"})
    tables, words = parts(runs)
    names = ("Distances in the layer's space (the paper's table 1).", "Of the same layers, nats.")
    assert [name not in tables for name in names] == [True, lost == 2]
    assert "The distances of inverter_mnist5k_fc3 are left out" in words
    assert ("The estimators of inverter_mnist5k_fc3 are left out" in words) == (lost == 2)
    assert "mnist5k, fc3: the nearest of 1"[:30] not in charts(runs)


def test_nearest_images_without_the_row_that_tells_their_weights_are_left_out(runs):
    title = "mnist5k, fc3: the nearest of 1"[:30]
    assert title in charts(runs)
    (runs / "inverter_mnist5k_fc3" / "distances.json").unlink()
    assert title not in charts(runs)


def test_over_training_there_are_paired_differences(runs):
    write_over_training(runs, "updates", 100, "conv2", -5.5)
    write_over_training(runs, "overfitted", 100, "fc3", -5)
    more = {"classifier": "classifier_mnist5k_updates", "classifier_updates": 100, "density": "MSEDecoder"}
    write_inverter(runs / "updates" / "updates_000100" / "mse_mnist5k_fc3", "fc3", -9, **more)
    tables, words = parts(runs)
    of = {
        (kind, n, layer): np.load(
            runs / "updates" / f"{kind}_{n:06d}" / f"inverter_mnist5k_{layer}" / "log_prob.npy"
        )
        for kind, n, layer in (
            ("updates", 100, "conv2"), ("updates", 0, "fc3"), ("updates", 100, "fc3"), ("overfitted", 100, "fc3")
        )
    }  # fmt: skip
    p_x = np.load(runs / "unconditional_mnist5k" / "log_prob.npy")
    names = ["regular, conv2", "regular, fc3", "regular, fc3", "overfitted, fc3"]
    assert without_intervals(tables["NCE, nats."][1:]) == [
        [name, str(n), nats(values), nats(values - p_x)]
        for name, ((_, n, _), values) in zip(names, of.items(), strict=True)
    ]
    _, first, second, overfitted = of.values()
    assert without_intervals(tables["Differences of NCE, paired, nats."][1:]) == [
        ["regular, fc3: 100 less 0 updates", nats(second - first)],
        ["fc3, 100 updates: overfitted less regular", nats(overfitted - second)],
    ]
    assert "regular, 100 updates: fc3 above conv2 by" in words
    assert "Below 0 against p(x)" in words
    np.save(runs / "updates" / "overfitted_000100" / "inverter_mnist5k_fc3" / "index.npy", np.arange(N)[::-1])
    assert len(parts(runs)[0]["Differences of NCE, paired, nats."]) == 2  # header and one


def test_a_number_and_its_error_stay_on_one_line():
    html = Table("", ["layer", "estimate"], [["fc3 of ConvNet", "1.00 ± 0.10 [-0.80, -1.20]"]]).html()
    assert "<td>1.00&nbsp;±&nbsp;0.10 [-0.80,&nbsp;-1.20]</td>" in html
    assert '<th scope="row">fc3 of ConvNet</th>' in html


@pytest.mark.parametrize("file", ["results.json", "log_prob.npy", "samples.npz"])
def test_a_broken_file_is_named(runs, file):
    path = runs / "inverter_mnist5k_fc3" / file
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=f"{file} cannot be read .* test that config again"):
        parts(runs)


def test_a_pickle_in_a_result_is_refused(runs):
    np.save(runs / "inverter_mnist5k_fc3" / "log_prob.npy", np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="cannot be read"):
        parts(runs)


@pytest.mark.slow
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
