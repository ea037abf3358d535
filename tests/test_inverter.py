import math
from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pytorch_lightning.trainer.states import TrainerFn
from torch import nn

from callbacks.bits_per_dim import BitsPerDim
from callbacks.results import likelihoods
from inverters import Categorical, Classifier, ConvNet, GlyphNet, Inverter, LogisticMixture, PixelCNN, TopBits
from inverters.generators import ConditionalDensity, ConditionalGenerator, bits_per_dim
from inverters.inverter import channel_statistics

SHAPE = (1, 28, 28)
small_density = partial(PixelCNN, num_filters=2, num_layers=1)


class Grey(ConditionalGenerator):
    """A generator without likelihood: learns a grey level, and draws nothing but its noise."""

    def __init__(self, image_shape, context_shape):
        super().__init__()
        self.image_shape = image_shape
        self.level = nn.Parameter(torch.zeros(()))

    def loss(self, image, context):
        return (image / 255 - self.level).abs().mean(dim=(1, 2, 3))

    def sample(self, context, generators):
        return torch.stack([torch.randint(256, self.image_shape, generator=g, dtype=torch.uint8) for g in generators])


class Histogram(ConditionalDensity):
    """A density without values of pixels, as a flow is: all sub-pixels from one distribution, a function of h."""

    def __init__(self, image_shape, context_shape):
        super().__init__()
        self.image_shape, self.logits = image_shape, nn.Linear(context_shape[0], 256)

    def log_prob(self, image, context):
        return self.logits(context).log_softmax(dim=1).gather(1, image.flatten(1).long()).sum(dim=1)

    def sample(self, context, generators):
        rows = zip(self.logits(context).softmax(dim=1), generators, strict=True)
        drawn = [row.multinomial(math.prod(self.image_shape), True, generator=g) for row, g in rows]
        return torch.stack(drawn).view(-1, *self.image_shape).to(torch.uint8)


@pytest.mark.parametrize(
    ("density", "told", "monitor"),
    [
        (Grey, {"loss"}, ("val/loss", "min")),
        (Histogram, {"log_prob"}, ("val/nce_nats", "max")),
        (small_density, {"log_prob", "log_prob_per_pixel"}, ("val/nce_nats", "max")),
    ],
)
def test_every_level_of_the_contract_trains_validates_and_samples(density, told, monitor):
    inverter = Inverter("fc3", SHAPE, 10, density=density)
    batch = {"image": torch.randint(256, (70, *SHAPE), dtype=torch.uint8)}
    inverter.initialise(batch["image"].split(40), batch["image"])
    before = inverter.eval().validation_step(batch, 0)
    optimizer = inverter.configure_optimizers()["optimizer"]
    step = inverter.train().training_step(batch, 0)
    step["loss"].backward()
    optimizer.step()
    assert step.keys() == ({"loss", "log_prob"} if "log_prob" in told else {"loss"})
    inverter.density.calibrate([], lambda summed: summed)
    after = inverter.eval().validation_step(batch, 0)
    assert after.keys() == told
    assert all(len(values) == 70 and not torch.equal(values, before[name]) for name, values in after.items())
    assert inverter.monitor == monitor
    draws = inverter.draws(batch["image"][:2], [7, 9], num_draws=3)
    assert draws.shape == (2, 3, *SHAPE)
    assert torch.equal(inverter.shown(batch["image"][:2], [7, 9], num_draws=3), draws)


def test_what_has_no_likelihood_is_not_asked_for_one():
    inverter = Inverter(None, SHAPE, 10, density=Grey)
    with pytest.raises(ValueError, match="a Grey only draws images"):
        inverter.log_prob_in_parts({"image": torch.zeros(1, *SHAPE, dtype=torch.uint8)})


@pytest.mark.parametrize(
    ("network", "layer", "num_classes", "classifies"),
    [
        (ConvNet, "conv1", 10, True),
        (ConvNet, None, 10, False),
        (TopBits, "bits", 10, False),
        (GlyphNet, "both", 1, False),
    ],
)
def test_a_network_with_a_score_for_every_class_classifies(network, layer, num_classes, classifies):
    assert Inverter(layer, SHAPE, num_classes, network=network, density=Grey).classifies == classifies


def test_a_checkpoint_says_which_classifier_was_inverted_where_it_knows():
    inverter, checkpoint = Inverter("fc3", SHAPE, 10, density=Grey), {}
    names = ("classifier_name", "classifier_updates", "classifier_course")
    inverter.classifier_name, inverter.classifier_updates, inverter.classifier_course = "mine", 100, "overfitted"
    inverter.on_save_checkpoint(checkpoint)
    for saved, expected in (({"layer": "fc3"}, [None] * 3), (checkpoint, ["mine", 100, "overfitted"])):
        inverter.on_load_checkpoint(saved)
        assert [getattr(inverter, name) for name in names] == expected


@pytest.mark.parametrize("shape", [(40, 3), (40, 3, 5, 6)])
def test_statistics_are_numpys_whatever_the_batches(shape):
    h = torch.randn(*shape) * torch.tensor([1.0, 1e-4, 50]).view(1, 3, *[1] * (len(shape) - 2)) + 7
    axes = tuple(axis for axis in range(len(shape)) if axis != 1)
    mean, scale = channel_statistics(h.split([7, 30, 3]))
    wide = h.double().numpy()
    np.testing.assert_allclose(mean.flatten(), wide.mean(axes), rtol=1e-6)
    np.testing.assert_allclose(scale.flatten(), np.maximum(wide.std(axes), 1e-2 * wide.std()), rtol=1e-5)


def test_a_constant_layer_is_divided_by_one():
    mean, scale = channel_statistics([torch.zeros(10, 4), torch.zeros(3, 4)])
    assert torch.equal(mean, torch.zeros(4))
    assert torch.equal(scale, torch.ones(4))


def test_initialised_contexts_are_standardised():
    inverter = Inverter("fc3", SHAPE, 10, density=small_density)
    images = torch.randint(256, (60, *SHAPE), dtype=torch.uint8)
    assert not inverter.initialised
    inverter.initialise(images.split(25), images[:8])
    assert inverter.initialised
    context = inverter.context(images)
    live = inverter.representation(images).std(dim=0) > 0.05
    torch.testing.assert_close(context.mean(dim=0), torch.zeros(256), atol=1e-4, rtol=0)
    torch.testing.assert_close(context.std(dim=0, correction=0)[live], torch.ones(int(live.sum())), atol=1e-3, rtol=0)


def test_log_prob_takes_the_context_of_another_image_where_one_is_given():
    inverter = Inverter("conv2", SHAPE, 10, density=small_density).eval()
    with torch.no_grad():
        for parameter in inverter.density.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    image = torch.randint(256, (2, *SHAPE), dtype=torch.uint8)
    own = inverter.log_prob({"image": image})
    other = inverter.log_prob({"image": image, "context_image": image.flip(0)})
    explicit = inverter.density.log_prob(image, inverter.context(image.flip(0)))
    torch.testing.assert_close(other, explicit)
    assert (own - other).abs().min() > 1e-3


def test_steps_return_what_the_callbacks_need():
    inverter = Inverter(None, SHAPE, 10, density=small_density).eval()
    batch = {"image": torch.randint(256, (3, *SHAPE), dtype=torch.uint8)}
    step = inverter.training_step(batch, 0)
    assert step["log_prob"].shape == (3,)
    assert not step["log_prob"].requires_grad
    torch.testing.assert_close(step["loss"].detach(), -step["log_prob"].mean())
    evaluated = inverter.validation_step(batch, 0)
    assert evaluated["log_prob_per_pixel"].shape == (3, *SHAPE[1:])
    torch.testing.assert_close(evaluated["log_prob"], inverter.log_prob(batch).double())
    assert torch.equal(evaluated["log_prob"], evaluated["log_prob_per_pixel"].double().sum((1, 2)))


def test_noise_is_common_to_all_layers():
    image = torch.randint(256, (2, *SHAPE), dtype=torch.uint8)
    of_layers = [Inverter(layer, SHAPE, 10, density=Grey).eval() for layer in ("conv1", "logits", None)]
    conv1, logits, unconditional = (inverter.draws(image, [7, 9], num_draws=2, seed=3) for inverter in of_layers)
    assert torch.equal(conv1, logits)
    assert torch.equal(conv1, unconditional)
    assert not torch.equal(conv1, of_layers[0].draws(image, [7, 9], num_draws=2, seed=4))


def test_draws_are_functions_of_index_and_number_whatever_the_batch():
    inverter = Inverter("logits", SHAPE, 10, density=small_density).double().eval()
    inverter.representation.float()
    image = torch.randint(256, (2, *SHAPE), dtype=torch.uint8)
    together = inverter.draws(image, [7, 9], num_draws=4)
    assert together.shape == (2, 4, *SHAPE)
    assert not torch.equal(together[0, 0], together[0, 1])
    assert torch.equal(inverter.draws(image[1:], [9], num_draws=2)[0], together[1, :2])
    inverter.sample_batch_size = 3
    batches = list(inverter.draw_batches(image, [7, 9], num_draws=4))
    assert [len(batch) for batch in batches] == [3, 3, 2]
    assert torch.equal(torch.cat(batches).view_as(together), together)


class _Crammed(PixelCNN):
    """Has memory for so many images and no more."""

    room = 3

    def log_prob_per_pixel(self, image, context):
        if len(image) > self.room:
            raise torch.OutOfMemoryError
        return super().log_prob_per_pixel(image, context)


def test_evaluation_takes_the_largest_batch_that_fits():
    inverter = Inverter("logits", SHAPE, 10, density=partial(_Crammed, num_filters=2, num_layers=1)).eval()
    image = torch.randint(256, (10, *SHAPE), dtype=torch.uint8)
    batch = {"image": image, "context_image": image.flip(0)}
    log_prob = inverter.log_prob_in_parts(batch)
    assert inverter.evaluated.largest == 3
    assert not log_prob.requires_grad
    expected = [inverter.log_prob({name: x[i : i + 1] for name, x in batch.items()}) for i in range(10)]
    torch.testing.assert_close(log_prob.float(), torch.cat(expected).detach())
    inverter.density.room = 0
    with pytest.raises(torch.OutOfMemoryError):
        inverter.log_prob_in_parts(batch)


class _CrammedGrey(Grey):
    """Has memory for so many draws and no more."""

    room = 3

    def sample(self, context, generators):
        drawn = super().sample(context, generators)
        if len(context) > self.room:
            raise torch.OutOfMemoryError
        return drawn


def test_sampling_takes_the_largest_batch_that_fits_and_draws_the_same():
    inverter = Inverter("logits", SHAPE, 10, density=_CrammedGrey)
    image = torch.randint(256, (2, *SHAPE), dtype=torch.uint8)
    expected = Inverter("logits", SHAPE, 10, density=Grey).draws(image, [7, 9], num_draws=5)
    for _ in range(2):  # of 10, of 5, of 3; then at once of 3
        batches = list(inverter.draw_batches(image, [7, 9], num_draws=5))
        assert [len(batch) for batch in batches] == [3, 3, 3, 1]
        assert torch.equal(torch.cat(batches), expected.flatten(0, 1))
        assert inverter.drawn.largest == 3
    inverter.density.room = 0
    with pytest.raises(torch.OutOfMemoryError):
        inverter.draws(image, [7, 9], num_draws=1)


@pytest.mark.parametrize(("device", "given", "taken"), [("cpu", None, 64), ("meta", None, 1024), ("meta", 5, 5)])
def test_a_batch_of_draws_is_as_large_as_the_device_wants_or_as_is_given(device, given, taken, monkeypatch):
    """The device "meta" stands for any but a CPU."""
    inverter = Inverter(None, SHAPE, 10, density=Grey, sample_batch_size=given).to(device)
    monkeypatch.setattr(inverter.density, "sample", lambda context, generators: torch.zeros(len(context)))
    monkeypatch.setattr("inverters.inverter.draw_generator", lambda *key: None)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # which "meta" does not have
    image = torch.zeros(1, *SHAPE, dtype=torch.uint8, device=device)
    assert len(next(inverter.draw_batches(image, [0], num_draws=1100))) == taken


@pytest.mark.parametrize(("shape", "likelihood"), [((1, 28, 28), Categorical()), ((3, 28, 28), LogisticMixture())])
def test_bfloat16_gives_the_same_nce_and_leaves_h_alone(shape, likelihood):
    inverter = Inverter("fc3", shape, 10, density=lambda *s: PixelCNN(*s, likelihood, num_filters=16, num_layers=1))
    images = torch.randint(256, (40, *shape), dtype=torch.uint8)
    inverter.initialise(images.split(20), images)
    inverter.eval()
    nce = inverter.log_prob_in_parts({"image": images}).mean().item()
    with torch.autocast("cpu", torch.bfloat16):
        context = inverter.context(images)
        rounded = inverter.validation_step({"image": images}, 0)["log_prob"].mean().item()
        tested = inverter.log_prob_in_parts({"image": images}).mean().item()
        drawn = inverter.draws(images[:2], [0, 1], num_draws=1)
    assert torch.equal(context, inverter.context(images))
    assert torch.equal(drawn, inverter.draws(images[:2], [0, 1], num_draws=1))
    assert tested == nce
    assert rounded != nce
    assert rounded == pytest.approx(nce, rel=1e-3)


def test_learning_rate_decays_every_step():
    inverter = Inverter(None, SHAPE, 10, density=small_density, lr=0.1, lr_decay=0.5)
    configured = inverter.configure_optimizers()
    assert configured["lr_scheduler"]["interval"] == "step"
    configured["optimizer"].step()
    configured["lr_scheduler"]["scheduler"].step()
    assert configured["optimizer"].param_groups[0]["lr"] == 0.05


def test_a_uniform_model_has_eight_bits_a_dimension():
    assert bits_per_dim(torch.tensor(-784 * math.log(256), dtype=torch.float64), 784).item() == pytest.approx(8)


def test_the_public_doors_take_uint8_images_and_no_floats():
    inverter = Inverter("fc3", SHAPE, 10, density=small_density)
    image = torch.rand(2, *SHAPE)
    asked = (
        lambda: inverter.log_prob({"image": image}),
        lambda: inverter.log_prob({"image": image, "h": torch.zeros(2, 256)}),
        lambda: inverter.log_prob_in_parts({"image": image}),
        lambda: inverter.context(image),
        lambda: inverter.draws(image, [0, 1], 1),
        lambda: Classifier(SHAPE, 10)(image),
    )
    for ask in asked:
        with pytest.raises(ValueError, match="images are uint8, from 0 to 255"):
            ask()


@pytest.mark.parametrize("module", [Inverter, Classifier])
def test_loading_by_lightning_says_how_it_is_done_instead(module):
    with pytest.raises(ValueError, match=f"how its {module.__name__} is built: use python cli.py with its config"):
        module.load_from_checkpoint("best.ckpt")


@pytest.mark.parametrize("wrong", [math.nan, -math.inf])
def test_no_result_is_made_of_what_is_not_finite(wrong):
    values = {"log_prob": torch.tensor([-1.0, wrong, -2]), "shuffled": torch.tensor([-1.0, -2, -3])}
    with pytest.raises(ValueError, match=f"of 1 of 3 test images is {wrong:g}"):
        likelihoods(values, 784, conditional=True)
    with pytest.raises(ValueError, match="with the h of other images"):
        likelihoods({"log_prob": values["shuffled"], "shuffled": values["log_prob"]}, 784, conditional=True)


@pytest.mark.parametrize("wrong", [math.nan, -math.inf])
def test_an_image_without_a_finite_log_prob_is_not_left_out_of_the_validation(wrong):
    callback = BitsPerDim()
    callback.mean.update(torch.tensor([-1.0, wrong, -2]))
    trainer = SimpleNamespace(state=SimpleNamespace(fn=TrainerFn.VALIDATING))
    with pytest.raises(ValueError, match=f"val/nce_nats is {wrong:g}: the model has diverged"):
        callback.on_validation_epoch_end(trainer, Inverter(None, SHAPE, 10, density=small_density))


def test_a_density_is_a_generator_of_images():
    with pytest.raises(ValueError, match="density gives a Linear; give what makes a ConditionalGenerator"):
        Inverter(None, SHAPE, 10, density=lambda *_: nn.Linear(1, 1))
