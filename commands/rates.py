"""How much of the picture is in what is sent of h, and how much of that does the task not need?"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytorch_lightning as pl
import torch
from jsonargparse.typing import PositiveInt
from torch import Tensor
from tqdm import tqdm

from commands.built_from_run import checkpoint_at, inverter_of
from commands.second_opinions import prior_of
from commands.trained_inverter import trained_inverter
from datamodules import ImageDataModule
from datamodules.split import seen
from evaluations.rates import Measured, RateResult, RatesResult, curve, of_alone
from evaluations.trained_beside import train_p_x
from inverters import Inverter
from inverters.bottleneck import is_bottleneck, output_of_changed
from inverters.channel import Channel
from inverters.generators import ImageShape
from inverters.representation import digest
from runtime.checkpoints import load_checkpoint
from runtime.files import json_bytes, npz_bytes
from runtime.run import Run

NUM_INPUTS, NUM_DRAWS, NUM_SHOWN = 6, 2, 3  # images, draws of each and rates, of a figure
PART = 64  # images at once
WITHOUT = (
    "{} has no channel: all of h is given, and there is one rate; give the config of one, as "
    "inverter_mnist5k_fc3_rates, or train with --model.channel UniformQuantiser --model.channel.bits '[1, 2, 4, 8]'"
)


def rates(
    trainer: pl.Trainer,
    model: pl.LightningModule,
    datamodule: ImageDataModule,
    ckpt_path: str | None = None,
    num_images: PositiveInt = 500,
    alone: list[str] | None = None,
    prior: str | None = None,
) -> None:
    """Measure NCE, and the network's accuracy, against the bits of h that are sent, of an inverter with a channel.

    Args:
        ckpt_path: A file, or best or last of the newest run; best by default.
        num_images: Test images, the first in their seeded order.
        alone: Inverters that were trained at one of the rates alone, to compare with: their checkpoints, or the folders
            of their runs.
        prior: An unconditional model, which is sent nothing, likewise; by default the newest of
            unconditional_... of the same data.

    Raises:
        OSError: There is no such run.
        ValueError: The inverter has no channel, or one to compare with is of another rate, layer, network or data.
    """
    inverter = trained_inverter(trainer, model, datamodule, ckpt_path)
    inverter.with_likelihood()
    run, channel = Run.of_trainer(trainer), inverter.channel
    if channel is None:
        raise ValueError(WITHOUT.format(run.name))
    others = [opened(inverter, channel, datamodule, place) for place in alone or ()]
    if len({other.number for other in others}) < len(others):
        raise ValueError(f"--alone {alone} has two inverters of one rate; give one of each")
    p_x = prior_of(inverter, datamodule, run, prior)
    datamodule.prepare_data()
    datamodule.setup("test")
    batch = datamodule.datasets["test"].first(num_images)
    x, pictures, label = batch["image"], seen(batch), batch["label"].cpu()

    with tqdm(total=len(x) * (len(channel.rates) + len(others) + (p_x is not None)), desc="rates, images") as bar:

        def in_parts(log_prob: Callable[[dict[str, Tensor]], Tensor]) -> Tensor:
            found = []
            for rows in torch.arange(len(x)).split(PART):
                part = {"image": x[rows], "context_image": pictures[rows]}
                found.append(log_prob({name: values.to(inverter.device) for name, values in part.items()}).cpu())
                bar.update(len(rows))
            return torch.cat(found)

        def log_prob(of: Inverter, number: int | None = None) -> Tensor:
            with of.at_rate(of.rate if number is None else number):
                return in_parts(of.log_prob_in_parts)

        log_probs = [log_prob(inverter, number) for number in range(len(channel.rates))]
        of_others = [log_prob(other.inverter) for other in others]
        of_prior = in_parts(lambda part: p_x.of(part["image"])) if p_x else None

    classes = None if datamodule.has_partners else classes_at_rates(inverter, pictures)
    measured, correct = [Measured(its, None, None) for its in log_probs], None
    if classes is not None:
        correct = classes[0] == label
        pairs = zip(log_probs, classes[1:], strict=True)
        measured = [Measured(its, mine == label, mine == classes[0]) for its, mine in pairs]
    found = curve(measured, correct, of_prior)
    beside = {
        other.number: of_alone(str(other.path.parent.parent), its, log_probs[other.number])
        for other, its in zip(others, of_others, strict=True)
    }
    of_rates = zip(found.rates, channel.sent_bits.tolist(), channel.nominal_bits, strict=True)
    rows = tuple(
        RateResult.from_json({
            "rate": channel.rates[k], "called": channel.name_of(k), "bits": bits, "nominal_bits": nominal, **numbers,
            "alone": beside[k].to_json() if k in beside else None,
        })
        for k, (numbers, bits, nominal) in enumerate(of_rates)
    )  # fmt: skip
    shown = sorted({round(k * (len(rows) - 1) / (NUM_SHOWN - 1)) for k in range(NUM_SHOWN)})
    its = {
        "name": run.name, "layer": inverter.representation.layer, "channel": channel.description,
        "counted": channel.counted, "num_images": len(x), **found.whole, "prior": p_x and p_x.run,
        "rates": [row.to_json() for row in rows], "network_digest": digest(inverter.representation.network),
        "density_digest": digest(inverter.density),
    }  # fmt: skip
    arrays = {
        "index": batch["index"].cpu().numpy(), "log_prob_at_rates": torch.stack(log_probs).numpy(),
        **({} if of_prior is None else {"log_prob_prior": of_prior.numpy()}),
        **({"log_prob_alone": torch.stack(of_others).numpy()} if of_others else {}),
        **draws_at_rates(inverter, batch["index"].tolist(), x, pictures, shown),
    }  # fmt: skip
    files = {"rates.npz": npz_bytes(arrays)}
    result = RatesResult.from_json(its).with_files(files)
    run.write({"rates.json": json_bytes(result.to_json()), **files})
    say(result, run.folder, datamodule.name)


class Alone(NamedTuple):
    """An inverter of one rate.

    Attributes:
        inverter: On the device of the one of all rates.
        number: Of its rate among those of that one.
        path: Its checkpoint.
    """

    inverter: Inverter
    number: int
    path: Path


def opened(inverter: Inverter, channel: Channel, data: ImageDataModule, place: str) -> Alone:
    """An inverter to compare with.

    Raises:
        OSError: There is none.
        ValueError: It is of another layer, network, data or kind of channel, or of another rate than there are.
    """
    path = checkpoint_at(Path(place).expanduser())
    checkpoint = load_checkpoint(path)
    data.check(checkpoint, f"--alone {place}")
    other, _ = inverter_of(path, checkpoint)
    other.with_likelihood()
    ours, theirs = inverter.representation, other.representation
    if theirs.layer != ours.layer or digest(theirs.network) != digest(ours.network):
        raise ValueError(
            f"--alone {place} inverts {theirs.layer}, of a network that is not the one whose {ours.layer} is inverted "
            f"here, or another layer of it; give one of the same classifier and layer"
        )
    its = other.channel
    if its is None or type(its) is not type(channel) or len(its.rates) != 1 or its.rates[0] not in channel.rates:
        raise ValueError(
            f"--alone {place} was trained with {its.description if its else 'no channel'}, which is none of the rates "
            f"of {channel.description}; give one that was trained at one of these alone"
        )
    number = channel.rates.index(its.rates[0])
    return Alone(other.eval().requires_grad_(False).to(inverter.device), number, path)


@torch.no_grad()
def classes_at_rates(inverter: Inverter, pictures: Tensor) -> list[Tensor] | None:
    """The class that the network gives each picture with all of h, then at each rate, int64 [N] each.

    Args:
        inverter: With a channel.
        pictures: As the network sees them, uint8 [N, C, H, W].

    Returns:
        None where it gives no classes, or something goes past the layer.
    """
    network = inverter.representation
    if not inverter.classifies or not is_bottleneck(network, pictures[:8].to(inverter.device)):
        return None
    found = []
    for part in pictures.split(PART):
        its, scores = part.to(inverter.device), []
        for number in (None, *range(inverter.num_rates)):

            def change(h: Tensor, number: int | None = number) -> Tensor:
                return h if number is None else inverter.arrived(h, number)

            scores.append(output_of_changed(network, its, change))
        if any(one is None for one in scores):
            return None
        found.append(torch.stack([one.argmax(dim=1).cpu() for one in scores if one is not None]))
    return list(torch.cat(found, dim=1))


def draws_at_rates(
    inverter: Inverter, index: list[int], image: Tensor, pictures: Tensor, numbers: list[int]
) -> dict[str, object]:
    """Inputs [Q, C, H, W] and draws of each at some rates, with the same noise at all: uint8 [Q, S, M, C, H, W]."""
    shape: ImageShape = inverter.density.image_shape
    drawn = []
    for number in numbers:
        with inverter.at_rate(number):
            draws = inverter.draws(pictures[:NUM_INPUTS].to(inverter.device), index[:NUM_INPUTS], NUM_DRAWS)
            drawn.append(draws.cpu().view(-1, NUM_DRAWS, *shape))
    return {
        "inputs": image[:NUM_INPUTS].cpu().numpy(), "draws_at_rates": torch.stack(drawn, dim=1).numpy(),
        "shown": torch.tensor(numbers).numpy(),
    }  # fmt: skip


def say(result: RatesResult, folder: Path, data: str) -> None:
    """What people are told at once."""
    print(f"{result.name}, {result.layer}, {result.num_images} test images; bits are {result.counted}")
    if result.prior_nce_nats is not None:
        print(f"  {'p(x)':34} {0:8.0f} bits  NCE {result.prior_nce_nats:9.2f} ± {result.prior_nce_nats_se:.2f}")
    gain, error = result.gain_of_first_nats, result.gain_of_first_nats_se
    for one in result.rates:
        words = [f"{one.called:34} {one.bits:8.1f} bits  NCE {one.nce_nats:9.2f} ± {one.nce_nats_se:.2f}"]
        if one.gain_nats is not None:
            gain, error = one.gain_nats, one.gain_nats_se
        words += [] if gain is None else [f"{gain:+7.2f} ± {error:.2f}"]
        words += [] if one.accuracy is None else [f"accuracy {one.accuracy:6.1%}, same class {one.agreement:6.1%}"]
        if one.alone:
            words += [f"trained alone {one.alone.less_nats:+.2f} ± {one.alone.less_nats_se:.2f}"]
        print("  " + "  ".join(words))
    print(f"  {result.sentence}")
    if result.prior is None:
        print(f"  no p(x), to which nothing is sent, stands beside it; {train_p_x(data, result.name)}, or give --prior")
    print("  another model may read more: this proves what is readable, and never that the rest is safe")
    print(f"  numbers and draws  {folder}/rates.json, rates.npz")
