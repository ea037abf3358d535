"""Images come back bit for bit, from as few bytes as p(x | h) says."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_runs import INVERTER, SMALL, failure
from test_pixelcnn import random_pixelcnn
from torch import nn

import inverters
from cli import main
from evaluations.measurements import CompressionResult
from evaluations.other_formats import sizes
from inverters.compressed_file import HEADER, compressed, decompressed
from inverters.entropy_coding import decoded, encoded
from inverters.generators import bits_per_dim, draw_generator
from inverters.inverter import Inverter
from inverters.likelihoods import Categorical, LogisticMixture

ALL = {"decoder_filters": 3, "level_features": 3, "palette": True}
CASES = [  # image, h, likelihood, what the paper's network has not
    ((1, 8, 8), (5,), Categorical(), ALL),
    ((1, 4, 8), (0,), Categorical(4), {}),
    ((1, 8, 4), (3,), LogisticMixture(2), {"decoder_filters": 3, "level_features": 2}),
    ((3, 4, 8), (3, 5, 6), LogisticMixture(3), {"decoder_filters": 3, "level_features": 2}),
    ((3, 8, 4), (0,), LogisticMixture(2), {}),
    ((2, 4, 4), (3, 8, 8), LogisticMixture(2), {}),  # folded
]


class Pieces(nn.Module):
    """A layer of few numbers."""

    def __init__(self, image_shape, num_classes):
        super().__init__()
        self.layer = nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(image_shape)), 3), nn.Tanh())

    def forward(self, x):
        return self.layer(x)


def density(x, h):
    return random_pixelcnn(x, h, Categorical(64), scale=0.8)


def inverter_of(layer="layer"):
    torch.manual_seed(1)
    return Inverter(layer, (1, 4, 8), 3, network=Pieces, density=density).eval()


def with_h(n=5):
    inverter = inverter_of()
    image = 4 * torch.randint(64, (n, 1, 4, 8), dtype=torch.uint8)
    h = inverter.representation(image)
    return inverter, image, h


@pytest.mark.parametrize(("image_shape", "context_shape", "likelihood", "more"), CASES)
def test_images_come_back_bit_for_bit_from_as_many_bytes_as_log_prob_says(
    image_shape, context_shape, likelihood, more, monkeypatch
):
    """In parts of 3, of images that are the model's own draws and one that is not."""
    monkeypatch.setattr("inverters.entropy_coding.AT_ONCE", 3)
    model = random_pixelcnn(image_shape, context_shape, likelihood, **more)
    context = torch.randn(8, *context_shape)
    image = model.sample(context, [draw_generator(i, 0, 0) for i in range(8)]).clone()
    step = likelihood.step
    image[-1] = step * torch.randint(256 // step, image_shape, dtype=torch.uint8)
    code = encoded(model, image, context)
    with torch.no_grad():
        ideal = float(bits_per_dim(model.log_prob(image, context).double(), 8).sum())
    assert ideal - 0.001 * ideal - 1 < len(code) <= 1.001 * ideal + 4
    torch.set_num_threads(2)  # is of no consequence
    assert torch.equal(decoded(model, code, context), image)
    assert torch.get_num_threads() == 2


def test_a_model_that_is_nearly_certain_writes_nearly_nothing():
    model = random_pixelcnn((1, 8, 8), (2,), Categorical())
    with torch.no_grad():
        model.head.bias[7] += 1000
    context = torch.randn(70, 2)
    image = torch.full((70, 1, 8, 8), 7, dtype=torch.uint8)
    code = encoded(model, image, context)
    assert len(code) <= 4
    assert torch.equal(decoded(model, code, context), image)


@pytest.mark.parametrize("floor", [-7.0, -20.0])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_probabilities_of_levels_are_those_of_log_prob(channels, floor):
    likelihood = LogisticMixture(3, floor)
    params = 3 * torch.randn(20, likelihood.num_parameters(channels), dtype=torch.float64)
    uniforms = torch.rand(20, likelihood.num_uniforms(channels), 1, 1, dtype=torch.float64)
    x = likelihood.sample(params[:, :, None, None], likelihood.noise(uniforms), channels)[:, :, 0, 0]
    x[:4] = torch.tensor([0, 255, 0, 255], dtype=torch.uint8)[:, None]
    log_prob = torch.zeros(20, dtype=torch.float64)
    for c in range(channels):
        probs = likelihood.level_probs(params, x[:, :c], channels)
        assert torch.allclose(probs.sum(dim=1), torch.ones(20, dtype=torch.float64), atol=1e-12)
        log_prob += probs.gather(1, x[:, c : c + 1].long())[:, 0].log()
    expected = likelihood.log_prob(params[:, :, None, None], x[:, :, None, None])[:, 0, 0]
    near = expected > -20  # beyond, one less another rounds away
    assert near.sum() > 5
    torch.testing.assert_close(log_prob[near], expected[near], atol=1e-6, rtol=1e-6)


def test_what_the_model_rules_out_is_refused():
    model = random_pixelcnn((1, 4, 4), (0,), Categorical(4))
    with pytest.raises(ValueError, match=r"has the value 65, which .* rules out: it has 0, 64, 128"):
        encoded(model, torch.full((1, 1, 4, 4), 65, dtype=torch.uint8), torch.empty(1, 0))


@pytest.mark.parametrize("n", [1, 5])
def test_a_file_gives_the_images_back_in_their_order(n):
    inverter, image, h = with_h(n)
    content = compressed(inverter, image, h)
    assert torch.equal(decompressed(inverter, content, h), image)
    backwards = compressed(inverter, image.flip(0), h.flip(0))
    assert torch.equal(decompressed(inverter, backwards, h.flip(0)), image.flip(0))


def test_a_file_damaged_anywhere_is_refused():
    inverter, image, h = with_h()
    content = compressed(inverter, image, h)
    for at in [*range(HEADER.size + 8), len(content) // 2, len(content) - 1]:
        damaged = bytearray(content)
        damaged[at] ^= 4
        with pytest.raises(ValueError, match=r"no compressed images|of version|damaged"):
            decompressed(inverter, bytes(damaged), h)
    for short in (b"", content[:3], content[:4], content[: HEADER.size], content[:-1], content + b"\0"):
        with pytest.raises(ValueError, match=r"no compressed images|of version|damaged"):
            decompressed(inverter, short, h)


def test_another_h_and_other_weights_are_refused():
    inverter, image, h = with_h()
    content = compressed(inverter, image, h)
    for other, said in ((h.flip(0), "h is not that"), (h[:4], r"takes h of \[5, 3\], not \[4, 3\]"), (None, "given h")):
        with pytest.raises(ValueError, match=said):
            decompressed(inverter, content, other)
    with torch.no_grad():
        inverter.context_scale += 1e-6
    with pytest.raises(ValueError, match="other weights"):
        decompressed(inverter, content, h)
    with pytest.raises(ValueError, match="no images"):
        compressed(inverter, image[:0], h[:0])


def test_images_that_come_out_otherwise_are_not_given_out(monkeypatch):
    """As on a machine whose last digits are others."""
    inverter, image, h = with_h()
    content = compressed(inverter, image, h)
    probs = Categorical.level_probs
    monkeypatch.setattr(Categorical, "level_probs", lambda *args: probs(*args) + 1e-3)
    with pytest.raises(ValueError, match="not those that went in: this processor"):
        decompressed(inverter, content, h)
    monkeypatch.setattr(torch, "__version__", "3.0")
    with pytest.raises(ValueError, match="another PyTorch or another kind of processor"):
        decompressed(inverter, content, h)


def test_other_formats_hold_all_images():
    images = np.random.default_rng(0).integers(256, size=(5, 3, 8, 8), dtype=np.uint8)
    alone, mosaic = sizes(images)
    assert {"PNG", "WebP"} <= alone.keys() == mosaic.keys()
    assert all(size > 5 * 192 for size in alone.values())  # noise
    assert all(5 * 192 < mosaic[name] < alone[name] for name in alone)
    assert sizes(images[:, :2]) == ({}, {})


def test_commands_write_a_file_and_get_the_images_back(with_inverter, capsys):
    config = [*SMALL, "--trainer.logger=false"]
    main(["compress", *config, "--num_images=3", "--output=out/digits.nats"])
    assert "3 test images of 1x28x28" in capsys.readouterr().out
    asked = ["decompress", *config, "--input=out/digits.nats"]
    main([*asked, "--h=out/digits.h.npy", "--output=back"])
    assert "3 images, bit for bit" in capsys.readouterr().out
    main([*asked, "--h=out/digits.h.npy", "--output=back.npy"])
    back = np.load("back.npy")
    paths = sorted(Path("back").iterdir())
    assert [path.name for path in paths] == ["0.png", "1.png", "2.png"]
    assert all(np.array_equal(np.asarray(Image.open(path)), its[0]) for path, its in zip(paths, back, strict=True))
    (folder,) = Path("runs", INVERTER).glob("*/")
    result = CompressionResult.from_json(json.loads((folder / "compression.json").read_text()))
    assert result.num_bytes == Path("out/digits.nats").stat().st_size <= 1.001 * result.ideal_bytes + 4 + 30
    assert result.h_bytes == 3 * 256 * 4
    main(["compress", *config, "--images=[back/1.png,back/0.png]", "--output=own.nats"])
    content, h = Path("own.nats").read_bytes(), np.load("own.h.npy")
    asked_in_python = inverters.load(f"runs/{INVERTER}", device="cpu")
    assert np.array_equal(asked_in_python.decompress(content, h), back[[1, 0]])
    again, its_h = asked_in_python.compress(back[[1, 0]])
    assert again == content
    assert np.array_equal(its_h, h)
    main(["report", "runs"])
    assert "In bytes" in next(Path().rglob("*.html")).read_text()

    before = sorted(Path().rglob("*"))
    assert "not empty" in failure(capsys, *asked, "--h=out/digits.h.npy", "--output=back")
    assert "given h" in failure(capsys, *asked, "--output=no")
    assert "no .npy of h" in failure(capsys, *asked, "--h=out/digits.nats", "--output=no")
    assert "no h at absent.npy" in failure(capsys, *asked, "--h=absent.npy", "--output=no")
    assert "no picture at absent.png" in failure(capsys, "compress", *config, "--images=absent.png")
    assert "no images" in failure(capsys, "compress", *config, "--images=[]", "--output=no")
    assert "at least 1" in failure(capsys, "compress", *config, "--num_images=0", "--output=no")
    assert [path for path in sorted(Path().rglob("*")) if path.name != "last_error.txt"] == before
