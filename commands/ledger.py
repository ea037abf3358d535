"""What does a layer keep of what is known of the images?"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

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
from evaluations.measurements import LedgerResult
from inverters import Classifier, Inverter
from inverters.networks import network_name
from inverters.representation import Representation, digest
from runtime.checkpoints import check_fit, load_checkpoint
from runtime.files import free_memory, json_bytes, size_for_people
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

    An inverter's config or a classifier's will do: no density is asked. Where not all of h is sent, the inverter's own
    layer is asked by what arrives of it, at the highest rate.

    Args:
        ckpt_path: A file, or best or last of the newest run; best by default.
        layers: Of the network; an inverter's own by default.
        num_images: Test images, the first in their seeded order; as many, at most, choose when a probe is trained.
        num_train: Training images for the probe, a seeded choice.

    Raises:
        ValueError: No layer is given, nothing is known of the images but their pixels, or h does not fit into memory.
    """
    network = _representation(trainer, model, datamodule, ckpt_path)
    names = layers or ([network.layer] if network.layer else [])
    if not names:
        raise ValueError("no layer is given; give some as --layers '[fc3]', which python cli.py layers lists")
    if datamodule.has_partners:
        raise ValueError(f"{NO_H_OF_X.format(datamodule.name)}; a ledger is of a data set without partners")
    datamodule.prepare_data()
    datamodule.setup("test")
    pictures, known = list[Tensor](), list[dict[str, Attribute]]()
    for split, most in zip(SPLITS, (num_train, num_images, num_images), strict=True):
        images = datamodule.datasets[split]
        generator = torch.Generator().manual_seed(datamodule.seed)
        order = torch.randperm(len(images), generator=generator) if split == "train" else torch.arange(len(images))
        batch = images.__getitems__(order[:most].tolist())
        pictures.append(seen(batch))
        known.append(datamodule.attributes(split, batch))
    if not known[0]:
        raise ValueError(f"nothing is known of the images of {datamodule.name} but their pixels; give other data")
    run, device = Run.of_trainer(trainer), trainer.strategy.root_device
    sends = model if isinstance(model, Inverter) and model.channel is not None else None
    asked = [Asked(network.at(name).to(device), device, sends if name == network.layer else None) for name in names]
    for layer in asked:
        _check_memory(layer, pictures)
    found = [row for layer in asked for row in _rows(run.name, layer, pictures, known)]
    run.write({"ledger.json": json_bytes([one.to_json() for one in found])})
    print(
        f"{run.name}, {len(pictures[2])} test images; nats kept, at least, of so many; in {run.folder / 'ledger.json'}"
    )
    for one in found:
        of = f"{one.kept_nats:6.2f} ± {one.kept_nats_se:.2f} of {one.entropy_nats:.2f}, {one.num_values} values"
        rate = f", at {one.rate}" if one.rate else ""
        print(f"  {one.layer:10} {one.attribute:10} {of}{'' if one.kind == 'discrete' else ' (bins)'}{rate}")
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


class Asked(NamedTuple):
    """A layer.

    Attributes:
        representation: Of it, on the device.
        inverter: By whose channel it is sent, so that what arrives is asked; None where all of h is.
    """

    representation: Representation
    device: torch.device
    inverter: Inverter | None

    def h(self, images: Tensor) -> Tensor:
        """Of uint8 images [N, C, H, W], or what arrives of it: on the CPU, [N, ...]."""
        parts, found = tqdm(images.split(250), "encoding images", delay=5, leave=False), []
        for x in parts:
            h = self.representation(x.to(self.device))
            found.append((h if self.inverter is None else self.inverter.arrived(h)).cpu())
        return torch.cat(found)

    @property
    def sent(self) -> tuple[str, str] | tuple[None, None]:
        """The channel and its rate; nothing where all of h is."""
        if self.inverter is None or (channel := self.inverter.channel) is None:
            return None, None
        return channel.description, channel.name_of(self.inverter.rate)


def _check_memory(asked: Asked, pictures: Sequence[Tensor]) -> None:
    """Raises ValueError where h of all these would not fit: as it is, standardised, and once more on the way there."""
    num_images = sum(map(len, pictures))
    needed, free = 3 * 4 * num_images * asked.h(pictures[0][:1]).numel(), free_memory()
    if needed > free:
        raise ValueError(
            f"h of {num_images:,} images of {asked.representation.layer} takes {size_for_people(needed)} of memory, as "
            f"a probe needs it, of which {size_for_people(free)} are free; give a smaller --num_train or --num_images, "
            f"or another layer"
        )


def _rows(
    name: str, asked: Asked, pictures: Sequence[Tensor], known: Sequence[dict[str, Attribute]]
) -> list[LedgerResult]:
    """Of each attribute; images and what is known of them are those of `SPLITS`."""
    network, (channel, rate), found = asked.representation, asked.sent, []
    train, val, test = map(asked.h, pictures)
    for attribute in known[0]:
        numbers, num_values, uniform = _numbers([its[attribute] for its in known])
        said = entry((train, val, test), numbers, num_values, uniform)
        kept = said.kept
        found.append(LedgerResult(
            name=name, layer=str(network.layer), network=network_name(network.network), attribute=attribute,
            kind=known[0][attribute].kind, kept_nats=kept.mean, kept_nats_se=kept.standard_error,
            kept_nats_low=kept.low, kept_nats_high=kept.high, entropy_nats=said.entropy,
            num_values=num_values, num_images=len(test), num_train=len(train),
            network_digest=digest(network.network), channel=channel, rate=rate,
        ))  # fmt: skip
    return found


def _numbers(of_splits: list[Attribute]) -> tuple[tuple[Tensor, Tensor, Tensor], int, bool]:
    """An attribute as whole numbers from 0, for training, validation and test; how many; whether equally likely."""
    first = of_splits[0]
    values = [its.values.cpu() for its in of_splits]
    if first.kind == "discrete":
        train, val, test = values
        return (train, val, test), first.num_values, first.uniform
    train, val, test = bins(values[0], (values[1], values[2]), first.kind == "circular")
    return (train, val, test), 1 + int(max(x.max() for x in (train, val, test))), False
