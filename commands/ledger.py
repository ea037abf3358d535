"""What does a layer keep of what is known of the images?"""

from pathlib import Path

import pytorch_lightning as pl
import torch
from jsonargparse.typing import PositiveInt
from torch import Tensor
from tqdm import tqdm

from commands.trained_inverter import NO_H_OF_X, trained_inverter
from datamodules import ImageDataModule
from datamodules.attributes import Attribute
from datamodules.split import seen
from evaluations.ledger import bins, entry
from evaluations.results import LedgerResult
from inverters import Classifier
from inverters.networks import network_name
from inverters.representation import Representation, digest
from runtime.checkpoints import check_fit, load_checkpoint
from runtime.files import json_bytes
from runtime.run import Run

SPLITS = ("train", "val", "test")


def ledger(
    trainer: pl.Trainer,
    model: pl.LightningModule,
    datamodule: ImageDataModule,
    ckpt_path: str | None = None,
    layers: list[str] | None = None,
    num_images: PositiveInt = 2000,
    num_train: PositiveInt = 10_000,
) -> None:
    """How many nats a layer keeps, at least, of each attribute that the data set knows of its images, and of how many.

    An inverter's config or a classifier's will do: no density is asked.

    Args:
        ckpt_path: A file, or best or last of the newest run; best by default.
        layers: Of the network; an inverter's own by default.
        num_images: Test images, the first in their seeded order; as many, at most, choose when a probe is trained.
        num_train: Training images for the probe, a seeded choice.

    Raises:
        ValueError: No layer is given, or nothing is known of the images but their pixels.
    """
    network = _representation(trainer, model, datamodule, ckpt_path)
    names = layers or ([network.layer] if network.layer else [])
    if not names:
        raise ValueError("no layer is given; give some as --layers '[fc3]', which python cli.py layers lists")
    if datamodule.has_partners:
        raise ValueError(f"{NO_H_OF_X.format(datamodule.name)}; a ledger is of a data set without partners")
    datamodule.prepare_data()
    datamodule.setup("test")
    pictures, known = [], []
    for split, most in zip(SPLITS, (num_train, num_images, num_images), strict=True):
        images = datamodule.datasets[split]
        generator = torch.Generator().manual_seed(datamodule.seed)
        order = torch.randperm(len(images), generator=generator) if split == "train" else torch.arange(len(images))
        batch = images.__getitems__(order[:most].tolist())
        pictures.append(seen(batch))
        known.append(datamodule.attributes(split, batch))
    if not known[0]:
        raise ValueError(f"nothing is known of the images of {datamodule.name} but their pixels; give other data")
    run, found, device = Run.of_trainer(trainer), list[LedgerResult](), trainer.strategy.root_device
    for name in names:
        representation = network.at(name).to(device)
        h = tuple(_encoded(representation, x, device) for x in pictures)
        for attribute in known[0]:
            numbers, num_values, uniform = _numbers([its[attribute] for its in known])
            said = entry((h[0], h[1], h[2]), numbers, num_values, uniform)
            kept = said.kept
            found.append(LedgerResult(
                name=run.name, layer=name, network=network_name(network.network), attribute=attribute,
                kind=known[0][attribute].kind, kept_nats=kept.mean, kept_nats_se=kept.standard_error,
                kept_nats_low=kept.low, kept_nats_high=kept.high, entropy_nats=said.entropy,
                num_values=num_values, num_images=len(h[2]), num_train=len(h[0]),
                network_digest=digest(network.network),
            ))  # fmt: skip
    run.write({"ledger.json": json_bytes([one.to_json() for one in found])})
    print(
        f"{run.name}, {len(pictures[2])} test images; nats kept, at least, of so many; in {run.folder / 'ledger.json'}"
    )
    for one in found:
        of = f"{one.kept_nats:6.2f} ± {one.kept_nats_se:.2f} of {one.entropy_nats:.2f}, {one.num_values} values"
        print(f"  {one.layer:10} {one.attribute:10} {of}{'' if one.kind == 'discrete' else ' (bins)'}")
    print("  attributes may depend on one another, so that these do not add up to what the layer keeps")


def _representation(
    trainer: pl.Trainer, model: pl.LightningModule, data: ImageDataModule, ckpt_path: str | None
) -> Representation:
    """The network with a checkpoint's weights, on the trainer's device, with the layer if the model has one."""
    if not isinstance(model, Classifier):
        return trained_inverter(trainer, model, data, ckpt_path).representation
    path = Path(str(ckpt_path))
    checkpoint = load_checkpoint(path)
    check_fit(model, checkpoint["state_dict"], path)
    data.check(checkpoint, path)
    model.load_state_dict(checkpoint["state_dict"])
    model.check_network(checkpoint, path)
    network = Representation(model.network, None, model.preprocess.what)
    return network.to(trainer.strategy.root_device)


def _encoded(representation: Representation, images: Tensor, device: torch.device) -> Tensor:
    """h of uint8 images [N, C, H, W], on the CPU, [N, ...]."""
    parts = tqdm(images.split(250), "encoding images", delay=5, leave=False)
    return torch.cat([representation(x.to(device)).cpu() for x in parts])


def _numbers(of_splits: list[Attribute]) -> tuple[tuple[Tensor, Tensor, Tensor], int, bool]:
    """An attribute as whole numbers from 0, for training, validation and test; how many; whether equally likely."""
    first = of_splits[0]
    values = [its.values.cpu() for its in of_splits]
    if first.kind == "discrete":
        train, val, test = values
        return (train, val, test), first.num_values, first.uniform
    train, val, test = bins(values[0], (values[1], values[2]), first.kind == "circular")
    return (train, val, test), 1 + int(max(x.max() for x in (train, val, test))), False
