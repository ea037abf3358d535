"""Two trained runs of the same images, each with its own network, layer and data."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from commands.built_from_run import checkpoint_at, device_of, inverter_of, made
from commands.trained_inverter import in_parts
from datamodules import ImageDataModule
from datamodules.split import Batch, seen
from evaluations.report.tested_runs import TestedRun, runs_under
from evaluations.results import InverterResult
from inverters import Inverter
from inverters.bottleneck import is_bottleneck
from inverters.representation import digest
from runtime.checkpoints import load_checkpoint
from runtime.run import Run

# What decides neither which images x are nor their order: how many are trained on, and what the network sees of them.
NOT_OF_TEST = {"num_train", "original_side"}


@dataclass(frozen=True, eq=False)
class Asked:
    """One of the two.

    Attributes:
        inverter: On its device.
        checkpoint: Of its weights.
        run: Whose checkpoint that is.
        data: Set up, as its own config says.
    """

    inverter: Inverter
    checkpoint: Path
    run: Run
    data: ImageDataModule

    @property
    def digests(self) -> tuple[str, str]:
        """Of the network, and of the density."""
        return digest(self.inverter.representation.network), digest(self.inverter.density)

    @property
    def draws_have_h(self) -> bool:
        """Whether a draw is what its network sees, and there is a finite number of training images to compare with."""
        of_x = not self.inverter.sees_original and not self.data.has_partners
        return of_x and self.data.datasets["train"].images is not None

    def first(self, num_images: int) -> Batch:
        """The first test images."""
        return self.data.datasets["test"].first(num_images)

    def evaluated(self, image: Tensor, h: Tensor) -> dict[str, Tensor]:
        """What a test keeps of uint8 images [N, C, H, W] with h [N, ...], on the CPU."""
        size, device, found = self.data.eval_batch_size, self.inverter.device, []
        parts = list(zip(image.split(size), h.split(size), strict=True))
        for x, its in tqdm(parts, "log p, batches", delay=5, leave=False):
            batch = {"image": x.to(device), "h": its.to(device)}
            found.append({name: values.cpu() for name, values in self.inverter.test_step(batch, 0).items()})
        return {name: torch.cat([part[name] for part in found]) for name in found[0]}

    def h(self, pictures: Tensor) -> Tensor:
        """Raw h of what the network sees, on the CPU, [N, ...]."""
        return in_parts(self.inverter.representation, self.inverter, pictures)

    def of_test(self) -> dict[str, Tensor]:
        """index, log_prob and log_prob_per_pixel, where a test of these very weights left them; empty without."""
        if not (self.run.folder / "results.json").is_file():
            return {}
        (run,) = runs_under([self.run.folder])
        result = run.result
        if not isinstance(result, InverterResult) or (result.network_digest, result.density_digest) != self.digests:
            return {}
        tested = TestedRun(run.folder, result)
        pixels = tested.log_prob_per_pixel
        found = {"index": torch.from_numpy(tested.index), "log_prob": tested.log_prob}
        return found if pixels is None else found | {"log_prob_per_pixel": torch.from_numpy(pixels)}

    def values(self, num_images: int) -> dict[str, Tensor]:
        """Of the first test images: what a test of these weights left, else the same, asked now."""
        batch, tested = self.first(num_images), self.of_test()
        if tested and torch.equal(tested["index"][:num_images], batch["index"]):
            return {name: values[:num_images] for name, values in tested.items()}
        return self.evaluated(batch["image"], self.h(seen(batch)))


def asked(place: Path, device: str | None) -> Asked:
    """Raises OSError and ValueError where it is no inverter of a layer, with a likelihood, in a run's folder."""
    path = checkpoint_at(place)
    checkpoint = load_checkpoint(path)
    inverter, keys = inverter_of(path, checkpoint)
    if inverter.representation.layer is None:
        raise ValueError(f"{path} is of an unconditional model, which has no h; give the run of an inverter of a layer")
    try:
        inverter.with_likelihood()
    except ValueError as error:
        raise ValueError(f"{path}: {error}; give a run that has a likelihood") from None
    run = Run.of(path) or Run.of(path.absolute())
    assert run is not None  # its config was read
    data: ImageDataModule = made("data", ImageDataModule, keys.get("data"), keys, run.config)
    data.check(checkpoint, path)
    data.prepare_data()
    data.setup("test")
    return Asked(inverter.requires_grad_(False).to(device_of(device)), path, run, data)


def check_same_images(a: Asked, b: Asked) -> None:
    """Raises ValueError, which names what differs."""
    if a.data.name != b.data.name:
        raise ValueError(
            f"{a.run.folder} is of {a.data.name}, and {b.run.folder} of {b.data.name}; give two runs of one data set"
        )
    ours, theirs = a.data.identity, b.data.identity
    for key in sorted((ours.keys() | theirs.keys()) - NOT_OF_TEST):
        if ours.get(key) != theirs.get(key):
            raise ValueError(
                f"{a.run.folder} has the data's {key} {ours.get(key)}, and {b.run.folder} {theirs.get(key)}, so that "
                f"their test images are not the same; give two runs of the same data"
            )
    every = [side.first(len(side.data.datasets["test"])) for side in (a, b)]
    if not all(torch.equal(every[0][key], every[1][key]) for key in ("image", "index")):
        raise ValueError(
            f"the test images of {a.run.folder} and {b.run.folder} are not the same; give two runs of the same data"
        )


def _sent(inverter: Inverter) -> str:
    layer, channel = str(inverter.representation.layer), inverter.channel
    return layer if channel is None else f"{layer} at {channel.name_of(inverter.rate)}"


def names(a: Asked, b: Asked) -> tuple[str, str]:
    """What people call the two: by the layer, where it tells them apart."""
    layers = [_sent(side.inverter) for side in (a, b)]
    if layers[0] != layers[1] and a.digests[0] == b.digests[0]:
        return layers[0], layers[1]
    for more in (
        lambda run: run.name, lambda run: f"{run.name}/{run.folder.name}", lambda run: str(run.folder),
    ):  # fmt: skip
        names = [f"{layer} of {more(side.run)}" for layer, side in zip(layers, (a, b), strict=True)]
        if names[0] != names[1]:
            return names[0], names[1]
    return f"A, {names[0]}", f"B, {names[1]}"


def function(a: Asked, b: Asked) -> str | None:
    """Which layer is a function of the other, "b of a" or "a of b": of one network that sees the same, if any."""
    what = [
        (side.digests[0], side.inverter.seen_shape, side.inverter.representation.preprocess.what) for side in (a, b)
    ]
    depths = [side.inverter.representation.depth or 0 for side in (a, b)]
    if what[0] != what[1] or depths[0] == depths[1]:
        return None
    earlier = a if depths[0] < depths[1] else b
    if earlier.inverter.channel is not None:  # later layers are no function of what was sent
        return None
    if not is_bottleneck(earlier.inverter.representation, seen(earlier.first(8)).to(earlier.inverter.device)):
        return None
    return "b of a" if earlier is a else "a of b"
