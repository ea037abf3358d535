"""A trained inverter, as Python asks it: `inverters.load`."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from commands.built_from_run import checkpoint_at, device_of, inverter_of
from commands.given_images import images_of
from commands.trained_inverter import NO_H_OF_X, in_parts, scores
from evaluations.contrast import contrastive_bound
from evaluations.information import Estimate, Information, information
from inverters import Inverter
from inverters.compressed_file import compressed, decompressed, received
from inverters.generators import AutoregressiveDensity, ImageShape
from runtime.checkpoints import load_checkpoint


class TrainedInverter:
    """p(x | h) of one layer, trained; `inverters.load` makes it. Results are on the CPU; no random state is touched.

    Images are bytes: uint8 arrays or tensors [N, C, H, W], or [C, H, W] for one; grey ones also [N, H, W] or [H, W],
    colours also [N, H, W, C] or [H, W, C]. Or PIL's pictures, prepared as those that the inverter was trained on: a
    folder's are cropped or stretched, others must have the size. Or a list of these. They go to the device in batches
    that fit into its memory, and what takes longer than some seconds shows a bar.

    Attributes:
        checkpoint: The file of its weights.
        image_shape: (C, H, W) of x.
        seen_shape: (C, H', W') of the pictures of which h is taken: that of x, unless the network sees them at a side
            of their own.
        dataset: The name of the data that it was trained on.
        batch_size: Images at once, as in the run's test: so the numbers are those of the test to the last digit.
    """

    def __init__(
        self, inverter: Inverter, checkpoint: Path, dataset: str | None, identity: Mapping[str, Any], batch_size: int,
        has_partners: bool = False,
    ) -> None:  # fmt: skip
        self._inverter, self._identity, self._fit = inverter, identity, identity.get("fit")
        self.checkpoint, self.dataset, self.batch_size = checkpoint, dataset, batch_size
        self._has_partners = has_partners
        self.image_shape: ImageShape = inverter.density.image_shape
        self.seen_shape: ImageShape = self.image_shape if self.layer is None else inverter.seen_shape

    @property
    def layer(self) -> str | None:
        """Whose h it is; None for an unconditional model p(x)."""
        return self._inverter.representation.layer

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self._inverter.device

    def __repr__(self) -> str:
        values = ("layer", "image_shape", "dataset", "checkpoint")
        return f"TrainedInverter({', '.join(f'{name}={getattr(self, name)!s}' for name in values)})"

    def log_prob(self, images: Any, h_of: Any = None) -> Tensor:
        """log p(x | h) of each image, as the test reports it.

        Args:
            images: x, N.
            h_of: The images of which h is taken, N or one for all; by default x itself, unless h is of a partner.

        Returns:
            float64 [N], nats.

        Raises:
            ValueError: The images are no such bytes, or the model has no log p(x | h); likewise below.
        """
        return self._evaluation(images, h_of)["log_prob"]

    def log_prob_per_pixel(self, images: Any, h_of: Any = None) -> Tensor:
        """log p(x_i | x_<i, h) of every pixel, in raster order; arguments are as for `log_prob`.

        Returns:
            float32 [N, H, W], nats, whose sums in float64 are `log_prob`.
        """
        density = self._inverter.with_likelihood()
        if not isinstance(density, AutoregressiveDensity):
            raise ValueError(f"a {type(density).__name__} has no log p of single pixels; ask log_prob")
        return self._evaluation(images, h_of)["log_prob_per_pixel"]

    def rates(self, images: Any, h_of: Any = None) -> dict[str, Tensor]:
        """`log_prob` at each rate of the channel behind the layer, by its name, from the one that tells least."""
        channel = self._inverter.channel
        if channel is None:
            raise ValueError("all of h is given to this inverter, which has one rate; load one with a channel")
        found = {}
        for number in range(len(channel.rates)):
            with self._inverter.at_rate(number):
                found[channel.name_of(number)] = self.log_prob(images, h_of)
        return found

    def scores(self, images: Any, h_of: Any = None) -> Tensor:
        """log p(x_i | h_j) of every image i, N, with the h of every image j, M; by default of the same images.

        Returns:
            float64 [N, M], nats.
        """
        self._check_conditional()
        self._inverter.with_likelihood()
        image = self._images(images)
        pictures = self._seen(images, image) if h_of is None else self._pictures(h_of)
        return scores(self._inverter, image, pictures, self.batch_size)

    def bound(self, images: Any, h_of: Any = None) -> Estimate:
        """A lower bound of I(x; h) for any model, at most ln N, on images that the model was not trained on.

        Args:
            images: x, N.
            h_of: What the network sees of the same images, where that is not x.

        Returns:
            `evaluations.contrast.contrastive_bound` of `scores`, nats.
        """
        scores = self.scores(images, h_of)
        if scores.shape[0] != scores.shape[1]:
            raise ValueError(f"h_of has {scores.shape[1]} images for {scores.shape[0]}; give the same images")
        return contrastive_bound(scores.numpy())

    def sample(self, images: Any, num_draws: int = 1, seed: int = 0, index: Sequence[int] | None = None) -> Tensor:
        """Draw from p(x | h), with noise that is a function of (seed, index, number of the draw) alone.

        Args:
            images: Of which h is taken, N.
            num_draws: M.
            seed: Of the noise.
            index: A number for each image, N; by default 0 to N - 1. Given where test images are in their data set,
                these are the draws of the command `sample`.

        Returns:
            uint8 [N, M, C, H, W].
        """
        pictures = self._pictures(images)
        numbers = list(range(len(pictures))) if index is None else [int(number) for number in index]
        if len(numbers) != len(pictures):
            raise ValueError(f"index has {len(numbers)} numbers for {len(pictures)} images; give one for each")
        for name, value, least in (("num_draws", num_draws, 1), ("seed", seed, 0), ("index", min(numbers), 0)):
            if value < least:
                raise ValueError(f"{name} is {value}; give at least {least}")
        found = []
        with torch.random.fork_rng(devices=[]):  # a draw has a generator of its own; a network may have no care
            for first in range(0, len(pictures), 1024):  # a multiple of what is drawn at once, which stays the same
                part = pictures[first : first + 1024].to(self.device)
                draws = self._inverter.draw_batches(part, numbers[first : first + 1024], int(num_draws), int(seed))
                found += [drawn.cpu() for drawn in draws]
        return torch.cat(found).unflatten(0, (len(pictures), int(num_draws)))

    def compress(self, images: Any, h_of: Any = None) -> tuple[bytes, Tensor]:
        """Images as -log2 p(x | h) bits and some 30 bytes more, from which `decompress` gets them back bit for bit.

        Args:
            images: x, N.
            h_of: The images of which h is taken, N; by default x itself, unless h is of a partner.

        Returns:
            The file, and h as the layer gives it, [N, ...], which is no part of it: [N, 0] of an unconditional model.
            Behind a channel it is what arrives of h, at the highest rate.
        """
        image = self._images(images)
        if self.layer is None:
            return compressed(self._inverter, image, h := torch.empty(len(image), 0)), h
        pictures = self._seen(images, image) if h_of is None else self._pictures(h_of)
        if len(pictures) != len(image):
            raise ValueError(f"h_of has {len(pictures)} images for {len(image)}; give one of each")
        h = received(self._inverter, in_parts(self._inverter.representation, self._inverter, pictures))
        return compressed(self._inverter, image, h), h

    def decompress(self, file: bytes, h: Any = None) -> Tensor:
        """The images of what `compress` or the command has written, bit for bit, on the machine where that was.

        Args:
            file: Its bytes.
            h: As it was when they were compressed, an array or a tensor; none for an unconditional model.

        Returns:
            uint8 [N, C, H, W].

        Raises:
            ValueError: The file is damaged, or of other weights, or h is another.
        """
        its = None if h is None or self.layer is None else torch.as_tensor(h).cpu()
        return decompressed(self._inverter, bytes(file), its)

    def h(self, images: Any) -> Tensor:
        """h of each image, as the layer gives it.

        Returns:
            Of a vector [N, K], of a map [N, K, H', W'].
        """
        self._check_conditional()
        return in_parts(self._inverter.representation, self._inverter, self._pictures(images))

    def information(self, images: Any, prior: "TrainedInverter", h_of: Any = None) -> Information:
        """An estimate of I(x; h) on images that neither model was trained on, and where in an image it sits.

        It is the mean of log p(x | h) - log p(x), and no bound: a poor prior inflates it.

        Args:
            images: x, N.
            prior: The unconditional model p(x) of the same data.
            h_of: As for `log_prob`.

        Returns:
            In nats: the estimate with its error, and what each image and each pixel adds to it.
        """
        if not isinstance(prior, TrainedInverter):
            raise ValueError(f"prior is a {type(prior).__name__}; give inverters.load of an unconditional model's run")
        if prior.layer is not None:
            raise ValueError(f"prior is p(x | {prior.layer}); give the unconditional model p(x) of the same data")
        self._check_conditional()
        for name in ("image_shape", "dataset"):
            ours, theirs = getattr(self, name), getattr(prior, name)
            if ours != theirs:
                raise ValueError(f"prior has the {name} {theirs}, and the inverter {ours}; give one of the same data")
        # What decides which images are x, and which of them a model was trained on.
        for key in self._identity.keys() & prior._identity.keys() - {"num_train", "original_side"}:
            ours, theirs = self._identity[key], prior._identity[key]
            if ours != theirs:
                raise ValueError(
                    f"prior has the data's {key} {theirs}, and the inverter {ours}; give one of the same data"
                )
        given_h, without = self._evaluation(images, h_of), prior._evaluation(self._images(images))
        pixels = [found.get("log_prob_per_pixel") for found in (given_h, without)]
        return information(given_h["log_prob"], without["log_prob"], *pixels)

    def _check_conditional(self) -> None:
        if self.layer is None:
            raise ValueError("this is an unconditional model p(x), which has no h; load an inverter of a layer")

    def _evaluation(self, images: Any, h_of: Any = None) -> dict[str, Tensor]:
        """What a test keeps of each image, on the CPU."""
        self._inverter.with_likelihood()
        image = self._images(images)
        if h_of is None:
            pictures = None if self.layer is None else self._seen(images, image)
        else:
            self._check_conditional()
            pictures = self._pictures(h_of)
            if len(pictures) not in (1, len(image)):
                raise ValueError(
                    f"h_of has {len(pictures)} images for {len(image)}; give one of each, one for all, or ask scores "
                    f"for every pair"
                )
        found = []
        for first in tqdm(range(0, len(image), self.batch_size), "log p, batches", delay=3, leave=False):
            batch = {"image": image[first : first + self.batch_size].to(self.device)}
            if pictures is not None:
                its = pictures if len(pictures) == 1 else pictures[first : first + self.batch_size]
                batch["context_image"] = its.to(self.device).expand(len(batch["image"]), -1, -1, -1)
            found.append({name: values.cpu() for name, values in self._inverter.test_step(batch, 0).items()})
        return {name: torch.cat([part[name] for part in found]) for name in found[0]}

    def _seen(self, given: Any, image: Tensor) -> Tensor:
        """What the network sees of given images, which are x [N, C, H, W]."""
        if self._has_partners:
            raise ValueError(f"{NO_H_OF_X.format(self.dataset)}; give the partners as h_of")
        if self.seen_shape == self.image_shape:
            return image
        try:
            return self._pictures(given)  # PIL's have both
        except ValueError as error:
            raise ValueError(
                f"h is not of x {list(self.image_shape)} but of the pictures at {list(self.seen_shape)}; give these as "
                f"h_of, or PIL's pictures, which are brought to both"
            ) from error

    def _images(self, given: Any) -> Tensor:
        """x as uint8 [N, C, H, W]."""
        return images_of(given, self.image_shape, self._fit)

    def _pictures(self, given: Any) -> Tensor:
        """What the network sees, as uint8 [N, C, H', W']."""
        return images_of(given, self.seen_shape, self._fit)


def load_inverter(place: str | os.PathLike[str], device: str | torch.device | None = None) -> TrainedInverter:
    """`inverters.load`, where it is described."""
    path = checkpoint_at(Path(place).expanduser())
    checkpoint = load_checkpoint(path)
    inverter, keys = inverter_of(path, checkpoint)
    state = next((each for each in checkpoint.values() if isinstance(each, dict) and "dataset" in each), {})
    identity = state.get("identity")
    of_data = keys["data"].get("init_args") if isinstance(keys.get("data"), dict) else None
    batch_size = of_data.get("eval_batch_size") if isinstance(of_data, dict) else None
    return TrainedInverter(
        inverter.requires_grad_(False).to(device_of(device)),
        path,
        state.get("dataset"),
        identity if isinstance(identity, dict) else {},
        batch_size if isinstance(batch_size, int) and batch_size > 0 else 250,
        # Version 0.9 had worlds with partners, and did not say so.
        state.get("has_partners", state.get("dataset") in ("pairs", "steps", "digit_channel")) is True,
    )
