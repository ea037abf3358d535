"""What is trained against a discriminator is trained as by two optimisers, and as exactly as everything else."""

import copy
import csv
import shutil
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from digests import run_digests
from PIL import Image
from small_runs import failure, result, signal_at, the_run
from test_ddp import by_one_and_two
from test_ddp_numbers import metrics

import inverters
from cli import main
from datamodules import GlyphPositionDataModule
from evaluations.coverage import covered, valid
from evaluations.diversity import diversity, spreads
from inverters import GlyphNet, Inverter, PerceptualDecoder, StackedGAN
from inverters.discriminator import Discriminator
from inverters.generators import draw_generator
from runtime.checkpoints import load_checkpoint

SHAPE = (1, 16, 16)
SMALL = {"filters": (4, 4), "num_hidden": 8, "discriminator_filters": (4, 8)}
BOTH = {"perceptual": partial(PerceptualDecoder, **SMALL), "gan": partial(StackedGAN, num_noise=3, **SMALL)}
both = pytest.mark.parametrize("kind", BOTH)
# Four batches an epoch and a validation every second step.
FIT = [
    "--data.batch_size=4", "--data.eval_batch_size=10", "--num_agreement=3", "--sample_grid.num_images=2",
    "--sample_grid.num_draws=2", "--trainer.accelerator=cpu", "--trainer.log_every_n_steps=1", "--data.num_train=100",
    "--trainer.max_steps=7", "--trainer.val_check_interval=2", "--trainer.limit_train_batches=4",
    "--trainer.limit_val_batches=3", "--trainer.limit_test_batches=2",
]  # fmt: skip


def images(number, shape=SHAPE):
    return torch.randint(256, (number, *shape), dtype=torch.uint8)


def small(kind, **arguments):
    """An inverter in float64."""
    torch.manual_seed(0)
    density = partial(BOTH[kind], **arguments)
    inverter = Inverter("fc3", SHAPE, 10, density=density, lr=1e-3, betas=(0.5, 0.9)).double()
    inverter.initialise([images(20)], images(4))
    return inverter


def by_hand(generator, image, context, noise):
    """The two losses, written out, from another copy of the scores: (generator's, discriminator's)."""
    x = image.double() / 255
    h = context if noise is None else torch.cat([context, (256 / 3) ** 0.5 * noise], dim=1)
    made = (generator.layers(h) + (0 if noise is None else generator.offset)).sigmoid()
    features = generator.features(made)
    if noise is None:
        ours = generator.weights["image"] * ((made - x) ** 2).mean()
        ours = ours + generator.weights["feature"] * ((features - context) ** 2).mean()
    else:
        ours = generator.weights["conditional"] * ((features - context) ** 2).mean()
        ours = ours + generator.weights["entropy"] * ((generator.encoder(2 * made - 1) - noise) ** 2).mean()
    ours = ours - generator.weights["adversarial"] * generator.discriminator(made, context).mean()
    scores = generator.discriminator(torch.cat([x, made.detach()]), torch.cat([context, context]))
    return ours, F.relu(1 - scores[: len(x)]).mean() + F.relu(1 + scores[len(x) :]).mean()


@both
def test_one_step_of_one_optimiser_is_a_step_of_two(kind):
    """The same weights after five steps as from separate backward passes and two Adams."""
    ours = small(kind)
    theirs = copy.deepcopy(ours)
    generator = theirs.density
    judge = list(generator.discriminator.parameters())
    rest = [p for p in generator.parameters() if all(p is not other for other in judge)]
    adams = [torch.optim.Adam(rest, lr=1e-3, betas=(0.5, 0.9)), torch.optim.Adam(judge, **generator.rates)]
    optimizer = ours.optimizer()
    before = [p.clone() for p in ours.density.parameters()]
    for step in range(5):
        batch = {"image": images(6)}
        torch.manual_seed(step)
        optimizer.zero_grad()
        ours.training_step(batch, step)["loss"].backward()
        optimizer.step()
        torch.manual_seed(step)
        noise = torch.randn(6, 3, dtype=torch.float64) if kind == "gan" else None
        of_generator, of_judge = by_hand(generator, batch["image"], theirs.context(batch["image"]), noise)
        first = torch.autograd.grad(of_generator, rest)
        second = torch.autograd.grad(of_judge, judge)
        for adam, weights, gradients in zip(adams, (rest, judge), (first, second), strict=True):
            for weight, gradient in zip(weights, gradients, strict=True):
                weight.grad = gradient
            adam.step()
    for was, mine, other in zip(before, ours.density.parameters(), generator.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-12)
        assert mine.numel() == 1 or not torch.equal(mine, was)  # hinges of real and made images cancel in one bias


def test_a_gan_begins_as_bright_as_images_and_with_noise_that_counts_as_much_as_h():
    inverter = small("gan", filters=(8, 8), num_hidden=64)
    dark = images(20) // 8
    inverter.density.initialise(dark, inverter.context(dark))
    h, noise = torch.randn(30, 256, dtype=torch.float64), torch.randn(30, 3, dtype=torch.float64)
    made = inverter.density.made(h, noise)
    assert made.mean().item() == pytest.approx(dark.double().mean().item() / 255, rel=0.2)
    over_noise = inverter.density.made(h[:1].expand_as(h), noise).std(dim=0).mean()
    assert over_noise / inverter.density.made(h, noise[:1].expand_as(noise)).std(dim=0).mean() > 0.5


@both
def test_each_player_has_the_gradient_of_its_own_loss_alone(kind):
    generator, image = small(kind).density, images(4)
    context = torch.randn(4, 256, dtype=torch.float64)
    judged = {f"discriminator.{name}" for name, _ in generator.discriminator.named_parameters()}
    parts = generator.losses(image, context)
    for name in generator.parts:
        generator.zero_grad()
        parts[name].sum().backward(retain_graph=True)
        moved = {n for n, p in generator.named_parameters() if p.grad is not None and p.grad.any()}
        assert moved
        assert (moved <= judged) if name == "discriminator" else moved.isdisjoint(judged)


@both
def test_a_weight_of_zero_leaves_its_part_out(kind):
    weights = {"perceptual": ("image", "feature"), "gan": ("conditional", "entropy")}[kind]
    generator = small(kind, adversarial_weight=0.0).density
    assert generator.discriminator is None
    assert generator.own_groups() == []
    assert not generator.last_is_best
    assert generator.parts == weights
    for name in weights:
        generator = small(kind, **{f"{name}_weight": 0.0}).density
        assert name not in generator.losses(images(2), torch.randn(2, 256, dtype=torch.float64))
    assert small("gan", entropy_weight=0.0).density.encoder is None
    with pytest.raises(ValueError, match="_weight are 0; give one that is not"):
        small(kind, **{f"{name}_weight": 0.0 for name in (*weights, "adversarial")})


@both
def test_an_image_is_judged_by_itself_and_a_draw_is_a_function_of_its_generator(kind):
    inverter, image = small(kind).eval(), images(5)
    every = inverter.validation_step({"image": image}, 0)
    alone = [inverter.validation_step({"image": image[i : i + 1]}, 0) for i in range(5)]
    for name in every:
        torch.testing.assert_close(every[name], torch.cat([one[name] for one in alone]), rtol=1e-9, atol=1e-12)
    draws = inverter.draws(image, range(5), 3, seed=1)
    assert torch.equal(draws[2:4], inverter.draws(image[2:4], [2, 3], 3, seed=1))
    same = all(torch.equal(draws[:, 0], draws[:, i]) for i in (1, 2))
    assert same == (kind == "perceptual") == inverter.density.point_estimate
    context = inverter.context(image[:1])
    assert torch.equal(inverter.density.shown(context, [draw_generator(0, 2, 1)])[0], draws[0, 2])


@both
def test_a_copy_sees_the_network_of_the_copy(kind):
    inverter = small(kind)
    features = copy.deepcopy(inverter).density.features
    assert features.representation.network is not inverter.representation.network
    assert features.standardised.__self__ is not inverter
    assert all("network" not in name for name in inverter.density.state_dict())


def test_the_features_of_another_layer_are_compared_in_their_own_scale():
    inverter = small("perceptual", feature_layer="conv1")
    image = images(4)
    assert inverter.density.feature_scale != 1
    found = inverter.density.losses(image, inverter.context(image))["feature"]
    assert found.shape == (4,)
    h, made = inverter.representation.at("conv1"), inverter.density.reconstruction(inverter.context(image))
    off = (h.of_unit(made) - h(image)).square().flatten(1).mean(dim=1) / inverter.density.feature_scale
    torch.testing.assert_close(found, off)


def test_a_layer_without_a_gradient_is_refused_in_a_sentence():
    make = partial(Inverter, "glyph", (1, 12, 12), 1, network=GlyphNet)
    density = partial(StackedGAN, filters=(4,))
    with pytest.raises(ValueError, match=r"pixels no gradient; give --model\.density\.conditional_weight 0"):
        make(density=density)
    make(density=partial(density, conditional_weight=0.0))


def test_coverage_is_the_share_of_true_images_that_are_drawn():
    truth = 128 * torch.eye(4, dtype=torch.uint8).view(4, 1, 2, 2)  # 181 from each other
    assert covered(truth[[0, 1, 1]], truth) == 0.5
    assert valid(truth[[0, 1, 1]], truth) == covered(truth, truth) == 1
    mean = truth.double().mean(dim=0, keepdim=True).byte()
    assert covered(mean, truth) == valid(mean, truth) == 0
    assert valid(torch.cat([truth[:1], mean]), truth) == 0.5


def test_a_draw_is_one_true_image_at_most():
    truth = torch.zeros(3, 1, 1, 2, dtype=torch.uint8)
    truth[1:, 0, 0] = torch.tensor([[100, 0], [250, 0]])
    draws = torch.tensor([49, 50, 51]).byte().view(3, 1, 1, 1) * torch.tensor([1, 0]).byte()
    assert [covered(draw[None], truth) for draw in draws] == [pytest.approx(1 / 3), 0, pytest.approx(1 / 3)]
    assert valid(draws, truth) == pytest.approx(2 / 3)


def test_diversity_is_that_of_true_images_and_none_where_all_are_one():
    draws = torch.randint(256, (20, 10, 1, 6, 6), dtype=torch.uint8)
    over_h, over_noise = spreads(draws, images(20, (1, 6, 6)))
    assert over_h == pytest.approx(1, abs=0.1)
    assert over_noise == pytest.approx(1, abs=0.1)
    assert spreads(draws[:1, :1].expand(20, 10, -1, -1, -1), images(20, (1, 6, 6))) == (0, 0)
    assert spreads(draws[:, :1], images(20, (1, 6, 6)))[1] is None
    assert spreads(draws, images(1, (1, 6, 6)).expand(20, -1, -1, -1)) == (None, None)  # nothing to compare with


def test_diversity_of_a_test_is_that_of_a_comparison_with_one_class():
    draws, true = torch.randint(200, (7, 4, 1, 6, 6), dtype=torch.uint8), images(9, (1, 6, 6))
    assert spreads(draws, true)[1] == diversity(draws, true, torch.zeros(9), torch.zeros(7))[0]
    assert spreads(draws, true)[0] == diversity(draws[:, 0][None], true, torch.zeros(9))[0]


def fit(kind, *more):
    arguments = ["--model.density.num_hidden=8", "--model.density.filters=[4,4]"]
    main(["fit", f"--config={kind}_mnist5k_fc3.yaml", *FIT, *arguments, *more])


@both
def test_stopped_and_resumed_with_its_discriminator(trained_runs, tmp_path, monkeypatch, kind):
    found = []
    for name in ("whole", "stopped"):
        shutil.copytree(trained_runs / "classifier_mnist5k", tmp_path / name / "runs/classifier_mnist5k", symlinks=True)
        monkeypatch.chdir(tmp_path / name)
        if name == "stopped":
            with pytest.raises(SystemExit):
                fit(kind, signal_at(3))
        fit(kind, "--ckpt_path=auto")
        run = the_run(tmp_path / name, f"{kind}_mnist5k_fc3")
        found.append(digests(run))
    assert found[0] == found[1]
    with (run / "metrics.csv").open() as file:
        names = csv.DictReader(file).fieldnames
    part = {"perceptual": "feature", "gan": "entropy"}[kind]
    assert {f"{stage}/{name}" for stage in ("train", "val") for name in ("loss", part, "discriminator")} <= set(names)
    last = load_checkpoint(run / "checkpoints" / "last.ckpt")
    assert last["global_step"] == 6  # of both players together, at the last validation
    assert [len(group["params"]) for group in last["optimizer_states"][0]["param_groups"]][1] > 0
    assert load_checkpoint(run / "checkpoints" / "best.ckpt")["global_step"] == 6


def digests(run):
    for name in ("log_prob.npy", "log_prob_per_pixel.npy"):
        (run / name).touch()  # of a likelihood
    return run_digests(run)


@both
def test_every_verb_works_or_says_why_not(with_classifier, capsys, kind):
    name = f"{kind}_mnist5k_fc3"
    fit(kind)
    said = capsys.readouterr().out
    assert "likelihood      none: this generator only draws images" in said
    assert "that of true images is 100 %" in said
    row = result(name)
    assert row["nce_nats"] is None
    assert (row["diversity_over_noise"] is None) == row["point_estimate"] == (kind == "perceptual")
    assert "adversarial" in row["loss_weights"]
    about = [f"--config={name}.yaml", "--model.density.num_hidden=8", "--model.density.filters=[4,4]"]
    about += ["--data.num_train=100"]
    main(["sample", *about, "--num_images=2", "--num_draws=2"])
    main(["distances", *about, "--num_images=3"])
    main(["report", "--output=report.html"])
    Image.new("L", (28, 28)).save("black.png")
    for verb, *more in (["contrast"], ["score", "--images=black.png"]):
        assert "only draws images: it has no log p(x | h)" in failure(capsys, verb, *about, *more)
    trained = inverters.load(f"runs/{name}")
    with pytest.raises(ValueError, match="only draws images"):
        trained.log_prob(images(1, (1, 28, 28)))


def test_a_rate_that_is_too_high_ends_in_a_sentence(with_classifier, capsys):
    fit("gan", "--trainer.max_steps=2")
    about = ["fit", "--config=gan_mnist5k_fc3.yaml", *FIT, "--trainer.max_steps=6"]
    message = failure(capsys, *about, "--model.density.discriminator_lr=1e30", "--model.lr=1e30")
    assert "is NaN or infinite at step" in message


def test_two_processes_train_as_one(tmp_path, trained_runs):
    arguments = [
        "fit", "--config=perceptual_mnist5k_fc3.yaml", "--data.batch_size=8", "--num_agreement=3",
        "--sample_grid.num_images=0", "--trainer.max_steps=3", "--trainer.limit_test_batches=2",
        "--trainer.precision=64-true", "--trainer.accelerator=cpu", "--trainer.log_every_n_steps=1",
        "--trainer.val_check_interval=2", "--model.density.num_hidden=8",
    ]  # fmt: skip

    def found(folder):
        last = load_checkpoint(the_run(folder, "perceptual_mnist5k_fc3") / "checkpoints" / "last.ckpt")
        return last["state_dict"], metrics(folder, "perceptual_mnist5k_fc3")

    for name in ("one", "two"):
        shutil.copytree(trained_runs / "classifier_mnist5k", tmp_path / name / "runs/classifier_mnist5k", symlinks=True)
    (one, rows), (two, rows_of_two) = by_one_and_two([tmp_path / "one", tmp_path / "two"], arguments, found)
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-9, atol=1e-11)
    for of_one, of_two in zip(rows, rows_of_two, strict=True):
        assert of_one == pytest.approx(of_two, rel=1e-5)


@pytest.mark.slow
def test_a_gan_draws_most_places_of_a_glyph():
    """Of 9, in a small world; these steps gave 0.72 (29 November 2026)."""
    torch.manual_seed(0)
    truth = GlyphPositionDataModule(side=6).images
    density = partial(
        StackedGAN, filters=(), num_hidden=128, num_noise=4, conditional_weight=0.0, entropy_weight=0.3,
        adversarial_weight=1.0, discriminator_filters=(), discriminator_sees_h=True, gradient_penalty=0.02,
    )  # fmt: skip
    inverter = Inverter("glyph", (1, 6, 6), 1, network=GlyphNet, density=density, lr=1e-3, betas=(0.5, 0.99))
    inverter.initialise([truth], truth)
    optimizer = inverter.optimizer()
    for step in range(1500):
        optimizer.zero_grad()
        inverter.training_step({"image": truth[torch.randint(len(truth), (64,))]}, step)["loss"].backward()
        optimizer.step()
    draws = inverter.draws(truth[::9], range(4), 512)
    found = [covered(draws[k], truth[9 * k : 9 * k + 9]) for k in range(4)]
    assert sum(found) / 4 > 0.4


def test_its_networks_of_vectors_are_as_deep_as_asked():
    def linear(module):
        return sum(isinstance(part, torch.nn.Linear) for part in module.modules())

    for depth in (1, 3):
        generator = StackedGAN(SHAPE, (5,), depth=depth, **SMALL)
        assert linear(generator.layers) == depth + 1
        assert linear(generator.encoder) == depth + 1
        assert linear(generator.discriminator.features) == depth


@both
@pytest.mark.parametrize("betas", [(0.5, 1.0), (-0.1, 0.9), (float("nan"), 0.9)])
def test_betas_that_adam_would_not_take_are_refused(kind, betas):
    with pytest.raises(ValueError, match=r"discriminator_betas are .*; give two of at least 0 and below 1"):
        small(kind, discriminator_betas=betas)


def test_a_map_that_no_stage_has_is_named_without_the_noise():
    with pytest.raises(ValueError, match="this h is 48x7x7"):
        StackedGAN(SHAPE, (48, 7, 7))
    with pytest.raises(ValueError, match=r"without a layer there is none; give --model\.layer"):
        PerceptualDecoder(SHAPE, (0,))
    StackedGAN(SHAPE, (0,), conditional_weight=0.0)  # of noise alone


def linear_judge(gradient_penalty, sees_h=False):
    """Its score has no rectifier in between; and the layer that gives its features."""
    torch.manual_seed(0)
    judge = Discriminator((1, 3, 3), (5,), (), sees_h, gradient_penalty).double()
    judge.features[2] = torch.nn.Identity()
    return judge, judge.features[1]


def test_the_penalty_of_a_linear_discriminator_is_half_the_square_of_its_slope():
    """R1 (Mescheder et al. 2018), which of a linear score is the same at all images."""
    judge, first = linear_judge(0.3)
    real, made = (torch.rand(4, 1, 3, 3, dtype=torch.float64) for _ in range(2))
    slope = 2 * judge.real.weight[0] @ first.weight
    offset = judge.real.weight[0] @ first.bias + judge.real.bias
    scores = [(x.flatten(1) - 0.5) @ slope + offset for x in (real, made)]
    plain = torch.log1p(torch.exp(-scores[0])) + torch.log1p(torch.exp(scores[1]))
    found = judge.losses(real, made, torch.zeros(4, 5, dtype=torch.float64))
    torch.testing.assert_close(found["discriminator"], plain + 0.3 / 2 * slope.square().sum())
    torch.testing.assert_close(found["adversarial"], torch.log1p(torch.exp(-scores[1])))


def test_what_sees_h_adds_its_projection():
    """Miyato and Koyama 2018, over the root of the length of h."""
    judge, first = linear_judge(1.0, sees_h=True)
    x, h = torch.rand(4, 1, 3, 3, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64)
    features = (2 * x.flatten(1) - 1) @ first.weight.T + first.bias
    of_h = h @ judge.of_h.weight.T + judge.of_h.bias
    expected = features @ judge.real.weight[0] + judge.real.bias + (of_h * features).sum(1) / 5**0.5
    torch.testing.assert_close(judge(x, h), expected)


def test_a_clipped_norm_of_two_players_is_refused(with_classifier, capsys):
    about = ["fit", "--config=gan_mnist5k_fc3.yaml", *FIT]
    assert "gradients together, so that each would slow" in failure(capsys, *about, "--trainer.gradient_clip_val=1")


def test_a_gradient_penalty_counts_in_training_alone():
    generator, image = small("gan", gradient_penalty=10.0).density, images(4)
    context = torch.randn(4, 256, dtype=torch.float64)
    trained = generator.evaluation(image, context)
    with torch.no_grad():
        judged = generator.evaluation(image, context)
    assert (trained["discriminator"] > judged["discriminator"]).all()
    torch.testing.assert_close(trained["adversarial"], judged["adversarial"])
    generator.zero_grad()
    trained["discriminator"].sum().backward()
    assert all(p.grad is None for p in generator.layers.parameters())
