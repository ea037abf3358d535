"""A checkpoint whose weights are no numbers answers nothing."""

import shutil
from pathlib import Path

import pytest
import torch
from small_runs import INVERTER, SMALL, failure

from runtime.checkpoints import check_fit

NAME = "density.head.bias"


def changed(change):
    """The path of a checkpoint of the inverter, one tensor changed."""
    (path,) = Path("runs", INVERTER).glob("*/checkpoints/best.ckpt")
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["state_dict"][NAME] = change(checkpoint["state_dict"][NAME])
    torch.save(checkpoint, "changed.ckpt")
    return "--ckpt_path=changed.ckpt"


@pytest.mark.parametrize(
    "verb", ["test", "validate", "predict", "sample", "distances", "estimators", "score --images=[a.png]"]
)
def test_no_verb_answers_from_weights_that_are_nan(with_inverter, capsys, verb):
    shutil.rmtree("runs/classifier_mnist5k")
    Path("a.png").touch()
    before = set(Path("runs").rglob("*"))
    message = failure(capsys, *verb.split(), *SMALL, changed(lambda value: value * torch.nan))
    assert f"changed.ckpt holds NaN or infinity in {NAME}: its training diverged" in message
    assert set(Path("runs").rglob("*")) - before <= {Path("runs/last_error.txt")}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda value: torch.full_like(value, torch.inf), f"holds NaN or infinity in {NAME}"),
        (lambda value: value.to("meta"), "is no checkpoint, or holds objects other than tensors and numbers"),
        (lambda value: value.long(), f"has {NAME} as torch.int64 where torch.float32 is needed"),
        (lambda value: value.to(torch.complex64), f"has {NAME} as torch.complex64 where torch.float32 is needed"),
    ],
)
def test_tensors_without_usable_values_are_refused(with_inverter, capsys, change, sentence):
    assert f"changed.ckpt {sentence}" in failure(capsys, "sample", *SMALL, changed(change))


def test_a_buffer_may_hold_infinity_by_design_and_weights_another_precision():
    module = torch.nn.Linear(2, 2)
    module.register_buffer("mask", torch.tensor([0, -torch.inf]))
    check_fit(module, module.state_dict(), "a.ckpt")
    check_fit(module, {name: value.double() for name, value in module.state_dict().items()}, "a.ckpt")
    module.mask[0] = torch.nan
    with pytest.raises(ValueError, match="holds NaN or infinity in mask"):
        check_fit(module, module.state_dict(), "a.ckpt")
