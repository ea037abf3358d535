import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_image

import datamodules.photos
from datamodules.photos import PhotosDataModule

SPLITS = ("train", "val", "test")


def loaded(**kwargs):
    data = PhotosDataModule(**kwargs)
    data.prepare_data()
    data.setup("fit")
    return data


@pytest.fixture(scope="module")
def photos():
    return loaded()


def place(index):
    """The photograph, row and column of a patch's first pixel."""
    return np.unravel_index(index, (2, 427, 640))


@pytest.mark.parametrize("stride", [5, 8, 40])
def test_no_pixel_of_one_split_is_in_another(stride):
    data = loaded(stride=stride)
    marks = np.zeros((3, 2, 427, 640), dtype=bool)
    for split, mark in zip(SPLITS, marks, strict=True):
        for photograph, row, column in zip(*place(data.datasets[split].index.numpy()), strict=True):
            mark[photograph, row : row + 32, column : column + 32] = True
    assert marks.sum(0).max() == 1
    assert marks.any((2, 3)).all()


def test_patches_are_the_photographs_pixels(photos):
    truth = [load_sample_image("china.jpg"), load_sample_image("flower.jpg")]
    for dataset in photos.datasets.values():
        for image, label, i in zip(dataset.images, dataset.labels, dataset.index, strict=True):
            photograph, row, column = place(int(i))
            assert label == photograph
            patch = truth[photograph][row : row + 32, column : column + 32]
            assert np.array_equal(image.permute(1, 2, 0), patch)


@pytest.mark.parametrize(("stride", "sizes"), [(5, (5600, 800, 800)), (8, (2500, 500, 500)), (32, (260, 130, 130))])
def test_the_classes_are_balanced_and_no_patch_is_twice(stride, sizes):
    data = loaded(stride=stride)
    for split, size in zip(SPLITS, sizes, strict=True):
        assert torch.bincount(data.datasets[split].labels).tolist() == [size // 2] * 2
        assert len(data.datasets[split].index.unique()) == size


def test_orders_are_functions_of_the_seed_and_splits_are_not(photos):
    again, other = loaded(), loaded(seed=1)
    for split in SPLITS:
        first, second, third = (data.datasets[split].index for data in (photos, again, other))
        assert torch.equal(first, second)
        assert not torch.equal(first, third)
        assert torch.equal(first.sort().values, third.sort().values)


def test_the_test_images_come_with_another_and_are_not_sorted(photos):
    batches = list(photos.test_dataloader())
    images, others = (torch.cat([b[key] for b in batches]) for key in ("image", "other_image"))
    assert images.dtype == torch.uint8
    assert torch.equal(others, images.roll(-1, dims=0))
    labels = torch.cat([b["label"] for b in batches])
    assert (labels == labels.roll(-1)).double().mean() < 0.6


def test_photographs_of_another_size_are_named(monkeypatch):
    sample = datamodules.photos.load_sample_images()
    sample.images[1] = sample.images[1][1:]
    monkeypatch.setattr(datamodules.photos, "load_sample_images", lambda: sample)
    with pytest.raises(OSError, match=r"images.flower.jpg has .*\[426, 640, 3\].*reinstall scikit-learn"):
        PhotosDataModule().prepare_data()


def test_missing_photographs_are_named(monkeypatch):
    sample = datamodules.photos.load_sample_images()
    sample.filenames[0] = "other.jpg"
    monkeypatch.setattr(datamodules.photos, "load_sample_images", lambda: sample)
    with pytest.raises(OSError, match=r"cannot read china.jpg or flower.jpg in \S+images .*reinstall scikit-learn"):
        PhotosDataModule().prepare_data()
