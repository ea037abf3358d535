import multiprocessing
import pickle
import shutil
from collections import namedtuple
from functools import partial

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from callbacks.cache_activations import CacheActivations
from callbacks.initialise_from_data import InitialiseFromData
from datamodules.images import ImageDataModule
from datamodules.split import ImageDataset
from datamodules.worlds import BitDropDataModule
from inverters.exact_networks import TopBits
from inverters.inverter import Inverter
from inverters.networks import ConvNet
from inverters.pixelcnn import PixelCNN
from inverters.representation import Representation
from runtime.activations import cached_activations
from runtime.silence import silence_lightning

SHAPE = (1, 16, 16)
NUM_IMAGES = 37
small_density = partial(PixelCNN, num_filters=2, num_layers=1)


def small_network(image_shape=SHAPE, num_classes=10):
    return ConvNet(image_shape, num_classes, filters=(3, 4), num_hidden=6)


def digits():
    return torch.randint(256, (NUM_IMAGES, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


class Digits(ImageDataModule):
    name, image_shape, num_classes = "digits", SHAPE, 10

    def load(self):
        return {split: ImageDataset(digits(), *torch.zeros(2, NUM_IMAGES).long()) for split in ("train", "val")}


@pytest.fixture
def representation():
    return Representation(small_network(), "conv2")


def said(capsys):
    return capsys.readouterr().out.splitlines()


def files(folder):
    return sorted(folder.glob("*.npy"))


@pytest.mark.parametrize("layer", ["conv1", "conv2", "fc3", "logits"])
def test_it_holds_what_the_network_gives_in_the_order_of_the_images(tmp_path, layer):
    representation = Representation(small_network(), layer)
    h = cached_activations(representation, digits(), "train", tmp_path, batch_size=10)
    assert isinstance(h, np.memmap)
    torch.testing.assert_close(torch.from_numpy(np.array(h)), representation(digits()), rtol=1e-5, atol=1e-6)


def test_it_is_computed_once_and_announced_with_its_size(tmp_path, representation, capsys):
    h = cached_activations(representation, digits(), "train", tmp_path)
    (line,) = said(capsys)
    (path,) = files(tmp_path)
    assert path.name.startswith("conv2_train_")
    assert line == f"making {path}, {h.nbytes / 1e6:.1f} MB, once"
    seen = []
    representation.register_forward_hook(lambda module, inputs, h: seen.append(len(h)))
    again = cached_activations(representation, digits(), "train", tmp_path, batch_size=5)
    assert seen == [5]  # the rows that are compared
    assert np.array_equal(h, again)
    assert not said(capsys)


def flipped(path):
    stored = bytearray(path.read_bytes())
    stored[-9] ^= 1
    path.write_bytes(stored)


def truncated(path):
    path.write_bytes(path.read_bytes()[:-4])


def replaced(path):
    np.save(path, np.zeros((NUM_IMAGES, 2), np.float32))


def of_other_images(path):
    representation = Representation(small_network(), "conv2")
    cached_activations(representation, 255 - digits(), "train", path.parent / "other")
    (other,) = files(path.parent / "other")
    shutil.copy(other, path)


@pytest.mark.parametrize("damage", [flipped, truncated, replaced, of_other_images])
def test_a_file_that_is_not_its_own_is_made_again_with_one_line(tmp_path, representation, capsys, damage):
    h = np.array(cached_activations(representation, digits(), "train", tmp_path))
    (path,) = files(tmp_path)
    damage(path)
    (tmp_path / f".{path.name}.killed").write_bytes(b"half")
    said(capsys)
    again = cached_activations(representation, digits(), "train", tmp_path)
    (line,) = said(capsys)
    assert line.startswith(f"{path} holds other bytes than were written for it; making it again, ")
    assert np.array_equal(h, again)
    assert not list(tmp_path.glob(".*.killed"))
    cached_activations(representation, digits(), "train", tmp_path)
    assert not said(capsys)


def test_a_network_that_computes_something_else_with_the_same_weights_is_noticed(tmp_path, capsys):
    one, three = (Representation(TopBits(SHAPE, 1, bits), "bits") for bits in (7, 8))  # of no weights at all
    cached_activations(one, digits(), "train", tmp_path)
    h = cached_activations(three, digits(), "train", tmp_path)
    assert "is not what the network gives now; making it again" in said(capsys)[-1]
    assert np.array_equal(h, digits().numpy() / np.float32(255))


def test_one_weight_one_pixel_or_the_precision_changes_the_file_and_a_later_stage_does_not(tmp_path, capsys):
    representation = Representation(small_network(), "fc3")
    cached_activations(representation, digits(), "train", tmp_path)
    with torch.no_grad():
        representation.network.logits.weight[0, 0] += 1
    cached_activations(representation, digits(), "train", tmp_path)
    assert len(files(tmp_path)) == 1
    with torch.no_grad():
        representation.network.conv1[0].weight[0, 0, 0, 0] += 1e-6
    cached_activations(representation, digits(), "train", tmp_path)
    other = digits()
    other[-1, 0, 0, 0] ^= 1
    cached_activations(representation, other, "train", tmp_path)
    cached_activations(representation, digits(), "train", tmp_path, "float16")
    assert len(files(tmp_path)) == 4
    assert "3 beside it of other weights, images or precision, 0.0 MB, stay" in said(capsys)[-1]


def test_float16_rounds_and_says_so_where_it_cannot_hold_h(tmp_path, representation):
    h = cached_activations(representation, digits(), "train", tmp_path, "float16")
    assert h.dtype == np.float16
    np.testing.assert_allclose(h, representation(digits()), rtol=2**-11, atol=2**-24)
    with torch.no_grad():
        representation.network.conv2[0].bias += 1e5
    with pytest.raises(ValueError, match=r"h of conv2 reaches 1e\+05, which float16 does not hold"):
        cached_activations(representation, digits(), "train", tmp_path, "float16")
    assert len(files(tmp_path)) == 1


def test_a_short_disk_is_an_error_with_both_sizes_and_the_folder(tmp_path, representation, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: namedtuple("Usage", "total used free")(9, 0, 500))
    with pytest.raises(OSError, match=rf"takes 0.0 MB, and the disk of {tmp_path} has 0.0 MB free; make room"):
        cached_activations(representation, digits(), "train", tmp_path)
    assert not files(tmp_path)


def test_an_interrupted_writing_leaves_no_file(tmp_path, representation, monkeypatch):
    def forward(self, image, forward=Representation.forward):
        if torch.equal(image[-1], digits()[-1]):
            raise KeyboardInterrupt
        return forward(self, image)

    monkeypatch.setattr(Representation, "forward", forward)
    with pytest.raises(KeyboardInterrupt):
        cached_activations(representation, digits(), "train", tmp_path, batch_size=10)
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]


def _process(folder, start, results):
    torch.manual_seed(0)
    torch.set_num_threads(1)
    representation = Representation(small_network(), "conv2")
    batches = []
    representation.register_forward_hook(lambda module, inputs, h: batches.append(len(h)))
    start.wait()
    h = cached_activations(representation, digits(), "train", folder, batch_size=10)
    results.put((len(batches), h.tobytes()))


def test_two_processes_at_once_compute_once_and_agree(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    start, results = spawn.Barrier(2), spawn.Queue()
    processes = [spawn.Process(target=_process, args=(tmp_path, start, results)) for _ in range(2)]
    for process in processes:
        process.start()
    (few, h), (many, same) = sorted(results.get(timeout=300) for _ in processes)
    for process in processes:
        process.join()
    assert (few, many) == (1, 1 + 4)  # both compute the rows that are compared
    assert h == same
    assert len(files(tmp_path)) == 1


def trained(folder, dtype=None):
    """An inverter after a few steps, and the batches of its training."""
    silence_lightning()
    torch.manual_seed(0)
    datamodule = Digits(batch_size=8)
    inverter = Inverter("conv2", SHAPE, 10, network=small_network, density=small_density)

    class Record(pl.Callback):
        def __init__(self):
            self.batches = []

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            self.batches.append(batch)

    cache = [] if dtype is None else [CacheActivations(folder / "activations", dtype)]
    record = Record()
    trainer = pl.Trainer(
        max_steps=12, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False, limit_val_batches=0, default_root_dir=folder,
        callbacks=[InitialiseFromData(), *cache, record],
    )  # fmt: skip
    trainer.fit(inverter, datamodule)
    return inverter.state_dict(), record.batches


def test_a_run_gives_the_same_numbers_with_and_without_it(tmp_path):
    without, batches = trained(tmp_path)
    assert "h" not in batches[0]
    with_it, batches = trained(tmp_path, "float32")
    assert batches[0]["h"].dtype == torch.float32
    assert len(batches[4]["image"]) == NUM_IMAGES % 8  # the last of an epoch
    for name, value in without.items():
        assert torch.equal(with_it[name], value), name


def test_float16_changes_a_run_a_little(tmp_path):
    without, _ = trained(tmp_path)
    with_it, batches = trained(tmp_path, "float16")
    assert batches[0]["h"].dtype == torch.float16
    names = [name for name in without if name.startswith("density.")]
    assert any(not torch.equal(with_it[name], without[name]) for name in names)
    for name in names:
        torch.testing.assert_close(with_it[name], without[name], rtol=0, atol=0.05)


def test_the_network_is_not_run_where_a_batch_has_its_h(tmp_path, monkeypatch):
    inverter = Inverter("conv2", SHAPE, 10, network=small_network, density=small_density).eval()
    batch = {"image": digits()[:4], "h": inverter.representation(digits()[:4])}
    expected = inverter.log_prob({"image": digits()[:4]})
    other = inverter.log_prob({**batch, "context_image": digits()[4:8]})
    assert torch.equal(other, inverter.log_prob({"image": digits()[:4], "context_image": digits()[4:8]}))
    monkeypatch.setattr(inverter.representation, "forward", None)
    assert torch.equal(inverter.log_prob(batch), expected)
    assert torch.equal(inverter.training_step(batch, 0)["log_prob"], expected.detach())
    torch.testing.assert_close(inverter.log_prob_in_parts(batch).float(), expected.detach())


def test_loader_workers_open_the_file_and_get_no_copy(tmp_path):
    datamodule = Digits()
    datamodule.setup("fit")
    dataset = datamodule.datasets["train"]
    representation = Representation(small_network(), "conv1")
    trainer = namedtuple("Trainer", "datamodule world_size")(datamodule, 1)
    CacheActivations(tmp_path, "float32").on_fit_start(trainer, namedtuple("Module", "representation")(representation))
    pickled = pickle.dumps(dataset.h)
    assert len(pickled) < 1000 < files(tmp_path)[0].stat().st_size
    positions = [5, 0, 36]
    assert torch.equal(pickle.loads(pickled)[positions], dataset.__getitems__(positions)["h"])
    torch.testing.assert_close(dataset.__getitems__([7])["h"], representation(digits()[7:8]))


def test_worlds_and_unconditional_models_are_left_alone(tmp_path):
    world, fixed = BitDropDataModule(side=16), Digits()
    for datamodule, layer in ((world, "bits"), (fixed, None)):
        datamodule.setup("fit")
        trainer = namedtuple("Trainer", "datamodule world_size")(datamodule, 1)
        network = TopBits(SHAPE, 1) if layer else torch.nn.Sequential()
        module = namedtuple("Module", "representation")(Representation(network, layer))
        CacheActivations(tmp_path, "float32").on_fit_start(trainer, module)
        assert "h" not in datamodule.datasets["train"].__getitems__([0, 1])
    assert not list(tmp_path.iterdir())
