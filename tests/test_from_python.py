"""`inverters.load`: what was trained, from Python, with the numbers and draws of the commands to the last digit."""

import random
import shutil
import subprocess
import sys
import warnings
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_runs import INVERTER, ROOT, SHORT, environment_of_its_own, result, run_with_results

import inverters
from cli import main
from commands.given_images import images_of
from datamodules import ImageFolderDataModule, MNIST5kDataModule
from evaluations.information import selected_by_row
from runtime.checkpoints import load_checkpoint

RUNS = f"runs/{INVERTER}"
ASK = [
    f"--config={INVERTER}.yaml",
    "--model.density.num_filters=4",
    "--data.num_train=100",
    "--trainer.accelerator=cpu",
]


@pytest.fixture(scope="module")
def batch():
    """The test images of the fixture's inverter, as far as its test went."""
    data = MNIST5kDataModule(num_train=100)
    data.setup("test")
    return data.datasets["test"].first(10)


@pytest.fixture(scope="module")
def prior(tmp_path_factory):
    """The folder of an unconditional run."""
    folder = tmp_path_factory.mktemp("prior")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        main(["fit", "--config=unconditional_mnist5k", *SHORT[1:], "--trainer.max_steps=2", "--trainer.logger=false"])
    return folder / "runs" / "unconditional_mnist5k"


def test_log_prob_is_that_of_the_test(with_inverter, batch):
    inverter, run = inverters.load(RUNS), run_with_results()
    image, other = batch["image"], batch["other_image"]
    assert (inverter.layer, inverter.image_shape, inverter.dataset) == ("fc3", (1, 28, 28), "mnist5k")
    log_prob, per_pixel = inverter.log_prob(image), inverter.log_prob_per_pixel(image)
    assert (log_prob.dtype, log_prob.shape, per_pixel.shape) == (torch.float64, (10,), (10, 28, 28))
    assert np.array_equal(log_prob, np.load(run / "log_prob.npy"))
    assert np.array_equal(per_pixel, np.load(run / "log_prob_per_pixel.npy"))
    assert inverter.log_prob(image, h_of=other).mean().item() == result()["shuffled_nce_nats"]
    one = inverter.log_prob(image, h_of=other[:1])
    assert torch.equal(one, inverter.log_prob(image, h_of=other[:1].expand_as(image)))


def test_draws_are_those_of_the_command(with_inverter, batch):
    main(["sample", *ASK, "--num_images=3", "--num_draws=2", "--seed=5"])
    inverter, image = inverters.load(RUNS), batch["image"][:3]
    draws = inverter.sample(image, num_draws=2, seed=5, index=batch["index"][:3])
    assert np.array_equal(draws, np.load(run_with_results() / "draws.npy"))
    first = inverter.sample(image)
    assert torch.equal(first, inverter.sample(image, seed=0, index=[0, 1, 2]))
    assert torch.equal(first[1:], inverter.sample(image[1:], index=np.array([1, 2])))
    assert not torch.equal(first, inverter.sample(image, index=[0, 1, 3]))


def test_scores_are_those_of_the_command(with_inverter, batch):
    image = batch["image"][:3]
    names = ["a.png", "b.png", "c.png"]
    for name, picture in zip(names, image, strict=True):
        Image.fromarray(picture[0].numpy()).save(name)
    main(["score", *ASK, f"--images=[{','.join(names[:2])}]", f"--contexts=[{','.join(names)}]"])
    lines = (run_with_results() / "scores.csv").read_text().splitlines()[1:]
    inverter = inverters.load(RUNS)
    scores = inverter.scores([Image.open(name) for name in names[:2]], h_of=image)
    assert [[f"{value:.3f}" for value in row] for row in scores.tolist()] == [line.split(",")[1:] for line in lines]
    torch.testing.assert_close(scores.diagonal(), inverter.log_prob(image[:2]), rtol=0, atol=1e-3)


def test_information_sums_over_its_map(with_inverter, prior, batch):
    inverter, p_x, image = inverters.load(RUNS), inverters.load(prior), batch["image"]
    found = inverter.information(image, prior=p_x)
    gain = inverter.log_prob(image) - p_x.log_prob(image)
    assert torch.equal(found.per_image, gain)
    assert found.nats == gain.mean().item()
    assert found.standard_error == pytest.approx(gain.std().item() / 10**0.5)
    assert found.map.shape == (28, 28)
    assert found.map.sum().item() == pytest.approx(found.nats, abs=1e-9)
    torch.testing.assert_close(found.maps.sum((1, 2)), gain, rtol=0, atol=1e-9)
    assert str(found).startswith(f"{found.nats:.2f} nats")
    left = found.selected_by_row()
    assert left.map.sum().item() == pytest.approx(left.nats, abs=1e-9)
    torch.testing.assert_close(left.maps, selected_by_row(found.maps), rtol=0, atol=0)
    torch.testing.assert_close(left.per_image, left.maps.sum((1, 2)), rtol=0, atol=1e-9)
    for call in (lambda: p_x.h(image), lambda: p_x.scores(image), lambda: p_x.log_prob(image, h_of=image)):
        with pytest.raises(ValueError, match="unconditional model p"):
            call()
    assert p_x.sample(image[:1]).shape == (1, 1, 1, 28, 28)
    with pytest.raises(ValueError, match=r"prior is p\(x \| fc3\); give the unconditional model"):
        inverter.information(image, prior=inverter)
    p_x._identity = {**p_x._identity, "num_train": 7, "seed": 1}  # of whose training some of the images are
    with pytest.raises(ValueError, match="prior has the data's seed 1, and the inverter 0; give one of the same data"):
        inverter.information(image, prior=p_x)
    p_x.dataset = "svhn"
    with pytest.raises(ValueError, match="prior has the dataset svhn, and the inverter mnist5k"):
        inverter.information(image, prior=p_x)


def test_h_is_that_of_the_layer(with_inverter, batch):
    inverter, image = inverters.load(RUNS), batch["image"]
    weights = load_checkpoint(inverter.checkpoint)["state_dict"]
    h = inverter.h(image)
    assert h.shape == (10, 256)
    raw = {k.removeprefix("representation.network."): v for k, v in weights.items() if "representation" in k}
    network = inverters.ConvNet((1, 28, 28), 10).eval()
    network.load_state_dict(raw)
    with torch.no_grad():
        x = image / 255
        for name, stage in network.named_children():
            x = stage(x)
            if name == inverter.layer:
                break
    torch.testing.assert_close(h, x, rtol=0, atol=1e-5)


def test_places_of_a_run(with_inverter, tmp_path, monkeypatch):
    run = run_with_results()
    for place in (RUNS, run, run / "checkpoints" / "best.ckpt", str(run.absolute()), f"{RUNS}/"):
        assert Path(inverters.load(place).checkpoint).resolve() == (run / "checkpoints" / "best.ckpt").resolve()
    assert inverters.load(run / "checkpoints" / "last.ckpt").checkpoint.name == "last.ckpt"
    monkeypatch.chdir(run / "checkpoints")
    assert inverters.load("last.ckpt", device="cpu").device.type == "cpu"
    monkeypatch.chdir("..")
    assert inverters.load(".").layer == "fc3"


def test_nothing_is_said_and_no_state_changes(with_inverter, batch, capfd):
    np.random.seed(3)
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    before = torch.get_num_threads(), torch.get_default_dtype(), list(sys.path), torch.get_float32_matmul_precision()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        inverter = inverters.load(RUNS)
        image = batch["image"][:2]
        inverter.log_prob(image), inverter.sample(image), inverter.h(image), inverter.scores(image)
    assert torch.equal(states[0], torch.get_rng_state())
    assert np.array_equal(states[1], np.random.get_state()[1])
    assert states[2] == random.getstate()
    after = torch.get_num_threads(), torch.get_default_dtype(), list(sys.path), torch.get_float32_matmul_precision()
    assert before == after
    assert capfd.readouterr() == ("", "")


def test_a_process_of_its_own_says_nothing_either(with_inverter):
    """Where nothing has silenced Lightning, as the commands do; and `import inverters` brings no commands along."""
    script = (
        "import sys, inverters; assert not {'commands', 'wandb'} & sys.modules.keys();"
        f"inverter = inverters.load({RUNS!r}); import torch;"
        "print(*inverter.log_prob(torch.zeros(1, 28, 28, dtype=torch.uint8)).shape); assert 'wandb' not in sys.modules"
    )
    environment = environment_of_its_own(PYTHONPATH=str(ROOT))
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert (done.stdout, done.stderr, done.returncode) == ("1\n", "", 0)


def test_images_of_every_kind_are_the_same(batch):
    image, shape = batch["image"][:2], (1, 28, 28)
    grey = image[:, 0].numpy()
    read_only = grey.copy()
    read_only.flags.writeable = False
    for given in (image, image.numpy(), grey, read_only, list(grey), [Image.fromarray(x) for x in grey], tuple(image),
                  image.movedim(1, 3), grey[::-1][::-1], [image[:1], grey[1]]):  # fmt: skip
        assert torch.equal(images_of(given, shape, None), image)
    assert torch.equal(images_of(grey[0], shape, None), image[:1])
    colours = torch.randint(256, (2, 3, 4, 5), dtype=torch.uint8)
    for given in (colours, colours.movedim(1, 3).numpy(), [Image.fromarray(x.movedim(0, 2).numpy()) for x in colours]):
        assert torch.equal(images_of(given, (3, 4, 5), None), colours)


def test_a_flipped_array_is_taken(batch):
    grey = batch["image"].numpy()
    assert torch.equal(images_of(grey[..., ::-1], (1, 28, 28), None), batch["image"].flip(3))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_is_prepared_as_those_of_a_folder(tmp_path, channels):
    """Upright, on white, at the size, and a large JPEG read at a quarter; whether or not it was looked at before."""
    noise = torch.randint(256, (200, 300, 4), dtype=torch.uint8).numpy()
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(noise[..., :3]).resize((900, 600)).save(tmp_path / "0.jpg", exif=exif)
    Image.fromarray(noise).save(tmp_path / "1.png")
    Image.fromarray(noise[..., :3]).convert("CMYK").save(tmp_path / "2.jpg")
    Image.fromarray(noise[..., :3]).quantize(16).save(tmp_path / "3.gif")
    for n in range(4, 24):
        shutil.copy(tmp_path / "1.png", tmp_path / f"{n}.png")
    data = ImageFolderDataModule(str(tmp_path), side=16, channels=channels)
    for name in ("0.jpg", "1.png", "2.jpg", "3.gif"):
        wanted = data.picture((tmp_path / name).read_bytes())
        with Image.open(tmp_path / name) as picture:
            assert torch.equal(images_of(picture, data.image_shape, "crop")[0], wanted)
            picture.load()
            assert torch.equal(images_of([picture], data.image_shape, "crop")[0], wanted)
        with Image.open(BytesIO((tmp_path / name).read_bytes())) as picture:
            assert torch.equal(images_of(picture, data.image_shape, "crop")[0], wanted)


@pytest.mark.parametrize(("given", "message"), [
    (torch.rand(2, 1, 28, 28), r"images are uint8, from 0 to 255, not torch.float32; of x in \[0, 1\], give"),
    (np.zeros((2, 28, 28)), "images are uint8, from 0 to 255, not torch.float64"),
    (torch.zeros(2, 3, 28, 28, dtype=torch.uint8), r"images are \[B, 1, 28, 28\], not \[2, 3, 28, 28\]"),
    (torch.zeros(30, 30, dtype=torch.uint8), r"images are \[B, 1, 28, 28\], not \[30, 30\]"),
    ([], "no images are given; give at least one"),
    (torch.zeros(0, 1, 28, 28, dtype=torch.uint8), "no images are given; give at least one"),
    (["a.png"], "or PIL's pictures, or a list of these, not str; a file is opened by PIL.Image.open"),
    (None, "or a list of these, not NoneType"),
    (Image.new("L", (30, 28)), "cannot use the picture .*: it is 30x28 pixels, and must be 28x28"),
    (Image.new("I", (28, 28)), "more than 8 bits a channel"),
])  # fmt: skip
def test_other_images_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        images_of(given, (1, 28, 28), None)


def test_other_questions_are_refused(with_inverter, batch):
    inverter, image = inverters.load(RUNS), batch["image"]
    for call, message in (
        (lambda: inverter.log_prob(image, h_of=image[:3]), "h_of has 3 images for 10; give one of each, one for all"),
        (lambda: inverter.sample(image, index=[1, 2]), "index has 2 numbers for 10 images; give one for each"),
        (lambda: inverter.sample(image, num_draws=0), "num_draws is 0; give at least 1"),
        (lambda: inverter.sample(image, seed=-1), "seed is -1; give at least 0"),
        (lambda: inverter.information(image, prior=RUNS), "prior is a str; give inverters.load of an unconditional"),
        (lambda: inverters.load(RUNS, device="tpu"), "no device tpu can be had"),
        (lambda: inverters.load(RUNS, device="cuda"), "no device cuda can be had"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_a_network_that_sees_larger_pictures_is_given_those(with_inverter, batch):
    """As where the data has a side of its own for it."""
    inverter, image = inverters.load(RUNS), batch["image"][:2]
    inverter.seen_shape, inverter._fit = (1, 56, 56), "resize"
    inverter._inverter.representation.forward = lambda seen: torch.full((len(seen), 256), float(seen.shape[-1]))
    large = image.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    assert inverter.h(large).unique().item() == 56
    with pytest.raises(ValueError, match=r"h is not of x \[1, 28, 28\] but of the pictures at \[1, 56, 56\]"):
        inverter.log_prob(image)
    pictures = [Image.fromarray(x[0].numpy()) for x in large]
    small = images_of(pictures, inverter.image_shape, "resize")
    assert torch.equal(inverter.log_prob(pictures), inverter.log_prob(small, h_of=large))
    assert inverter.scores(small, h_of=large).shape == (2, 2)
    assert inverter.sample(large, index=[3, 4]).shape == (2, 1, 1, 28, 28)


def of_config(old, new):
    """Changes the run's config."""

    def change(run):
        text = (run / "config.yaml").read_text()
        assert old in text
        (run / "config.yaml").write_text(text.replace(old, new, 1))
        return run

    return change


def without(name, place=RUNS):
    def change(run):
        (run / name).unlink()
        return place

    return change


def lonely(run):
    shutil.copy(run / "checkpoints" / "best.ckpt", "lonely.ckpt")
    return "lonely.ckpt"


def damaged(run):
    path = run / "checkpoints" / "best.ckpt"
    torch.save(load_checkpoint(path) | {"image_shape": [1, 2**30, 2**30]}, path)
    return run


@pytest.mark.parametrize(("change", "kind", "message"), [
    (lambda _: "runs/inverter_mnist5k", FileNotFoundError, "there is no run at runs/inverter_mnist5k; give"),
    (lambda _: "runs/classifier_mnist5k", ValueError, "best.ckpt is not the checkpoint of an inverter, and has no p"),
    (without("checkpoints/best.ckpt"), FileNotFoundError, f"no best checkpoint in {RUNS}; make one with"),
    (without("config.yaml"), FileNotFoundError, r"nothing says how .* is built: there is no .*config.yaml"),
    (lonely, FileNotFoundError, "it lies in no runs/NAME/START/checkpoints"),
    (damaged, ValueError, "best.ckpt is damaged: its images are .* give another one"),
    (of_config("model:", "model"), ValueError, r"the config .*config.yaml cannot be read in line \d+"),
    (of_config("model:", "models:"), ValueError, "config.yaml has no model with its init_args"),
    (of_config("layer: fc3", "layer: fc9"), ValueError, "fc9.*fc3"),
    (of_config("layer: fc3", "layer: conv1"), ValueError, "is the checkpoint of another model|inverts layer fc3"),
    (of_config("num_filters: 4", "num_filters: no"), ValueError, r"model.density.num_filters in .*config.yaml is"),
    (of_config("num_filters: 4", "num_widths: 4"), ValueError, "num_widths"),
    (of_config("class_path: inverters.PixelCNN", "class_path: subprocess.Popen"), ValueError, "is no Conditional"),
])  # fmt: skip
def test_other_places_are_refused(with_inverter, capfd, change, kind, message):
    place = change(run_with_results())
    capfd.readouterr()
    with pytest.raises(kind, match=message) as caught:
        inverters.load(place)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_run_of_version_0_4_is_loaded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile(Path(__file__).parent / "version_0_4.zip") as archive:
        archive.extractall()
    inverter, kept = inverters.load(RUNS), np.load(f"{RUNS}/log_prob.npy")
    data = MNIST5kDataModule()
    data.setup("test")
    found = inverter.log_prob(data.datasets["test"].first(len(kept))["image"])
    # It rounded log p of nearly certain pixels up, by less than this.
    np.testing.assert_allclose(found, kept, rtol=2e-6, atol=1e-5)


def test_no_data_set_is_needed_and_double_stays_so(with_classifier, batch, monkeypatch):
    double = ["--trainer.precision=64-true", "--trainer.max_steps=1", "--trainer.logger=false"]
    main(["fit", *SHORT, *double])
    monkeypatch.setattr(MNIST5kDataModule, "__init__", None)
    found = inverters.load(RUNS).log_prob(batch["image"])
    assert np.array_equal(found, np.load(run_with_results() / "log_prob.npy"))
