"""NCE against budget in the report: which runs are one experiment, and what is said of it."""

import io

import numpy as np
import pytest
from test_report import KEPT, N, nats, parts, write_inverter

from evaluations.budgets import Curve
from evaluations.charts import over_budgets
from evaluations.report import sections
from evaluations.report.tested_runs import runs_under

SECTION = "mnist5k: NCE against budget"
NO_LAYER = {"network": None, "network_digest": None, "class_agreement": None, "shuffled_nce_nats": None}
STEPS = (100, 400, 1600, 6400)
SPREAD = 50 * np.random.default_rng(0).standard_normal(N)


def write_budget(runs, layer, steps, mean, recipe="a recipe", **more):
    """A run of so many steps, whose images differ as those of all others do."""
    folder = runs / f"{layer}_{recipe}_{steps:06d}".replace(" ", "_")
    values = SPREAD - SPREAD.mean() + mean
    cost = {"training_images": 16 * steps, "training_flop": 16 * steps * 10**9, "recipe": f"{recipe} of {layer}"}
    cost |= {"nce_nats": values.mean(), "nce_nats_se": values.std(ddof=1) / N**0.5}
    write_inverter(folder, layer, -1, **cost | ({} if layer else NO_LAYER) | more)
    np.save(folder / "log_prob.npy", values)
    return values


def said(runs):
    """The parts of the section, None where there is none."""
    found = [section for section in sections(runs_under([runs]), []) if section.title == SECTION]
    return found[0].parts if found else None


@pytest.fixture
def runs(tmp_path):
    """fc3 by a law, with the limit -560, and p(x), which does not bend."""
    for k, steps in enumerate(STEPS):
        write_budget(tmp_path, "fc3", steps, -560 - 64 * 2.0**-k)
        write_budget(tmp_path, None, steps, -800 + 9 * k)
    return tmp_path


def test_every_estimate_has_its_verdict_and_its_limit(runs):
    within = f"is within its error over images, {SPREAD.std(ddof=1) / N**0.5:.2f}, and still moving by"
    over = "nats, paired, over the last factor of 4.0."
    *_, nce, p_x, information, _ = said(runs)
    assert nce.startswith(f"NCE of fc3 {within} +8.00 ± 0.00 {over} The power law goes to -56")
    assert "by C^-0.50, and misses no mean by more than 0.0" in nce
    assert "no power law" not in nce
    assert p_x.startswith(f"log p(x) {within} +9.00 ± 0.00 {over} ")
    unbent = "The fit does not bend: it is a line over ln C, or steeper, which has no limit"
    assert p_x.endswith(f"{unbent} (95 % interval infinity to infinity).")
    changed = (
        "over the last factor of 4.0 it changed by -1.00 ± 0.00 nats, paired, more than its error over images, 0.00."
    )
    assert information.startswith(f"The estimate of I(x; fc3) is still moving: {changed}")
    falls = " It falls, as p(x) gains more than p(x | h) does"
    assert falls in information
    assert not any(falls in sentence for sentence in (nce, p_x))
    write_budget(runs, None, STEPS[-1], -780)
    assert falls not in said(runs)[-2]
    assert "not how the same trainings would end with other seeds" in parts(runs).words


def test_points_are_those_of_the_runs_and_a_law_is_drawn_where_it_bends(runs):
    figure, table = said(runs)[2].figure, said(runs)[-1]
    nce, information = figure.axes
    flop = [16e9 * steps for steps in STEPS]
    for line, values in zip(nce.containers, ([-624, -592, -576, -568], [-800, -791, -782, -773]), strict=True):
        assert line.lines[0].get_xdata() == pytest.approx(flop)
        assert line.lines[0].get_ydata() == pytest.approx(values)
    assert information.containers[0].lines[0].get_ydata() == pytest.approx([176, 199, 206, 205])
    assert [line.get_linestyle() for line in nce.lines].count("--") == 1
    assert table.rows[1][:4] == ["NCE of fc3", "6400", "6.40e+12", nats(SPREAD - SPREAD.mean() - 592)]
    assert table.rows[1][4].startswith("32.00 ± 0.00")


def test_other_sections_show_the_longest_run_and_whether_it_has_settled(runs):
    tables = parts(runs).tables
    (header, fc3, p_x) = tables[KEPT]
    assert fc3[2] == nats(SPREAD - SPREAD.mean() - 568)
    assert (header[-1], fc3[-1]) == ("over budgets", "NCE within its error, still moving; I(x; h) still moving")
    assert p_x[-1] == "NCE within its error, still moving"
    assert "Other settings." not in tables


def test_log_probabilities_that_differ_by_a_factor_are_on_a_scale_of_factors(tmp_path):
    for steps, mean in zip(STEPS, (-3900, -950, -680, -574), strict=True):
        write_budget(tmp_path, "fc3", steps, mean)
    _, _, picture, words, _ = said(tmp_path)
    (axis,) = picture.figure.axes
    picture.figure.savefig(io.BytesIO())
    bottom, last, top = axis.transData.transform([(1e12, y) for y in (axis.get_ylim()[0], -680, -574)])[:, 1]
    assert top - last > 0.05 * (last - bottom)  # on a scale of nats it would be 0.03
    assert len(axis.get_yticks()) >= 4
    assert "no power law over all these budgets" in words


def test_what_changes_by_less_than_its_paired_error_has_settled(tmp_path):
    images = np.random.default_rng(1).standard_normal((len(STEPS), N))
    for k, steps in enumerate(STEPS):
        its = images[k] - images[k].mean() - 64 * 4.0**-k
        write_budget(tmp_path, "fc3", steps, -560)
        (folder,) = tmp_path.glob(f"*{steps:06d}")
        np.save(folder / "log_prob.npy", SPREAD - SPREAD.mean() - 560 + its)
    assert parts(tmp_path).tables[KEPT][1][-1] == "NCE within its error, still moving"  # by 3 nats
    np.save(folder / "log_prob.npy", SPREAD - SPREAD.mean() - 563 + its + 0.1)
    words = said(tmp_path)[3]
    assert words.startswith("NCE of fc3 has settled: over the last factor of 4.0 it changed by +0.10 ± 0.2")
    assert parts(tmp_path).tables[KEPT][1][-1] == "NCE settled"


@pytest.mark.parametrize("other", [
    {"recipe": "another"}, {"network_digest": "of another"}, {"pictures_digest": "of others"}, {"nce_nats": None},
    {"training_images": None}, {"training_images": 16 * STEPS[0]},
])  # fmt: skip
def test_what_differs_in_more_than_the_budget_or_not_in_it_is_no_budget(tmp_path, other):
    write_budget(tmp_path, "fc3", STEPS[0], -600)
    write_budget(tmp_path, "fc3", STEPS[1], -580, **other)
    assert said(tmp_path) is None
    assert "over budgets" not in parts(tmp_path).tables[KEPT][0]


def test_a_budget_that_was_run_twice_is_nobody_s_number(tmp_path):
    for steps, mean in ((100, -700), (6400, -568)):
        write_budget(tmp_path, "fc3", steps, mean)
    write_budget(tmp_path / "again", "fc3", 100, -699)
    (_, fc3) = parts(tmp_path).tables[KEPT]
    assert fc3[2] == nats(SPREAD - SPREAD.mean() - 568)


def test_one_test_image_has_a_figure_and_no_verdict():
    curve = Curve("fc3", np.array(STEPS), 1e9 * np.array(STEPS), -600 - np.arange(4.0)[:, None])
    over_budgets({"NCE": [curve]}).savefig(io.BytesIO())
    assert curve.verdict is None


def test_two_budgets_have_no_fit_and_none_of_a_quarter_no_verdict(tmp_path):
    for steps in (100, 200):
        write_budget(tmp_path, "fc3", steps, -600)
    *_, words, _ = said(tmp_path)
    assert words == (
        "NCE of fc3 has no run of a quarter of its largest budget, so that nothing is said of whether it has settled. "
        "Of fewer than three budgets there is no fit."
    )
    assert parts(tmp_path).tables[KEPT][1][-1] == "NCE \N{EN DASH}"


def test_a_difference_is_of_the_budgets_that_both_have(runs):
    for steps in (3000, 12000):
        write_budget(runs, "fc3", steps, -565)
    information = said(runs)[2].figure.axes[1]
    assert len(information.containers[0].lines[0].get_ydata()) == len(STEPS)
    (_, (*_, verdict), _) = parts(runs).tables[KEPT]
    assert verdict == "NCE settled"  # and nothing of a difference without the longest
