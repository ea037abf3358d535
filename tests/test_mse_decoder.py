from functools import partial

import numpy as np
import pytest
import torch
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from scipy.stats import norm

from callbacks.bits_per_dim import BitsPerDim
from callbacks.calibrate import Calibrate
from callbacks.weight_averaging import WarmWeightAveraging
from datamodules.images import ImageDataModule
from datamodules.split import ImageDataset
from inverters import ConvNet, Inverter, MSEDecoder
from inverters.generators import draw_generator
from inverters.mse_decoder import log_prob_of_level
from runtime.silence import silence_lightning

SHAPE = (1, 16, 16)
LEVELS = torch.arange(256, dtype=torch.uint8)
small = partial(MSEDecoder, filters=(4, 4), num_hidden=8)


def random_images(number, shape=SHAPE):
    return torch.randint(256, (number, *shape), dtype=torch.uint8)


class Noise(ImageDataModule):
    """Images of noise, 40 to train on and 25 to validate with."""

    name, image_shape, num_classes = "noise", SHAPE, 10

    def load(self):
        sizes = {"train": 40, "val": 25, "test": 3}
        return {
            name: ImageDataset(random_images(n), torch.zeros(n, dtype=torch.long), torch.arange(n), name == "test")
            for name, n in sizes.items()
        }


@pytest.mark.parametrize("scale", [0.03, 1.0, 40.0, 255.0])
@pytest.mark.parametrize("mean", [0.0, 0.4999, 17.2, 128.0, 254.9, 255.0])
def test_levels_sum_to_one(mean, scale):
    mean, scale = (torch.tensor(value, dtype=torch.float64) for value in (mean, scale))
    log_prob = log_prob_of_level(LEVELS, mean.expand(256), scale)
    torch.testing.assert_close(log_prob.exp().sum().item(), 1.0, rtol=1e-12, atol=0)


@pytest.mark.parametrize("scale", [5.0, 30.0])
def test_levels_are_scipys_differences_with_both_tails_folded_in(scale):
    cell = np.arange(256)
    upper, lower = norm.cdf((cell + 0.5 - 100.3) / scale), norm.cdf((cell - 0.5 - 100.3) / scale)
    upper[255], lower[0] = 1, 0
    ours = log_prob_of_level(LEVELS, torch.full((256,), 100.3, dtype=torch.float64), torch.tensor(scale)).exp()
    np.testing.assert_allclose(ours, upper - lower, rtol=1e-9, atol=1e-15)


def test_far_levels_are_exact_and_finite_on_both_sides():
    mean = torch.tensor([3.0, 252.0], dtype=torch.float64, requires_grad=True)
    ours = log_prob_of_level(torch.tensor([243, 12], dtype=torch.uint8), mean, torch.tensor(2.0, dtype=torch.float64))
    # So far out the cell is its near edge: log sf(239.5 / 2), less what lies beyond the far edge, e^-60.
    np.testing.assert_allclose(ours.detach(), norm.logsf(239.5 / 2), rtol=1e-12)
    ours.sum().backward()
    assert torch.isfinite(mean.grad).all()
    assert mean.grad[0] > 0 > mean.grad[1]
    farthest = log_prob_of_level(LEVELS, torch.zeros(256), torch.tensor(1e-2))
    assert torch.isfinite(farthest).all()


def test_gradients_are_those_of_finite_differences():
    mean = torch.rand(64, dtype=torch.float64, requires_grad=True)
    scale = torch.tensor(9.0, dtype=torch.float64, requires_grad=True)
    level = torch.cat((torch.tensor([0, 255]), torch.randint(256, (62,)))).to(torch.uint8)
    assert torch.autograd.gradcheck(lambda m, s: log_prob_of_level(level, 255 * m, s), (mean, scale))


@pytest.mark.parametrize("layer", ["conv1", "conv2", "fc3", "logits"])
@pytest.mark.parametrize("image_shape", [(1, 28, 28), (3, 32, 32), (1, 40, 40), (1, 16, 16), (3, 29, 31)])
def test_every_layer_of_the_classifier_is_decoded_to_the_size_of_the_image(image_shape, layer):
    inverter = Inverter(layer, image_shape, 10, network=ConvNet, density=MSEDecoder)
    image = random_images(2, image_shape)
    mean = inverter.density.mean(inverter.context(image))
    assert mean.shape == image.shape
    assert 0 <= mean.min() <= mean.max() <= 1
    upsampled = sum(isinstance(m, torch.nn.Upsample) for m in inverter.density.modules())
    assert upsampled == (1 if layer == "conv1" else 2)


@pytest.mark.parametrize(
    ("image_shape", "context_shape", "expected"),
    [
        ((1, 28, 28), (32, 11, 11), "starts from a vector or a map Kx12x12, Kx4x4; this h is 32x11x11"),
        ((1, 28, 28), (1, 28, 28), "this h is 1x28x28"),
        ((1, 28, 28), (0,), "without a layer there is none; give --model.layer"),
        ((1, 28, 28), (), "this h is a scalar"),
        ((1, 14, 28), (10,), "images of 14x28 are too small"),
    ],
)
def test_other_shapes_are_refused(image_shape, context_shape, expected):
    with pytest.raises(ValueError, match=expected):
        MSEDecoder(image_shape, context_shape)


def test_log_prob_sums_over_pixels_and_channels():
    density = small((3, 16, 16), (5,)).double()
    image, context = random_images(2, (3, 16, 16)), torch.randn(2, 5, dtype=torch.float64)
    density.variance.fill_(0.02)
    mean, scale = 255 * density.mean(context).detach(), torch.tensor(255 * 0.02**0.5)
    pixels = density.log_prob_per_pixel(image, context)
    assert pixels.shape == (2, 16, 16)
    torch.testing.assert_close(pixels.detach(), log_prob_of_level(image, mean, scale).sum(dim=1), rtol=1e-6, atol=0)
    torch.testing.assert_close(density.log_prob(image, context), pixels.sum(dim=(1, 2)))


def test_loss_is_the_squared_error_and_a_step_spends_nothing_on_log_prob():
    inverter = Inverter("fc3", SHAPE, 10, density=small)
    image = random_images(3)
    step = inverter.training_step({"image": image}, 0)
    mean = inverter.density.mean(inverter.context(image)).detach()
    expected = sum(np.linalg.norm((x / 255 - m).flatten()) ** 2 for x, m in zip(image, mean, strict=True)) / 3
    assert step["loss"].item() == pytest.approx(expected, rel=1e-5)
    assert step.keys() == {"loss"}


def test_draws_have_the_mean_and_spread_of_the_density_and_their_own_noise():
    density = small(SHAPE, (5,))
    density.variance.fill_(0.01)
    context = torch.randn(1, 5)
    draws = density.sample(context.expand(2000, 5), [draw_generator(7, n, 0) for n in range(2000)])
    assert draws.dtype == torch.uint8
    log_prob = log_prob_of_level(LEVELS[:, None], 255 * density.mean(context)[0, 0, 0].detach(), torch.tensor(25.5))
    expected = (LEVELS[:, None] * log_prob.exp()).sum(dim=0)  # of the 16 pixels in the first row
    assert (draws[:, 0, 0].double().mean(dim=0) - expected).abs().max() < 4 * 25.5 / 2000**0.5
    assert draws[:, 0, 0].double().std().item() == pytest.approx(25.5, rel=0.03)
    again = density.sample(context.expand(2, 5), [draw_generator(7, n, 0) for n in (3, 0)])
    assert (again.int() - draws[[3, 0]].int()).abs().max() <= 1  # but for rounding in another batch
    assert not torch.equal(again[0], again[1])


def test_initialisation_sets_the_variance_to_the_error_of_its_batch():
    inverter = Inverter("conv1", SHAPE, 10, density=small)
    images = random_images(30)
    inverter.initialise(images.split(20), images)
    error = (images / 255 - inverter.density.mean(inverter.context(images))).square().mean()
    torch.testing.assert_close(inverter.density.variance, error.detach())


class Latest(Callback):
    """Keeps the log-probabilities of the latest validation, which is one batch."""

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
        self.log_prob = outputs["log_prob"]


def trained(folder):
    """A short fit with the callbacks in the order of the command line; the inverter, its data and its trainer."""
    silence_lightning()
    torch.manual_seed(0)
    inverter = Inverter("fc3", SHAPE, 10, density=small, lr=0.02)
    data = Noise(batch_size=10)
    trainer = Trainer(
        default_root_dir=folder, max_steps=7, val_check_interval=3, check_val_every_n_epoch=None, accelerator="cpu",
        logger=False, enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        callbacks=[
            Latest(), BitsPerDim(), WarmWeightAveraging(), Calibrate(batch_size=10),
            ModelCheckpoint(folder, "best", monitor="val/nce_nats", mode="max"),
            ModelCheckpoint(folder, "last", save_on_train_epoch_end=False),
        ],
    )  # fmt: skip
    trainer.fit(inverter, data)
    return inverter, data, trainer


@pytest.mark.parametrize("name", ["best", "last"])
def test_a_checkpoint_has_the_nce_that_was_logged_and_its_variance_is_its_error(tmp_path, name):
    _, data, trainer = trained(tmp_path)
    checkpoint = torch.load(tmp_path / f"{name}.ckpt", weights_only=True)
    inverter = Inverter("fc3", SHAPE, 10, density=small).eval()
    inverter.load_state_dict(checkpoint["state_dict"])
    images = data.datasets["val"].images
    error = (images / 255 - inverter.density.mean(inverter.context(images))).square().mean()
    torch.testing.assert_close(inverter.density.variance, error.detach(), rtol=1e-6, atol=0)
    log_prob = inverter.log_prob_in_parts({"image": images})
    assert torch.equal(log_prob, trainer.callbacks[0].log_prob)  # to the last bit
    logged = trainer.callback_metrics["val/nce_nats"].item()
    assert log_prob.double().mean().item() == pytest.approx(logged, rel=1e-6)  # a sum of float32
    # The weights in training have it too, whose buffers the average takes at the next step.
    assert checkpoint["current_model_state"]["density.variance"] == inverter.density.variance
    raw, averaged = (checkpoint[key]["density.layers.0.weight"] for key in ("current_model_state", "state_dict"))
    assert not torch.equal(raw, averaged)


def test_validation_of_a_checkpoint_leaves_its_variance_alone(tmp_path):
    inverter, data, trainer = trained(tmp_path)
    inverter.density.variance.fill_(0.5)
    trainer.validate(inverter, data, verbose=False)
    assert inverter.density.variance == 0.5


def test_processes_together_fit_the_variance_of_the_whole_set():
    inverter, images, sums = Inverter("fc3", SHAPE, 10, density=small), random_images(11), []

    def calibrated(images, total):
        inverter.density.calibrate(((image, inverter.context(image)) for image in images.split(4)), total)
        return inverter.density.variance.item()

    alone = calibrated(images, lambda own: own)
    for share in (images[::2], images[1::2]):
        assert calibrated(share, lambda own: sums.append(own) or own) != pytest.approx(alone)
    assert calibrated(images[::2], lambda own: sum(sums)) == pytest.approx(alone, rel=1e-6)


def test_what_is_shown_is_the_rounded_mean_whatever_the_noise():
    inverter, image = Inverter("fc3", SHAPE, 10, density=small).eval(), random_images(3)
    shown = inverter.shown(image, [7, 8, 9], num_draws=2)
    mean = inverter.density.mean(inverter.context(image)).detach()
    assert (shown - 255 * mean[:, None]).abs().max() < 0.501
    assert inverter.density.point_estimate
    assert not torch.equal(shown, inverter.draws(image, [7, 8, 9], num_draws=2))
