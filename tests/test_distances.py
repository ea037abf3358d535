"""Neighbours in a layer's space, Table 1, and the samples that a layer does not tell from its input."""

import json
import sys
import tracemalloc

import numpy as np
import pytest
import torch
from scipy.stats import bootstrap

from benchmarks import nearest as benchmark
from callbacks.distances import Measurement
from callbacks.trainer import Trainer
from evaluations.distances import (
    closest_samples,
    most_different_samples,
    nearest,
    representation_distances,
    sample_distances,
)
from inverters.inverter import Inverter


@pytest.fixture
def on_disk(tmp_path):
    def write(rows: np.ndarray) -> np.ndarray:
        np.save(tmp_path / "rows.npy", rows)
        return np.load(tmp_path / "rows.npy", mmap_mode="r")

    return write


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
def test_nearest_are_the_first_of_all_rows_in_order(dtype, on_disk):
    rows = on_disk((255 * torch.rand(40, 2, 3)).numpy().astype(dtype))
    queries = 255 * torch.rand(7, 2, 3)
    distances, indices = nearest(queries, rows, 5)
    for query, found, positions in zip(queries.tolist(), distances, indices, strict=True):
        all_distances = [np.mean(abs(np.float64(query) - np.float64(row))) for row in rows]
        order = sorted(range(40), key=all_distances.__getitem__)[:5]
        assert positions.tolist() == order
        assert found.numpy() == pytest.approx([all_distances[i] for i in order], rel=1e-12)


@pytest.mark.parametrize("rows_a_chunk", [1, 7, 60])
def test_nearest_do_not_depend_on_the_chunk(rows_a_chunk, on_disk):
    queries, rows = torch.randn(5, 30), torch.randn(60, 30).repeat(2, 1)  # each row twice, so that there are ties
    at_once = nearest(queries, rows, 9)
    in_chunks = nearest(queries, on_disk(rows.numpy()), 9, chunk_bytes=8 * 30 * rows_a_chunk)
    assert torch.equal(at_once[0], in_chunks[0])
    assert torch.equal(at_once[1], in_chunks[1])


@pytest.mark.parametrize("chunk_bytes", [1, 2**22])
def test_of_equally_near_rows_the_first_wins(chunk_bytes):
    rows = torch.ones(300, 4)
    rows[250] = 0
    distances, indices = nearest(torch.zeros(2, 4), rows, 4, chunk_bytes=chunk_bytes)
    assert indices.tolist() == [[250, 0, 1, 2]] * 2
    assert distances.tolist() == [[0, 1, 1, 1]] * 2


def test_memory_is_that_of_a_chunk(on_disk):
    rows = on_disk(np.random.default_rng(0).random((20_000, 50), dtype=np.float32))  # 8 MB in float64
    tracemalloc.start()
    nearest(torch.rand(30, 50), rows, 3, chunk_bytes=2**16)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**19


def test_narrow_types_neither_overflow_nor_wrap():
    assert nearest(torch.zeros(1, 1000), np.full((1, 1000), 1000, dtype=np.float16), 1)[0].item() == 1000
    assert nearest(torch.zeros(1, 9, dtype=torch.uint8), torch.full((1, 9), 255, dtype=torch.uint8), 1)[0].item() == 255
    assert nearest(torch.zeros(1, 1000), torch.full((1, 1000), 257.0).bfloat16(), 1)[0].item() == 256  # 8 bits


def test_there_are_no_more_neighbours_than_rows():
    with pytest.raises(ValueError, match=r"k is 4 and there are only 3 rows to be near; take a k of at most 3"):
        nearest(torch.zeros(1, 2), torch.zeros(3, 2), 4)


def test_each_image_is_compared_with_its_own_samples():
    h, samples = torch.randn(3, 2, 5), torch.randn(3, 4, 2, 5)
    distances = sample_distances(h, samples)
    for i, s in np.ndindex(3, 4):
        assert distances[i, s].item() == pytest.approx(np.abs((h[i] - samples[i, s]).double().numpy()).sum() / 10)


def test_table_1_of_two_images_worked_by_hand():
    row = representation_distances(torch.tensor([2.0, 4.0]), torch.tensor([[1.0, 3.0], [6.0, 2.0]]))
    assert (row.num_images, row.num_samples) == (2, 2)
    assert (row.one_nn, row.im_s, row.im_nn) == (3, 3, 1.5)
    assert (row.one_nn_se, row.im_s_se, row.im_nn_se) == pytest.approx((1, 1, 0.5))
    assert (row.im_s_ratio, row.im_nn_ratio) == (1, 0.5)
    # Image by image the ratio is the same, so the two means rise and fall together.
    assert (row.im_s_ratio_se, row.im_nn_ratio_se) == pytest.approx((0, 0), abs=1e-12)
    assert json.loads(json.dumps(row._asdict()))["im_nn_ratio"] == 0.5


def test_standard_errors_of_the_ratios_are_those_of_a_paired_bootstrap():
    difficulty = 1 + torch.rand(200, 1, dtype=torch.float64)
    one_nn, samples = difficulty[:, 0] * (1 + 0.3 * torch.rand(200)), difficulty * (0.5 + torch.rand(200, 10))
    row = representation_distances(one_nn, samples)
    for per_image, error in ((samples.mean(1), row.im_s_ratio_se), (samples.amin(1), row.im_nn_ratio_se)):
        resampled = bootstrap(
            (per_image.numpy(), one_nn.numpy()), lambda a, b, axis: a.mean(axis) / b.mean(axis), paired=True,
            n_resamples=2000, method="percentile", rng=np.random.default_rng(0),
        )  # fmt: skip
        assert error == pytest.approx(resampled.standard_error, rel=0.08)


def test_ratios_do_not_depend_on_the_scale_of_h():
    def row(scale: float):
        h, train, samples = (scale * torch.randn(n, 8, generator=torch.Generator().manual_seed(n)) for n in (6, 50, 60))
        return representation_distances(nearest(h, train, 1)[0][:, 0], sample_distances(h, samples.view(6, 10, 8)))

    small, large = row(1.0), row(64.0)
    assert large.one_nn == pytest.approx(64 * small.one_nn)
    for ratio in ("im_s_ratio", "im_s_ratio_se", "im_nn_ratio", "im_nn_ratio_se"):
        assert getattr(large, ratio) == pytest.approx(getattr(small, ratio))


def test_the_input_is_the_closest_of_its_samples():
    samples = torch.randint(256, (64, 1, 4, 4), dtype=torch.uint8)
    image = samples[37]
    distances, indices = closest_samples(image, samples, 6)
    everywhere = np.abs(samples.numpy().astype(int) - image.numpy().astype(int)).mean((1, 2, 3))
    assert indices[0] == 37
    assert indices.tolist() == np.argsort(everywhere, kind="stable")[:6].tolist()
    assert distances.tolist() == np.sort(everywhere)[:6].tolist()


def test_a_layer_is_most_blind_to_the_near_samples_that_look_most_different():
    image = torch.zeros(1, 1, 2, dtype=torch.uint8)
    samples = torch.tensor([[10, 10], [250, 252], [30, 50], [40, 40], [0, 8]], dtype=torch.uint8).view(5, 1, 1, 2)
    h, h_samples = torch.zeros(2), torch.tensor([[0.0, 1.0], [3.0, 3.0], [1.0, -1.0], [0.0, 0.0], [0.5, 0.5]])
    found = most_different_samples(image, samples, h, h_samples, radius=1.0, k=3)
    assert found.indices.tolist() == [2, 3, 0]  # 1 is outside; 2 lies on the edge, and comes before its equal
    assert found.pixel_distances.tolist() == [40, 40, 10]
    assert found.distances.tolist() == [1, 0, 0.5]


def test_of_equally_different_samples_the_first_wins():
    samples, h_samples = torch.ones(300, 1, 2, 2, dtype=torch.uint8), torch.zeros(300, 1)
    found = most_different_samples(torch.zeros_like(samples[0]), samples, h_samples[0], h_samples, radius=0, k=3)
    assert found.indices.tolist() == [0, 1, 2]


def test_fewer_or_no_samples_are_as_near_as_the_nearest_training_image():
    samples, h_samples = torch.randint(256, (5, 1, 2, 2), dtype=torch.uint8), torch.arange(1.0, 6.0).view(5, 1)
    near = most_different_samples(samples[0], samples, torch.zeros(1), h_samples, radius=2.5, k=4)
    assert sorted(near.indices.tolist()) == [0, 1]
    none = most_different_samples(samples[0], samples, torch.zeros(1), h_samples, radius=0.5, k=4)
    assert [len(part) for part in none] == [0, 0, 0]


def test_a_sample_whose_h_is_that_of_the_nearest_training_image_is_near():
    h, train = torch.randn(784), torch.randn(30, 784)
    distances, indices = nearest(h[None], train, 1)
    image, twin = torch.zeros(1, 2, 2, dtype=torch.uint8), train[indices[0]]
    found = most_different_samples(image, image[None], h, twin, radius=distances.item(), k=1)
    assert found.distances.tolist() == distances[0].tolist()


def test_benchmark(monkeypatch, tmp_path):
    path = tmp_path / "figures.json"
    sizes = ["--num_queries=20", "--num_rows=300", "--num_units=50"]
    monkeypatch.setattr(sys, "argv", ["nearest", "--repeats=1", f"--json={path}", *sizes])
    benchmark.main()
    (row,) = json.loads(path.read_text())["rows"]
    assert row["torch.cdist / nearest"]["median"] > 0
    assert 0 <= row["MiB"] < 1000


@pytest.mark.parametrize("space", ["layer", "pixels"])
def test_shown_are_the_nearest_and_the_most_different_of_all_samples(space, monkeypatch):
    """Samples are the input with some pixels changed, in some so few that the layer has them near."""
    training, images = torch.randint(256, (50, 1, 16, 16), dtype=torch.uint8), torch.full((2, 1, 16, 16), 100).byte()
    images[1] += 50
    samples = images[:, None].repeat(1, 30, 1, 1, 1)
    for k in range(30):
        samples[:, k].flatten(1)[:, torch.randperm(256)[: 3 * k]] = torch.randint(256, (3 * k,), dtype=torch.uint8)
    inverter = Inverter("fc3", (1, 16, 16), 10).eval()
    monkeypatch.setattr(inverter, "draws", lambda image, index, num_draws, seed: samples)
    h, h_samples, h_training = (
        inverter.representation(x.flatten(0, -4)).double().numpy() for x in (images, samples, training)
    )
    trainer = Trainer(accelerator="cpu", devices=1, logger=False, enable_checkpointing=False)
    measurement = Measurement(trainer, inverter, training, h_training, seed=0)
    found = measurement.neighbours(images, [4, 5], 30, space)
    for q in range(2):
        by_h = abs(h_samples.reshape(2, 30, -1)[q] - h[q]).mean(axis=1)
        by_pixels = abs(samples[q].double() - images[q].double()).mean(dim=(1, 2, 3)).numpy()
        radius = abs(h_training - h[q]).mean(axis=1).min()
        order = np.argsort(by_h if space == "layer" else by_pixels, kind="stable")[:6]
        assert np.array_equal(found["samples"][q], samples[q, order])
        blind = [k for k in np.argsort(-by_pixels, kind="stable") if by_h[k] <= radius][:6]
        assert len(blind) == 6  # the case is not an empty one
        assert np.array_equal(found["blind"][q], samples[q, blind])
        assert found["blind_distances"][q] == pytest.approx(by_pixels[blind])
