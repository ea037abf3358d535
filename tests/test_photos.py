import numpy as np
import pytest
import torch
from dataset_files import loaded
from sklearn.datasets import load_sample_image

import datamodules.photos
from datamodules.photos import PhotosDataModule

PIXELS = (2, 427, 640)  # photograph, row and column, by which index counts


@pytest.mark.parametrize(("stride", "sizes"), [
    (5, (5600, 800, 800)), (8, (2500, 500, 500)), (32, (260, 130, 130)), (40, (100, 100, 100)),
])  # fmt: skip
def test_no_pixel_of_one_split_is_in_another_whatever_the_seed_and_the_classes_are_balanced(stride, sizes):
    data, other = (loaded(PhotosDataModule(stride=stride, seed=seed)).datasets for seed in (0, 1))
    marks = np.zeros((3, 2, 427, 640), dtype=bool)
    for split, size, mark in zip(("train", "val", "test"), sizes, marks, strict=True):
        index = data[split].index
        assert len(index.unique()) == size
        assert torch.equal(index.unique(), other[split].index.unique())
        assert torch.bincount(data[split].labels).tolist() == [size // 2] * 2
        for photograph, row, column in zip(*np.unravel_index(index.numpy(), PIXELS), strict=True):
            mark[photograph, row : row + 32, column : column + 32] = True
    assert marks.sum(0).max() == 1
    assert marks.any((2, 3)).all()


def test_patches_are_the_photographs_pixels():
    truth = [load_sample_image("china.jpg"), load_sample_image("flower.jpg")]
    for dataset in loaded(PhotosDataModule()).datasets.values():
        for image, label, i in zip(dataset.images, dataset.labels, dataset.index, strict=True):
            photograph, row, column = np.unravel_index(int(i), PIXELS)
            assert label == photograph
            patch = truth[photograph][row : row + 32, column : column + 32]
            assert np.array_equal(image.permute(1, 2, 0), patch)


@pytest.mark.parametrize(("damage", "message"), [
    (lambda pixels: pixels[1:], r"images.flower.jpg has .*\[426, 640, 3\]"),
    (lambda pixels: pixels.astype(float), "images.flower.jpg has .* float64"),
    (lambda pixels: pixels.missing, r"cannot read flower.jpg in \S+images "),
])  # fmt: skip
def test_photographs_that_are_not_what_they_were_are_named(monkeypatch, damage, message):
    def damaged(name):
        return damage(load_sample_image(name)) if name == "flower.jpg" else load_sample_image(name)

    monkeypatch.setattr(datamodules.photos, "load_sample_image", damaged)
    with pytest.raises(OSError, match=rf"{message}.*reinstall scikit-learn"):
        loaded(PhotosDataModule())
