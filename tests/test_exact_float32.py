"""What is reported, drawn or kept is computed in IEEE float32; training and validation in the run's precision."""

import numpy as np
import pytest
import torch
from small_runs import INVERTER, SHORT, result, run_with_results
from torch import nn

from cli import main
from inverters import Classifier, Inverter
from inverters.exact_float32 import exact_float32
from inverters.generators import ConditionalDensity
from inverters.networks import ConvNet

SHAPE = (1, 28, 28)
CPU = torch.device("cpu")


def is_exact():
    flags = torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark, torch.backends.cuda.matmul.allow_tf32
    return not any(flags) and not torch.is_autocast_enabled("cpu") and torch.get_float32_matmul_precision() == "highest"


@pytest.fixture
def _fast():
    """As a run in bfloat16 whose user has asked for TF32 and cuDNN's benchmark."""
    torch.set_float32_matmul_precision("medium")
    torch.backends.cudnn.benchmark = True
    yield
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.benchmark = False


@pytest.mark.usefixtures("_fast")
def test_what_was_set_is_put_back_after_an_error_too():
    for error in (None, RuntimeError):
        try:
            with torch.autocast("cpu", torch.bfloat16), exact_float32(CPU):
                assert is_exact()
                if error:
                    raise error
        except RuntimeError:
            pass
        assert torch.get_float32_matmul_precision() == "medium"  # Lightning asks so
        assert torch.backends.cudnn.allow_tf32
        assert torch.backends.cudnn.benchmark


class Observed(ConvNet):
    """Keeps how it was asked."""

    def __init__(self, image_shape, num_classes):
        super().__init__(image_shape, num_classes)
        self.conv1.register_forward_pre_hook(lambda *_: seen.append(is_exact()))


class Watching(ConditionalDensity):
    """Keeps how it was asked."""

    def __init__(self, image_shape, context_shape):
        super().__init__()
        self.image_shape, self.level = image_shape, nn.Parameter(torch.zeros(()))

    def log_prob(self, image, context):
        seen.append(is_exact())
        return self.level * image.flatten(1).float().mean(1)

    def sample(self, context, generators):
        seen.append(is_exact())
        return torch.zeros(len(context), *self.image_shape, dtype=torch.uint8)

    def initialise(self, image, context):
        seen.append(is_exact())


seen = []


@pytest.mark.usefixtures("_fast")
def test_whatever_is_reported_drawn_or_kept_is_exact_and_only_that():
    inverter = Inverter("conv1", SHAPE, 10, network=Observed, density=Watching).eval()
    classifier = Classifier(SHAPE, 10, network=Observed).eval()
    classifier.log = lambda *_, **__: None
    image = torch.zeros(3, *SHAPE, dtype=torch.uint8)
    batch = {"image": image, "label": torch.zeros(3, dtype=torch.long)}
    exact = {
        "h": lambda: inverter.representation(image),
        "scores": lambda: inverter.representation.class_probabilities(image),
        "log_prob": lambda: inverter.log_prob(batch),
        "log_prob_in_parts": lambda: inverter.log_prob_in_parts(batch),
        "test": lambda: inverter.test_step(batch, 0),
        "draws": lambda: inverter.draws(image, [0, 1, 2], 2),
        "initialise": lambda: inverter.initialise([image], image),
        "accuracy": lambda: classifier.test_step(batch, 0),
        "predictions": lambda: classifier.predict_step(batch, 0),
    }
    of_density = {"h": batch["image"].new_zeros(3, 32, 12, 12).float()}  # h is given, so that no network is asked
    rounded = {
        "training": lambda: inverter.training_step(batch | of_density, 0),
        "validation": lambda: inverter.validation_step(batch | of_density, 0),
        "classifier": lambda: classifier.validation_step(batch, 0),
    }
    for doors, expected in ((exact, True), (rounded, False)):
        for name, ask in doors.items():
            seen.clear()
            with torch.autocast("cpu", torch.bfloat16):
                ask()
            assert set(seen) == {expected}, name


def test_nobody_computes_exactly_while_draws_are_waited_for():
    inverter = Inverter(None, SHAPE, 10, density=Watching, sample_batch_size=1)
    batches = inverter.draw_batches(torch.zeros(2, *SHAPE, dtype=torch.uint8), [0, 1], 1)
    next(batches)
    assert torch.backends.cudnn.allow_tf32
    assert torch.is_grad_enabled()


def test_a_run_in_bfloat16_is_tested_in_float32(with_classifier):
    """Its numbers are those of a test without autocast, of the same weights, bit for bit."""
    main(["fit", *SHORT, "--trainer.max_steps=2", "--trainer.precision=bf16-mixed"])
    folder = run_with_results(INVERTER)
    arrays, nce = [], []
    for _ in range(2):
        arrays.append(np.load(folder / "log_prob_per_pixel.npy"))
        nce.append((result()["nce_nats"], result()["shuffled_nce_nats"]))
        main(["test", *SHORT])
    assert nce[0] == nce[1]
    assert np.array_equal(*arrays)
