"""Neighbours in a layer's space, Table 1, and the samples that a layer does not tell from its input."""

import tracemalloc

import numpy as np
import pytest
import torch
from scipy.stats import bootstrap

from evaluations.distances import _by_torch, most_different_samples, nearest, neighbours, sample_distances, table_1
from evaluations.measurements import DistancesResult


def on_disk(folder, rows):
    np.save(folder / "rows.npy", rows)
    return np.load(folder / "rows.npy", mmap_mode="r")


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
def test_nearest_are_the_first_of_all_rows_in_order(dtype, tmp_path):
    rows = on_disk(tmp_path, (255 * torch.rand(40, 2, 3)).numpy().astype(dtype))
    queries = 255 * torch.rand(7, 2, 3)
    distances, indices = nearest(queries, rows, 5)
    for query, found, positions in zip(queries.tolist(), distances, indices, strict=True):
        all_distances = [np.mean(abs(np.float64(query) - np.float64(row))) for row in rows]
        order = sorted(range(40), key=all_distances.__getitem__)[:5]
        assert positions.tolist() == order
        assert found.numpy() == pytest.approx([all_distances[i] for i in order], rel=1e-12)


@pytest.mark.parametrize("rows_a_chunk", [1, 7, 60])
def test_nearest_do_not_depend_on_the_chunk(rows_a_chunk, tmp_path):
    queries, rows = torch.randn(5, 30), torch.randn(60, 30).repeat(2, 1)  # each row twice, so that there are ties
    in_chunks = nearest(queries, on_disk(tmp_path, rows.numpy()), 9, chunk_bytes=8 * 30 * rows_a_chunk)
    assert all(map(torch.equal, nearest(queries, rows, 9), in_chunks))


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
def test_a_gpu_finds_what_scipy_finds(dtype, tmp_path, monkeypatch):
    """By the function that a GPU takes."""
    rows = on_disk(tmp_path, (255 * torch.rand(70, 2, 30)).numpy().astype(dtype))
    queries = 255 * torch.rand(7, 2, 30)
    expected, indices = nearest(queries, rows, 5, chunk_bytes=2**12)
    monkeypatch.setattr("evaluations.distances._by_scipy", _by_torch)
    found, found_indices = nearest(queries, rows, 5, chunk_bytes=2**13)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    assert torch.equal(found_indices, indices)


def test_a_process_without_queries_finds_nothing():
    found, indices = nearest(torch.zeros(0, 2, 3), torch.rand(9, 2, 3), 1)
    assert found.shape == indices.shape == (0, 1)


@pytest.mark.parametrize("chunk_bytes", [1, 2**22])
def test_of_equally_near_rows_the_first_wins(chunk_bytes):
    rows = torch.ones(300, 4)
    rows[250] = 0
    distances, indices = nearest(torch.zeros(2, 4), rows, 4, chunk_bytes=chunk_bytes)
    assert indices.tolist() == [[250, 0, 1, 2]] * 2
    assert distances.tolist() == [[0, 1, 1, 1]] * 2


def test_memory_is_that_of_a_chunk(tmp_path):
    rows = on_disk(tmp_path, np.random.default_rng(0).random((20_000, 50), dtype=np.float32))  # 8 MB in float64
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


def table(one_nn, distances):
    """Table 1 of images whose samples are at these distances, [M, S]."""
    return table_1(one_nn, torch.zeros(len(one_nn), 1), distances[..., None], None)[0]


def test_table_1_of_two_images_worked_by_hand():
    found = table(torch.tensor([2.0, 4.0]), torch.tensor([[1.0, 3.0], [6.0, 2.0]]))
    assert (found["num_images"], found["num_samples"]) == (2, 2)
    assert (found["one_nn"], found["im_s"], found["im_nn"]) == (3, 3, 1.5)
    assert (found["one_nn_se"], found["im_s_se"], found["im_nn_se"]) == pytest.approx((1, 1, 0.5))
    assert (found["im_s_ratio"], found["im_nn_ratio"]) == (1, 0.5)
    # Image by image the ratio is the same, so the two means rise and fall together.
    assert (found["im_s_ratio_se"], found["im_nn_ratio_se"]) == pytest.approx((0, 0), abs=1e-12)


def test_class_agreement_is_over_images_and_the_distances_are_kept():
    h, h_samples, one_nn = torch.randn(3, 5), torch.randn(3, 2, 5), torch.rand(3, dtype=torch.float64)
    agrees = torch.tensor([[True, True], [True, False], [False, False]])
    found, arrays = table_1(one_nn, h, iter(h_samples), agrees)
    assert found["class_agreement"] == 0.5
    assert found["class_agreement_se"] == pytest.approx(0.5 / 3**0.5)  # of 1, 1/2 and 0
    assert np.array_equal(arrays["samples"], sample_distances(h, h_samples))
    assert np.array_equal(arrays["one_nn"], one_nn)
    all_agree, _ = table_1(one_nn, h, iter(h_samples), torch.ones(3, 2))
    assert (all_agree["class_agreement_low"], all_agree["class_agreement_high"]) == pytest.approx((0.4385, 1), abs=1e-4)
    about = {"name": "a", "layer": "b", "seed": 0, "network_digest": "c", "density_digest": "d"}
    assert DistancesResult(**about, **found).to_json() == {**about, **found, "unit": DistancesResult.unit, "files": {}}


def test_standard_errors_of_the_ratios_are_those_of_a_paired_bootstrap():
    difficulty = 1 + torch.rand(200, 1, dtype=torch.float64)
    one_nn, samples = difficulty[:, 0] * (1 + 0.3 * torch.rand(200)), difficulty * (0.5 + torch.rand(200, 10))
    found = table(one_nn, samples)
    for per_image, ratio in ((samples.mean(1), "im_s_ratio"), (samples.amin(1), "im_nn_ratio")):
        resampled = bootstrap(
            (per_image.numpy(), one_nn.numpy()), lambda a, b, axis: a.mean(axis) / b.mean(axis), paired=True,
            n_resamples=2000, method="percentile", rng=np.random.default_rng(0),
        )  # fmt: skip
        assert found[f"{ratio}_se"] == pytest.approx(resampled.standard_error, rel=0.08)


def test_ratios_do_not_depend_on_the_scale_of_h():
    def scaled(scale: float):
        h, train, samples = (scale * torch.randn(n, 8, generator=torch.Generator().manual_seed(n)) for n in (6, 50, 60))
        return table_1(nearest(h, train, 1)[0][:, 0], h, samples.view(6, 10, 8), None)[0]

    small, large = scaled(1.0), scaled(64.0)
    assert large["one_nn"] == pytest.approx(64 * small["one_nn"])
    for ratio in ("im_s_ratio", "im_s_ratio_se", "im_nn_ratio", "im_nn_ratio_se"):
        assert large[ratio] == pytest.approx(small[ratio])


def test_a_layer_is_most_blind_to_the_near_samples_that_look_most_different():
    image = torch.zeros(1, 1, 2, dtype=torch.uint8)
    samples = torch.tensor([[10, 10], [250, 252], [30, 50], [40, 40], [0, 8]], dtype=torch.uint8).view(5, 1, 1, 2)
    h, h_samples = torch.zeros(2), torch.tensor([[0.0, 1.0], [3.0, 3.0], [1.0, -1.0], [0.0, 0.0], [0.5, 0.5]])
    distances, indices = most_different_samples(image, samples, h, h_samples, radius=1.0, k=3)
    assert indices.tolist() == [2, 3, 0]  # 1 is outside; 2 lies on the edge, and comes before its equal
    assert distances.tolist() == [40, 40, 10]


def test_of_equally_different_samples_the_first_wins():
    samples, h_samples = torch.ones(300, 1, 2, 2, dtype=torch.uint8), torch.zeros(300, 1)
    _, indices = most_different_samples(torch.zeros_like(samples[0]), samples, h_samples[0], h_samples, radius=0, k=3)
    assert indices.tolist() == [0, 1, 2]


def test_fewer_or_no_samples_are_as_near_as_the_nearest_training_image():
    samples, h_samples = torch.randint(256, (5, 1, 2, 2), dtype=torch.uint8), torch.arange(1.0, 6.0).view(5, 1)
    _, near = most_different_samples(samples[0], samples, torch.zeros(1), h_samples, radius=2.5, k=4)
    assert sorted(near.tolist()) == [0, 1]
    none = most_different_samples(samples[0], samples, torch.zeros(1), h_samples, radius=0.5, k=4)
    assert [len(part) for part in none] == [0, 0]


def test_a_sample_whose_h_is_that_of_the_nearest_training_image_is_near():
    h, train = torch.randn(784), torch.randn(30, 784)
    distances, indices = nearest(h[None], train, 1)
    image, twin = torch.zeros(1, 2, 2, dtype=torch.uint8), train[indices[0]]
    _, near = most_different_samples(image, image[None], h, twin, radius=distances.item(), k=1)
    assert near.tolist() == [0]


@pytest.mark.parametrize("space", ["layer", "pixels"])
def test_shown_are_the_nearest_and_the_most_different_of_all_samples(space):
    """Samples are the input with some pixels changed, in some so few that the layer has them near."""
    training, images = torch.randint(256, (50, 1, 16, 16), dtype=torch.uint8), torch.full((2, 1, 16, 16), 100).byte()
    images[1] += 50
    samples = images[:, None].repeat(1, 30, 1, 1, 1)
    for k in range(30):
        samples[:, k].flatten(1)[:, torch.randperm(256)[: 3 * k]] = torch.randint(256, (3 * k,), dtype=torch.uint8)
    weight = torch.randn(256, 10, dtype=torch.float64)
    h, h_samples, h_training = (x.flatten(-3).double() @ weight for x in (images, samples, training))
    found = neighbours(images, samples, h, h_samples, training, h_training, space)
    h, h_samples, h_training = (x.numpy() for x in (h, h_samples, h_training))
    for q in range(2):
        by_h = abs(h_samples[q] - h[q]).mean(axis=1)
        by_pixels = abs(samples[q].double() - images[q].double()).mean(dim=(1, 2, 3)).numpy()
        radius = abs(h_training - h[q]).mean(axis=1).min()
        order = np.argsort(by_h if space == "layer" else by_pixels, kind="stable")[:6]
        assert np.array_equal(found["samples"][q], samples[q, order])
        blind = [k for k in np.argsort(-by_pixels, kind="stable") if by_h[k] <= radius][:6]
        assert len(blind) == 6  # the case is not an empty one
        assert np.array_equal(found["blind"][q], samples[q, blind])
        assert found["blind_distances"][q] == pytest.approx(by_pixels[blind])
