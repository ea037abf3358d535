"""Every way to invert a layer, by measures that all have; the report sets them side by side."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_runs import INVERTER, SMALL, failure, run_with_results
from test_ddp import DIGITS, by_one_and_two

from cli import main
from commands.config_files import CONFIGS, config_names, read_config
from datamodules import CIFAR10DataModule, MNIST5kDataModule, MNISTDataModule, SVHNDataModule
from evaluations.comparison import Images, TrueImages, compared, diversities, signal_to_noise, structural_similarity
from evaluations.distances import nearest
from evaluations.diversity import diversity, pairwise_distances
from evaluations.measurements import ComparisonResult
from evaluations.report import compared as section
from evaluations.report.tested_runs import runs_under
from evaluations.trained_beside import config_of_p_x, train_p_x
from runtime.checkpoints import load_checkpoint

CLASSIFIER, P_X = "classifier_mnist5k", "unconditional_mnist5k"
COMPARE = ["compare", *SMALL, "--num_images=6", "--num_samples=3"]
MSE = ["--config=mse_mnist5k_fc3.yaml", *SMALL[2:]]
UNCONDITIONAL = [f"--config={P_X}.yaml", *SMALL[1:]]
SHORT = ["--trainer.max_steps=1", "--trainer.val_check_interval=1", "--trainer.limit_val_batches=1",
         "--trainer.limit_test_batches=1"]  # fmt: skip


def digits(n, seed=0):
    """Of two classes that differ, and images of one class too."""
    generator = torch.Generator().manual_seed(seed)
    classes = torch.arange(n) % 2
    levels = torch.randint(100, (n, 1, 12, 12), generator=generator) * (1 + classes)[:, None, None, None]
    return levels.byte(), classes


def everything_of(pixels):
    """What can be known of images, or of draws, by functions that are fixed."""
    flat = pixels.flatten(-3).double()
    h = flat @ torch.randn(144, 5, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    return Images(pixels, h, h[..., :3].argmax(-1), h[..., 2:].argmax(-1), -flat.sum(-1))


def test_identical_draws_have_no_diversity_and_true_images_of_the_class_that_of_true_images():
    real, classes = digits(600)
    drawn, of = digits(200, seed=1)
    same = diversity(drawn[:, None].expand(-1, 4, -1, -1, -1), real, classes, of)
    assert same == (0, 0)
    fresh = torch.stack([digits(200, seed)[0] for seed in range(2, 6)], 1)  # of the classes of the 200
    ratio, error = diversity(fresh, real, classes, of)
    assert abs(ratio - 1) < 4 * error < 0.05
    assert diversity(fresh[of == 1], real, classes)[0] > 1.2  # those are the brighter class alone


def test_diversity_is_the_mean_over_pairs_worked_by_hand():
    draws = torch.tensor([[[0.0, 0.0], [1.0, 3.0], [0.0, 2.0]]])  # pairs at 2, 1 and 1
    assert pairwise_distances(draws) == pytest.approx([4 / 3])
    real, classes = (
        torch.tensor([[0.0, 0.0], [8.0, 0.0], [5.0, 5.0], [5.0, 5.0], [9.0, 9.0]]),
        torch.tensor([0, 0, 1, 1, 2]),
    )
    assert diversity(draws, real, classes, torch.tensor([0]))[0] == pytest.approx(1 / 3)
    assert all(map(math.isnan, diversity(draws, real, classes, torch.tensor([1]))))  # which are all the same
    assert all(map(math.isnan, diversity(draws, real, classes, torch.tensor([2]))))  # of which there is one
    assert pairwise_distances(draws[:, :1]) == [0]


def test_the_error_of_diversity_is_its_spread_over_draws_of_images():
    def one(seed):
        rng = np.random.default_rng(seed)
        draws = torch.from_numpy(rng.gamma(2, size=(40, 1, 1)) * rng.normal(size=(40, 3, 8)))
        return diversity(draws, torch.from_numpy(rng.normal(size=(40, 8))), torch.zeros(40))

    found = np.array([one(seed) for seed in range(400)])
    assert found[:, 1].mean() == pytest.approx(found[:, 0].std(), rel=0.15)


def test_the_input_itself_is_no_error_and_agrees_with_itself_and_is_as_likely():
    images = everything_of(digits(9)[0])
    found, _ = compared(images, images.of_one(), torch.ones(9))
    assert (found.squared_error, found.psnr, found.ssim) == (0, None, pytest.approx(1, abs=1e-9))
    assert (found.class_agreement, found.judge_agreement, found.log_prob_difference) == (1, 1, 0)
    assert (found.im_s_ratio, found.im_nn_ratio, found.diversity) == (0, 0, None)


def test_the_nearest_training_image_is_at_its_own_distance():
    images, training = everything_of(digits(9)[0]), everything_of(digits(50, seed=3)[0])
    one_nn, rows = (found[:, 0] for found in nearest(images.h, training.h, 1))
    by_hand = [(images.h[i] - training.h).abs().mean(1) for i in range(9)]
    assert rows.tolist() == [int(far.argmin()) for far in by_hand]
    found, arrays = compared(images, everything_of(training.pixels[rows][:, None]), one_nn)
    assert (found.im_s_ratio, found.im_nn_ratio) == pytest.approx((1, 1))
    assert arrays["distance"][:, 0] == pytest.approx([float(far.min()) for far in by_hand])


def test_measures_are_those_of_the_definition():
    (image, _), (draws, _) = digits(4), digits(12, seed=4)
    images, drawn = everything_of(image), everything_of(draws.unflatten(0, (4, 3)))
    found, arrays = compared(images, drawn, torch.ones(4), diversities(drawn, TrueImages(draws, everything_of(draws).h,
                             digits(12)[1]), digits(4)[1]))  # fmt: skip
    error = ((draws.unflatten(0, (4, 3)).double() - image[:, None].double()) / 255).square().mean((2, 3, 4))
    assert arrays["squared_error"] == pytest.approx(error.numpy())
    assert found.squared_error == pytest.approx(error.mean().item())
    assert found.psnr == pytest.approx(10 * math.log10(1 / error.mean().item()))
    assert found.log_prob_difference == pytest.approx((drawn.log_prob - images.log_prob[:, None]).mean().item())
    assert found.class_agreement == (drawn.classes == images.classes[:, None]).double().mean().item()
    assert found.diversity_in_h > 0.5
    assert signal_to_noise(0.01, 0.001) == pytest.approx((20, 1 / math.log(10)))
    assert structural_similarity(image[..., :5], draws.unflatten(0, (4, 3))[..., :5]).isnan().all()


@pytest.fixture
def judged(with_inverter):
    """And a second classifier, and p(x), of a step each."""
    main(["fit", f"--config={CLASSIFIER}.yaml", "--seed_everything=1", "--trainer.default_root_dir=runs/judge",
          "--trainer.accelerator=cpu", *SHORT])  # fmt: skip
    main(["fit", *UNCONDITIONAL, *SHORT])
    return with_inverter


def comparison(name=INVERTER):
    folder = run_with_results(name)
    return ComparisonResult.from_json(json.loads((folder / "comparison.json").read_text()))


def test_two_ways_are_compared_and_stand_side_by_side_in_the_report(judged, capsys):
    main(["fit", *MSE, *SHORT, "--data.batch_size=8"])
    main(COMPARE)
    main(["compare", *MSE, "--num_images=6", "--num_samples=3"])
    row, mean = comparison(), comparison("mse_mnist5k_fc3")
    said = capsys.readouterr().out
    assert "PixelCNN, p(x | h)" in said
    assert "diversity 0.000 (a point estimate)" in said
    assert "no second classifier" not in said
    assert (row.called, row.point_estimate, row.num_images, row.num_samples) == ("PixelCNN, p(x | h)", False, 6, 3)
    assert not mean.collapsed
    assert replace(mean, point_estimate=False).collapsed
    assert (mean.called, mean.point_estimate, mean.own.diversity) == ("MSE decoder", True, 0)
    assert (row.nearest.im_s_ratio, row.input.squared_error, row.input.log_prob_difference) == pytest.approx((1, 0, 0))
    assert (row.nearest, row.input) == (mean.nearest, mean.input)  # of the same images
    assert row.own.log_prob_difference < 0  # draws of a step of training are noise
    assert row.seconds_per_draw > 0
    assert Path(row.judge).parent == Path(f"runs/judge/{CLASSIFIER}")
    arrays = np.load(run_with_results() / "comparison.npz")
    assert arrays["draws"].shape == (6, 3, 1, 28, 28)
    assert np.load(run_with_results("mse_mnist5k_fc3") / "comparison.npz")["draws"].shape == (6, 1, 1, 28, 28)
    found = section.section(runs_under([Path("runs")]))
    _, table, *remarks, picture = found.parts
    assert [cells[0] for cells in table.rows] == [row.called, mean.called, section.NEAREST, section.INPUT]
    assert [cells[1] for cells in table.rows] == ["3", "1", "\N{EN DASH}", "\N{EN DASH}"]
    assert table.rows[0][2] == f"{row.own.im_s_ratio:.3f} ± {row.own.im_s_ratio_se:.3f}"
    assert "0.000 ± 0.000" in table.rows[1]
    assert "\N{INFINITY}" in table.rows[-1]
    assert any(words.startswith("Point estimates, ") and "MSE decoder" in words for words in remarks)
    assert len(picture.figure.axes) == 6 * 4
    main(["report"])
    assert "Every way to invert, side by side" in Path("runs/report.html").read_text()


def test_what_judges_is_refused_where_it_is_something_else(judged, capsys):
    inverted = run_with_results() / "checkpoints" / "best.ckpt"
    for given, sentence in (
        (
            [f"--judge={inverted}"],
            f"--judge {inverted} is not the checkpoint of a classifier; give one of another seed",
        ),
        ([f"--judge=runs/{CLASSIFIER}"], "is the very network that is inverted; give one of another seed"),
        ([f"--prior={inverted}"], f"--prior {inverted} is p(x | fc3); give an unconditional model"),
        ([f"--prior=runs/{CLASSIFIER}"], "is not the checkpoint of an inverter"),
        (["--prior=nowhere"], "there is no run at nowhere"),
    ):
        assert sentence in failure(capsys, *COMPARE, *given)
    saved = load_checkpoint(run_with_results(P_X) / "checkpoints" / "best.ckpt")
    next(state for state in saved.values() if isinstance(state, dict) and "dataset" in state)["dataset"] = "svhn"
    torch.save(saved, "other.ckpt")
    assert "--prior other.ckpt was trained on svhn, not on mnist5k" in failure(capsys, *COMPARE, "--prior=other.ckpt")
    assert "no layer to measure distances in" in failure(capsys, "compare", *UNCONDITIONAL)
    assert not (run_with_results() / "comparison.json").exists()


def test_without_judge_and_prior_their_columns_are_left_out_with_how_to_get_them(with_inverter, capsys):
    shutil.copytree(f"runs/{CLASSIFIER}", f"runs/judge/{CLASSIFIER}")  # it is the one that is inverted, and no judge
    main(COMPARE)
    said = capsys.readouterr().out
    assert f"another seed: python cli.py fit --config {CLASSIFIER} --seed_everything 1 --trainer.default_root" in said
    assert f"runs/judge/{CLASSIFIER}/" in said  # which was passed over, and why
    assert "is the very network that is inverted" in said
    assert f"python cli.py fit --config {P_X}" in said
    assert (comparison().own.judge_agreement, comparison().own.log_prob_difference) == (None, None)
    remarks = section.section(runs_under([Path("runs")])).parts
    assert any("No second classifier has judged" in part for part in remarks if isinstance(part, str))
    assert any("no log p(x) without an unconditional model" in part for part in remarks if isinstance(part, str))


def data_sets():
    """What each data set is called whose images are no world's, and its class."""
    return {
        **{its.name: its.__name__ for its in (MNISTDataModule, MNIST5kDataModule, SVHNDataModule, CIFAR10DataModule)},
        "photos": "PhotosDataModule", "affnist": "AffNISTDataModule", "affnist_generated": "AffNISTDataModule",
        "images:of mine": "ImageFolderDataModule",
    }  # fmt: skip


@pytest.mark.parametrize("beside", ["inverter_x", "inverter_x_small"])
def test_the_config_of_p_x_that_is_advised_exists_and_is_of_that_data(beside):
    for name, kind in data_sets().items():
        config = config_of_p_x(name, beside)
        having = [one for one in config_names() if one.startswith("unconditional_") and of_data(one) == kind]
        assert config in having if having else config is None
        assert config is None or f"--config {config}" in train_p_x(name, beside)
        assert config is None or config.endswith("_small") == (
            beside.endswith("_small") and f"{having[0]}_small" in having
        )
    assert "no config of one for stripes" in train_p_x("stripes", beside)


def of_data(config):
    data = read_config(CONFIGS / f"{config}.yaml")["data"]
    return data["class_path"] if isinstance(data, dict) else data


def test_p_x_is_found_whatever_its_config_is_called_and_a_training_that_has_not_ended_is_passed_over(judged, capsys):
    """That of the test has the same data as a config of another name."""
    (Path("runs") / P_X).rename("runs/unconditional_other")
    shutil.copytree("runs/unconditional_other", f"runs/{P_X}")
    (unfinished,) = Path(f"runs/{P_X}").glob("*/")
    (unfinished / "unfinished").touch()
    main(COMPARE)
    assert f"{unfinished} does not judge: its training has not ended by itself" in capsys.readouterr().out
    (other,) = Path("runs/unconditional_other").glob("*/")
    assert comparison().prior == str(other)


def test_the_papers_figure_3_is_shown_where_a_weight_of_entropy_was_changed(with_inverter):
    main(COMPARE)
    folder, row = run_with_results(), comparison()
    for k, weight in enumerate((0.0, 1.0, 10.0)):
        one = Path(shutil.copytree(folder, f"runs/{k}/gan/a"))
        own = {**row.own.to_json(), "diversity": weight / 20}
        values = {**row.to_json(), "called": "a GAN", "entropy_weight": weight, "own": own}
        (one / "comparison.json").write_text(json.dumps(values))
    runs = runs_under([Path("runs")])
    assert section.names_of(section.side_by_side(runs)[0]) == [
        "PixelCNN, p(x | h)", "a GAN, entropy 0", "a GAN, entropy 1", "a GAN, entropy 10",
    ]  # fmt: skip
    figure = section.section(runs).parts[-1].figure
    (axis,) = figure.axes
    assert axis.get_xlabel() == "weight of the entropy loss"
    assert axis.lines[0].get_ydata().tolist() == [0, 0.05, 0.5]
    other = Path("runs/2/gan/a/results.json")
    other.write_text(json.dumps({**json.loads(other.read_text()), "loss_weights": {"entropy": 10, "adversarial": 2}}))
    (axis,) = section.section(runs_under([Path("runs")])).parts[-1].figure.axes
    assert axis.lines[0].get_ydata().tolist() == [0, 0.05]  # what has other settings is no point of this curve


def test_ways_of_more_and_fewer_draws_stand_in_one_table_but_for_the_nearest_of_them(with_inverter):
    main(COMPARE)
    folder, row = run_with_results(), comparison()
    for name, values in {"fewer": {"num_samples": 2}, "one": {"num_samples": 7, "point_estimate": True}}.items():
        one = Path(shutil.copytree(folder, f"runs/{name}/x/a"))
        (one / "comparison.json").write_text(json.dumps({**row.to_json(), "called": name, **values}))
    rows = {cells[0]: cells for cells in section.section(runs_under([Path("runs")])).parts[1].rows}
    nearest = f"{row.own.im_nn_ratio:.3f} ± {row.own.im_nn_ratio_se:.3f}"
    assert rows["PixelCNN, p(x | h)"][1:4:2] == ["3", nearest]
    assert rows["fewer"][1:4:2] == ["2", "\N{EN DASH}"]
    assert rows["one"][1:4:2] == ["1", nearest]  # the nearest of any number of draws that are all alike


@pytest.mark.parametrize("num_images", [5, 1])
def test_two_processes_compare_as_one_does(tmp_path, trained_runs, num_images):
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        shutil.copytree(trained_runs, folder / "runs", symlinks=True)

    def found(folder):
        place = run_with_results(INVERTER, folder / "runs")
        return json.loads((place / "comparison.json").read_text()), np.load(place / "comparison.npz")

    arguments = ["compare", *DIGITS, f"--num_images={num_images}", "--num_samples=2"]
    (one, of_one), (two, of_two) = by_one_and_two(folders, arguments, found)
    assert np.array_equal(of_one["draws"], of_two["draws"])
    assert one["own"] == two["own"]
