"""The figures show what was measured, with units, and no more."""

import io
import math
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.text import Text

from evaluations.charts import breakdown_chart, nce_differences, nce_over_layers, table1_ratios, training_dynamics
from evaluations.depth_profile import Measured, depth_profile
from evaluations.estimators import Breakdown
from evaluations.figures import contact_sheet, information_maps, layers_grid, nearest_grid, sample_grid
from evaluations.information import Estimate


def images(*shape):
    return np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)


def nearest_arrays(shown, far):
    """The same images and distances as nearest samples, training images and blind samples."""
    far_of = {f"{name}_distances": far for name in ("sample", "training", "blind")}
    return {"inputs": shown[:, 0], **dict.fromkeys(("samples", "training", "blind"), shown), **far_of}


def bars(axis, k=0):
    """The ends of the k-th error bars of a panel."""
    return [segment[:, 1].tolist() for segment in axis.containers[k].lines[2][0].get_segments()]


def test_relative_nce_has_the_intervals_as_bars_and_layers_in_their_order():
    estimates = {"conv1": Estimate(-1, 0, -1, -1), "fc3": Estimate(-2, 0.1, -2.3, -1.9)}
    groups = {"small": {"fc3": Estimate(-3, 0.1, -3.1, -2.9)}, "all": estimates}
    (axis,) = nce_over_layers(groups, ["conv1", "fc3"], "conv1").axes
    assert [label.get_text() for label in axis.get_xticklabels()] == ["conv1", "fc3"]
    assert bars(axis, 1)[1] == pytest.approx([-2.3, -1.9])
    assert axis.containers[0].lines[0].get_xdata() == [1]  # fc3, though it is that data set's only layer
    assert "|NCE of conv1|" in axis.get_ylabel()


def test_dynamics_have_one_colour_a_layer_and_a_tick_at_every_number_of_updates():
    points = {
        "regular": {"fc3": {0: (-700, 3), 1000: (-600, 2)}},
        "overfitted": {"conv2": {0: (-650, 3)}, "fc3": {0: (-700, 3)}},
    }
    figure = training_dynamics(points)
    first, second = figure.axes
    colours = {c.get_label(): c.lines[0].get_color() for c in second.containers}
    assert colours["fc3"] == first.containers[0].lines[0].get_color() != colours["conv2"]
    assert [tick.get_text() for tick in first.get_xticklabels()] == ["0", "1000"]
    assert bars(first) == [[-703, -697], [-602, -598]]
    assert "nats per image" in first.get_ylabel()
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {"fc3", "conv2"}


def test_the_papers_ratios_stand_only_beside_layers_that_it_has():
    layers = {"logits": {"IM-S / 1NN": (0.5, 0.1, None)}, "fc3": {"IM-S / 1NN": (0.4, 0.1, 1.107)}}
    (axis,) = table1_ratios({"mnist5k": layers}).axes
    (line,) = (line for line in axis.lines if line.get_fillstyle() == "none")
    assert line.get_ydata() == [1.107]
    assert line.get_xdata() == pytest.approx(1, abs=0.1)


def test_differences_name_their_reference_and_unit():
    measured = {"conv": Estimate(4, 1, 2, 6), "fc": Estimate(-9, 1, -11, -7)}
    figure = nce_differences(measured, {"fc": -11.16}, "pool")
    (axis,) = figure.axes
    assert axis.get_xlabel() == "NCE less that of pool, nats per image"
    assert [float(container.lines[0].get_xdata()[0]) for container in axis.containers] == [4, -9]
    ends = [container.lines[2][0].get_segments()[0][:, 0].tolist() for container in axis.containers]
    assert ends == [[2, 6], [-11, -7]]
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {"measured", "the paper's"}


def test_breakdown_is_the_error_in_nats():
    rows = [Breakdown("binning", d, 9, 2.0, 1.0 * d) for d in (1, 2, 4)]
    (axis,) = breakdown_chart(rows).axes
    assert list(axis.containers[0].lines[0].get_ydata()) == [1, 0, -2]
    assert "nats" in axis.get_ylabel()


def test_map_is_centred_at_nothing_and_its_titles_are_its_sums():
    mean, maps = np.array([[1.0, -3.0], [0.5, 0.0]]), np.full((2, 2, 2), 0.25)
    figure = information_maps(mean, images(2, 1, 2, 2), maps, "fc3")
    shown = {axis.get_title(): axis.images[0] for axis in figure.axes if axis.images}
    assert shown["fc3: mean,\n-1.50 nats in all"].get_clim() == (-3, 3)
    assert shown["1.00 nats"].get_clim()[0] == -shown["1.00 nats"].get_clim()[1]
    assert any("nats per pixel" in axis.get_ylabel() for axis in figure.axes)


def test_a_neighbour_that_is_missing_is_not_drawn():
    arrays = nearest_arrays(images(1, 2, 1, 4, 4), np.array([[0.5, 1.5]]))
    arrays["blind_distances"] = np.array([[0.5, math.nan]])
    drawn = [axis for axis in nearest_grid(arrays, "fc3").axes if axis.images]
    assert len(drawn) == 1 + 2 + 2 + 1
    figure = nearest_grid({**arrays, "blind_distances": np.full((1, 2), math.nan)}, "fc3")
    assert "as near by fc3, most different in pixels: none" in [axis.get_title(loc="left") for axis in figure.axes]


def test_layers_stand_beside_the_inputs_with_all_their_images():
    figure = layers_grid(images(3, 1, 4, 4), {"conv1": images(3, 2, 1, 4, 4), "conv1, MSE": images(3, 1, 1, 4, 4)})
    assert [axis.get_title() for axis in figure.axes[:3]] == ["input", "conv1", "conv1, MSE"]
    assert [axis.images[0].get_array().shape[1] for axis in figure.axes[:3]] == [4, 4 + 2 + 4, 4]


def test_figures_are_not_kept_by_pyplot():
    layers_grid(images(3, 1, 4, 4), {"conv1": images(3, 2, 1, 4, 4)})
    nce_differences({"conv": Estimate(4, 1, 2, 6)}, {}, "pool")
    assert plt.get_fignums() == []  # pyplot keeps what it makes until it is closed, and warns from the 21st on


def test_a_legend_is_whole_and_hides_nothing():
    measured = {"conv": Estimate(4, 1, 2, 6), "fc": Estimate(-9, 1, -11, -7)}
    names = ("binning", "kernel density, lower", "kernel density, upper", "nearest neighbours")
    rows = [Breakdown(name, d, 9, 1, d) for name in names for d in (1, 2)]
    for figure in (nce_differences(measured, {"fc": -11.16}, "pool"), breakdown_chart(rows)):
        figure.draw_without_rendering()
        legend, whole = figure.legends[0].get_window_extent(), figure.bbox
        assert not legend.overlaps(figure.axes[0].get_tightbbox())
        assert whole.x0 <= legend.x0 < legend.x1 <= whole.x1


def test_lines_on_top_of_one_another_can_all_be_seen():
    rows = [Breakdown(name, 1, 9, 1, 1) for name in ("lower", "upper")]
    lower, upper = (container.lines[0] for container in breakdown_chart(rows).axes[0].containers)
    assert lower.get_fillstyle() == upper.get_fillstyle() == "none"
    assert lower.get_markersize() > upper.get_markersize()


def test_long_titles_of_the_layers_grid_do_not_overlap():
    names = ("fc3 of ConvNet with global pooling", "fc3 of FullyConnectedNet")
    draws, mean = images(2, 3, 1, 4, 4), images(2, 1, 1, 4, 4)
    columns = {f"{name}{end}": shown for name in names for end, shown in (("", draws), (", MSE", mean))}
    figure = layers_grid(images(2, 1, 4, 4), columns)
    figure.draw_without_rendering()
    boxes = [axis.title.get_window_extent() for axis in figure.axes[: 1 + len(columns)]]
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))


def test_columns_of_the_nearest_are_evenly_spaced():
    figure = nearest_grid(nearest_arrays(images(1, 3, 1, 4, 4), np.array([[0.5, 1.0, 1.5]])), "fc3")
    figure.draw_without_rendering()
    steps = np.diff([axis.get_window_extent().x0 for axis in figure.axes[:4]])
    np.testing.assert_allclose(steps, steps[0])


def test_names_are_no_formulas():
    """A class, a layer or a data set may be called like one that Matplotlib cannot parse."""
    name, one = "$x^$", Estimate(-1, 0.1, -1.2, -0.8)
    shown = images(2, 3, 1, 4, 4)
    far = np.full((2, 3), np.nan)
    charts = [
        nce_over_layers({name: {name: one}}, [name], name),
        training_dynamics({name: {name: {0: (-1, 1)}}}),
        table1_ratios({name: {name: {"IM-S / 1NN": (0.5, 0.1, None)}}}),
        nce_differences({name: one}, {}, name),
        depth_profile([name], {name: {name: Measured(-1, 0.1, one)}}, (-2, 0.1), shown[:, 0], {name: shown[:, 0]}),
        contact_sheet(torch.from_numpy(shown[:, 0]), [name, name]),
        sample_grid(*map(torch.from_numpy, (shown[:, 0], shown)), name),
        layers_grid(shown[:, 0], {name: shown}),
        nearest_grid(nearest_arrays(shown, far), name),
        information_maps(np.zeros((4, 4)), shown[:, 0], np.zeros((2, 4, 4)), name),
    ]
    for figure in charts:
        figure.savefig(io.BytesIO(), dpi=20)
        assert any(name in text.get_text().replace(r"\$", "$") for text in figure.findobj(Text))


LONG = [
    "encoder.layers.encoder_layer_5.self_attention.out_proj", 'encoder["last_hidden_state"]',
    "features.denseblock4.denselayer16.conv2", "a_network_of_one_long_name_without_any_dot_at_all", "fc",
]  # fmt: skip


@pytest.mark.parametrize("layers", [LONG, [f"blocks.{k}.attn.proj" for k in range(40)], ["conv1", "fc"]])
def test_every_layer_of_a_depth_profile_can_be_read_and_stands_over_its_draws(layers):
    line, shown = (
        {layer: Measured(-k, 0.1, Estimate(9 - k, 0.1, 0, 0)) for k, layer in enumerate(layers)},
        images(3, 1, 6, 4),
    )
    figure = depth_profile(layers, {"A": line}, (-50, 1), shown, dict.fromkeys(layers, shown))
    figure.draw_without_rendering()
    nce, information, draws = figure.axes
    labels = [label.get_window_extent() for label in information.get_xticklabels()]
    assert all(a.x1 < b.x0 for a, b in pairwise(labels))
    whole, boxes = figure.bbox, [*labels, figure.legends[0].get_window_extent(), nce.yaxis.label.get_window_extent()]
    assert all(whole.x0 <= box.x0 < box.x1 <= whole.x1 and whole.y0 <= box.y0 for box in boxes)
    assert max(box.y1 for box in labels) <= information.bbox.y0
    assert min(box.y0 for box in labels) >= draws.bbox.y1
    assert all(label.get_size() >= 9 for label in information.get_xticklabels())
    for k, label in enumerate(labels):
        under = [image for image in draws.images if k == round(np.mean(image.get_extent()[:2]))]
        assert len(under) == (3 if k < len(layers) else 0)
        assert all(
            a <= (label.x0 + label.x1) / 2 <= b for a, b in (image.get_window_extent().intervalx for image in under)
        )
    cell = draws.images[0].get_window_extent()
    assert cell.height / cell.width == pytest.approx(6 / 4, rel=0.01)


def test_a_density_need_not_have_all_layers():
    lines = {
        "A": {"conv1": Measured(-1, 0.1, None), "fc": Measured(-3, 0.2, None)},
        "B": {"fc": Measured(-2, 0.3, None)},
    }
    (axis,) = depth_profile(["conv1", "fc"], lines, None, images(0, 1, 4, 4), {}).axes
    assert bars(axis, 0) == [[-1.1, -0.9], [-3.2, -2.8]]
    assert (axis.containers[1].lines[0].get_xdata(), bars(axis, 1)) == ([1], [[-2.3, -1.7]])


def test_a_long_name_of_a_layer_leaves_the_columns_where_they_are():
    image = torch.zeros(2, 1, 28, 28, dtype=torch.uint8)
    figure = sample_grid(image, image[:, None].expand(-1, 4, -1, -1, -1), "encoder.layers.encoder_layer_1.of_many")
    figure.canvas.draw()
    left = [axis.get_position().x0 for axis in figure.axes[:5]]
    assert np.diff(left) == pytest.approx(np.diff(left)[0], rel=0.05)
