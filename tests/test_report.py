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

from evaluations.html import Table, page
from evaluations.report import sections
from evaluations.runs import runs_under

N, SIDE = 20, 8
LAYERS = ("conv1", "conv2", "fc3")


def write(folder, row, **arrays):
    """A run as a test leaves it."""
    folder.mkdir(parents=True)
    row = {"name": folder.name, "commit": "c0ffee", "checkpoint": "best.ckpt", **row}
    (folder / "results.json").write_text(json.dumps(row))
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)


def inverter_row(layer, per_pixel, **more):
    nce = per_pixel.astype(float).sum((1, 2))
    return {
        "dataset": "mnist5k", "kind": "inverter", "network": layer and "ConvNet", "layer": layer,
        "depth": layer and LAYERS.index(layer) + 1, "density": "PixelCNN", "classifier": layer and "classifier_mnist5k",
        "classifier_updates": 30, "num_images": N, "num_dims": SIDE**2, "nce_nats": nce.mean(),
        "nce_nats_se": nce.std(ddof=1) / N**0.5, "bits_per_dim": -nce.mean() / SIDE**2 / np.log(2),
        "shuffled_nce_nats": nce.mean() - 10, "class_agreement": 0.9, "class_agreement_se": 0.01, "num_samples": N,
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
    for name, passes in (("world_bit_drop", True), ("world_shuffled", False)):
        write_inverter(tmp_path / name, "fc3", -1, **world, passes=passes)
    for updates in (0, 100):
        root = tmp_path / "updates" / f"updates_{updates:06d}"
        more = {"classifier": "classifier_mnist5k_updates", "classifier_updates": updates}
        write_inverter(root / "inverter_mnist5k_fc3", "fc3", -6 + updates / 100, **more)
    folder = tmp_path / "inverter_mnist5k_fc3"
    names = ("one_nn", "im_s", "im_nn", "im_s_ratio", "im_nn_ratio")
    distances = {f"{name}{end}": 0.25 + k for k, name in enumerate(names) for end in ("", "_se")}
    more = {"num_images": 500, "num_samples": 10, "class_agreement": 0.9, "class_agreement_se": 0.01}
    (folder / "distances.json").write_text(json.dumps({**distances, **more}))
    shown = np.random.default_rng(1).integers(256, size=(2, 6, 1, SIDE, SIDE), dtype=np.uint8)
    far = np.sort(np.random.default_rng(1).uniform(size=(2, 6)))
    images = {"inputs": shown[:, 0], "samples": shown, "training": shown, "blind": shown}
    named = {f"{name}_distances": far for name in ("sample", "training", "blind")}
    np.savez(folder / "nearest.npz", **images, **named, num_samples=1024, space="layer")
    row = {"estimator": "binning", "estimate_nats": 2.345, "ceiling_nats": 3.0, "parameters": {}}
    (folder / "estimators.json").write_text(json.dumps([row]))
    (folder / "2026-01-01_00-00-00").mkdir()
    (folder / "2026-01-01_00-00-00" / "config.yaml").write_text("lr: 0.001 # <script>alert(1)</script>\n")
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


def test_numbers_in_the_tables_are_those_of_the_runs(all_runs, found):
    tables = found.tables
    header, *rows = tables["What the layers of mnist5k keep."]
    assert [row[0] for row in rows] == ["conv1", "conv2", "fc3", "nothing: p(x)"]
    by_name = {run.row["name"]: run for run in runs_under([all_runs]) if "updates" not in str(run.folder)}
    fc3, p_x = (by_name[name] for name in ("inverter_mnist5k_fc3", "unconditional_mnist5k"))
    cells = dict(zip(header, rows[2], strict=True))
    assert cells["NCE, nats"] == f"{fc3.row['nce_nats']:.2f} ± {fc3.row['nce_nats_se']:.2f}"
    gain = fc3.array("log_prob") - p_x.array("log_prob")
    assert cells["estimate of I(x; h), nats"].startswith(f"{gain.mean():.2f} ± {gain.std(ddof=1) / N**0.5:.2f} [")
    assert cells["NCE of the MSE decoder"].startswith(f"{by_name['mse_mnist5k_fc3'].row['nce_nats']:.2f}")
    assert tables["Accuracy of the classifiers whose layers are inverted."][1][-2:] == ["98.76 ± 0.11", "99.6"]
    assert tables["Of the same layers, nats."][1] == ["mnist5k fc3", "binning", "2.35", "3.00"]
    assert tables["Distances in the layer's space (the paper's table 1)."][1][-2] == "1.107 / 0.780"


def test_a_map_s_sum_is_the_estimate_in_the_table(found):
    header, _, _, fc3, _ = found.tables["What the layers of mnist5k keep."]
    estimate = fc3[header.index("estimate of I(x; h), nats")].split()[0]
    assert any(f"fc3: mean over {N} images, {estimate} nats in all" in image["alt"] for image in found.images)


def test_the_negative_control_is_to_fail(runs):
    _, bit_drop, shuffled = parts(runs)[0]["Known against measured, nats."]
    assert (bit_drop[-1], shuffled[-1]) == ("passes, as it must", "fails, as it must")
    for name, passes in (("shuffled", True), ("bit_drop", False)):
        file = runs / f"world_{name}" / "results.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "passes": passes}))
    _, bit_drop, shuffled = parts(runs)[0]["Known against measured, nats."]
    assert (bit_drop[-1], shuffled[-1]) == ("fails, but must pass", "passes, but must fail")


def test_text_of_files_is_not_markup(html, found):
    assert "<script>alert(1)</script>" in found.text
    assert "<script>" not in html


def test_a_run_on_other_images_is_left_out_of_what_is_paired(runs):
    np.save(runs / "inverter_mnist5k_conv2" / "index.npy", np.arange(N)[::-1])
    tables, words = parts(runs)
    assert [row[0] for row in tables["What the layers of mnist5k keep."]][1:3] == ["conv1", "fc3"]
    assert "Left out, because tested on other images than these: inverter_mnist5k_conv2." in words


def test_nothing_is_shown_that_was_not_measured(tmp_path):
    write_inverter(tmp_path / "inverter_mnist5k_conv1", "conv1", -1)
    write(tmp_path / "inverter_old", {"num_images": 5})
    tables, words = parts(tmp_path)
    assert list(tables) == ["What the layers of mnist5k keep."]
    assert "tested by an older version: inverter_old" in words
    assert "There is no estimate of I(x; h) without an unconditional model" in words


def test_a_rise_of_nce_is_called_a_weak_inverter(runs):
    assert "as it should be" in parts(runs)[1]
    folder = runs / "inverter_mnist5k_fc3"
    np.save(folder / "log_prob.npy", np.load(folder / "log_prob.npy") + 500)
    assert "fc3 above conv2 by" in parts(runs)[1]


def test_points_over_training_are_density_models_and_regular_comes_first(runs):
    more = {"classifier": "classifier_mnist5k_updates", "classifier_updates": 100, "density": "MSEDecoder"}
    write_inverter(runs / "updates" / "updates_000100" / "mse_mnist5k_fc3", "fc3", -9, **more)
    more = {"classifier": "classifier_mnist5k_overfitted", "classifier_updates": 100}
    write_inverter(runs / "updates" / "overfitted_000100" / "inverter_mnist5k_fc3", "fc3", -5, **more)
    _, *rows = parts(runs)[0]["NCE over the classifier's training, nats."]
    assert [row[:2] for row in rows] == [["regular, fc3", "0"], ["regular, fc3", "100"], ["overfitted, fc3", "100"]]
    file = runs / "updates" / "updates_000100" / "inverter_mnist5k_fc3" / "results.json"
    assert rows[1][2].startswith(f"{json.loads(file.read_text())['nce_nats']:.2f} ±")


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
