"""The inverter p(x | h): a conditional generator of images, on top of a frozen representation."""

import collections
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, NoReturn

import torch
from jsonargparse.typing import ClosedUnitInterval, OpenUnitInterval, PositiveInt
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from tqdm import tqdm

from inverters.channel import Channel, ChannelFactory, Kept
from inverters.companions import parted
from inverters.compiled import Compiled, Question, evaluation, loss
from inverters.exact_float32 import exact_float32
from inverters.generators import (
    ConditionalDensity,
    ConditionalGenerator,
    GeneratorFactory,
    ImageShape,
    check_images,
    draw_generator,
)
from inverters.networks import ConvNet, NetworkFactory, made_network, network_name
from inverters.optimizer import AdamAndMuon, Cooldown
from inverters.parts import Parts
from inverters.pixelcnn import PixelCNN
from inverters.preprocessing import Preprocessing, check_same
from inverters.reading import Tokens
from inverters.representation import NOT_LOADED, Representation, check_fingerprint, fingerprint, random_images

OF_CLASSIFIER = ("classifier_name", "classifier_updates", "classifier_course")  # absent from older checkpoints


class Inverter(LightningModule):
    """Learns p(x | h) of one layer, by maximum likelihood (Nash et al. 2019, eq. 4) or as its generator is trained.

    The frozen network lives in this module's checkpoint, which is thereby self-contained.

    Args:
        layer: The layer to invert; None for the unconditional model p(x).
        image_shape: (C, H, W), from the data module.
        num_classes: K, from the data module.
        network: Makes the network whose layer it is, from the shape of what it sees and the number of classes.
        density: Makes the density, or another generator, from the shapes of x and h.
        standardise: Give the density (h - mean) / max(std, 1e-2 x the layer's overall std) per channel, with the
            statistics of the training set: an invertible map, so that the information is unchanged.
        lr: Adam's learning rate.
        betas: Adam's.
        muon: Turn the density's filters by this share of their norm at every step, by Muon, and train only the rest by
            Adam; None for Adam alone, as the paper's. 0.02 is far faster to the same likelihood.
        cooldown: The share of the training, at its end, in which the learning rates fall linearly to zero.
        lr_decay: Factor on the learning rates at every step. The default is the original's, for 250 000 steps, of which
            the paper's 0.9999 would leave nothing; runs of up to 50 000 steps take 0.9999.
        sample_batch_size: Images drawn at once, or half as many until they fit. By default 64 on a CPU, and 1024 on a
            GPU, where these take hardly longer.
        preprocessing: Of the images, before the network sees them.
        weights: Of the network, before a training begins: a file (or package:file, in an installed package), pretrained
            (fetched from the hub of torchvision or timm), own (the network comes with them) or untrained (a baseline).
            Not with those of a classifier.
        tokens: What to take of a layer that gives tokens [B, T, C]: all, map, prefix or mean.
        seen_shape: (C, H, W) of the pictures of which h is taken, from the data module.
        channel: Makes what lies between layer and density, from the shape of h: not all of h is sent, at one of several
            rates. In training each image draws its own, and of several rates the density is told which, one-hot behind
            h. All else is at `rate`.
        warp: How strongly the density's companions are turned, sheared, stretched and moved before h is taken of them:
            at 1 by up to 15 degrees, a fifth, a tenth and a fourteenth of a side. Where images are few, and stay what
            they are when they are warped. Without companions nothing is.

    Attributes:
        rate: The number of the channel's rate at which all is asked but training: by default the one that tells most.
        network_name: As it was asked for, or its class; None without a layer.
        classifies: Whether the network gives class scores, [B, K] with K > 1, and a layer of it is inverted; what loads
            weights that have no such head sets it to False.
        classifier_name: The run whose weights the network has; it and the next two are set by who loads them.
        classifier_updates: After how many updates those were saved.
        classifier_course: The course of training that they are of, where its classifier names one.

    Raises:
        ValueError: The network has no such layer, or what is given does not fit together.
    """

    context_mean: Tensor
    context_scale: Tensor
    initialised: Tensor

    def __init__(
        self,
        layer: str | None,
        image_shape: ImageShape,
        num_classes: int,
        network: NetworkFactory = ConvNet,
        density: GeneratorFactory = PixelCNN,
        standardise: bool = True,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.95, 0.9995),
        lr_decay: float = 0.999995,
        muon: OpenUnitInterval | None = None,
        cooldown: ClosedUnitInterval = 0.0,
        sample_batch_size: PositiveInt | None = None,
        preprocessing: Preprocessing = Preprocessing(),  # noqa: B008 - frozen
        weights: str | None = None,
        tokens: Tokens = "all",
        seen_shape: ImageShape | None = None,
        channel: ChannelFactory | None = None,
        warp: ClosedUnitInterval = 0.0,
    ) -> None:
        super().__init__()
        seen = seen_shape or image_shape
        made = nn.Sequential() if layer is None else made_network(network, preprocessing.shape(seen), num_classes)
        self.weights, self.num_classes, self.seen_shape = weights, num_classes, seen
        self.network_name = None if layer is None else network_name(made)
        self.representation = Representation(made, layer, preprocessing, tokens)
        self.representation.try_on(seen)
        context_shape = self.representation.shape(seen)
        self.channel = None if channel is None else made_channel(channel, layer, context_shape)
        self.rate = self.num_rates - 1
        told = self.num_rates if self.num_rates > 1 else 0
        self.density = density(image_shape, (context_shape[0] + told, *context_shape[1:]))
        if not isinstance(self.density, ConditionalGenerator):
            raise ValueError(f"density gives a {type(self.density).__name__}; give what makes a ConditionalGenerator")
        if self.channel is not None and not isinstance(self.density, ConditionalDensity):
            raise ValueError(
                f"a {type(self.density).__name__} has no likelihood, and a rate no nats; give --model.channel null"
            )
        self._loss: Question = loss
        self._evaluation: Question = evaluation
        self.sample_batch_size = sample_batch_size
        self.evaluated, self.drawn = Parts(), Parts()
        self.classifies = num_classes > 1 and self.representation.num_scores == num_classes
        self.classifier_name: str | None = None
        self.classifier_updates: int | None = None
        self.classifier_course: str | None = None
        self.standardise = standardise
        self.lr, self.betas, self.lr_decay = lr, betas, lr_decay
        # Plain numbers, as they go into checkpoints.
        self.warp = float(warp) if self.density.companions else 0.0
        self.muon, self.cooldown = None if muon is None else float(muon), float(cooldown)
        if muon is not None and not self.density.directions():
            raise ValueError(
                f"a {type(self.density).__name__} has no filters that Muon can turn; give --model.muon null"
            )
        per_channel = (context_shape[0],) + (1,) * (len(context_shape) - 1)
        self.register_buffer("context_mean", torch.zeros(per_channel))
        self.register_buffer("context_scale", torch.ones(per_channel))
        self.register_buffer("initialised", torch.tensor(False))
        if self.sees_original and not self.density.trained:
            raise ValueError(
                f"a {type(self.density).__name__} works back to what the network sees, which are pictures of "
                f"{seen[1]}x{seen[2]} and not the images of {image_shape[1]}x{image_shape[2]}; give a config without "
                f"data.original_side"
            )
        self.density.meet(self.representation, self.standardised)

    def compile_steps(self, device_type: str, backend: str | Callable[..., Any] = "inductor") -> None:
        """Compile the steps of training and validation; test, samples and all else never meet compiled code."""
        self._loss = Compiled(loss, device_type, backend)
        self._evaluation = Compiled(evaluation, device_type, backend)

    @property
    def steps_are_compiled(self) -> bool:
        """Whether they are."""
        return isinstance(self._loss, Compiled)

    @property
    def sees_original(self) -> bool:
        """Whether h is of pictures at a side of their own, and no function of the images that the density models."""
        return self.seen_shape != self.density.image_shape

    def context(self, image: Tensor) -> Tensor:
        """h of uint8 images [B, C, H', W'] as the density takes it: [B, ...], standardised."""
        return self._batch_context({"image": image})

    def _batch_context(self, batch: dict[str, Tensor], in_training: bool = False) -> Tensor:
        """h of `context_image` where the batch has one, else the raw `h` that it brings along, else that of `image`."""
        if "h" in batch and "context_image" not in batch:
            h = batch["h"].to(self.context_mean.dtype)  # it may be kept in float16
        else:
            h = self.representation(batch.get("context_image", batch["image"]))
        return self.context_of(h, in_training)

    @property
    def num_rates(self) -> int:
        """Of the channel; 1 without one."""
        return 1 if self.channel is None else len(self.channel.rates)

    def arrived(self, h: Tensor, number: int | Tensor | None = None, fresh: bool = False) -> Tensor:
        """What the channel leaves of raw h [B, ...], of the same shape and on its device; without one, h itself.

        Args:
            number: Of the channel's rate, for all or for each, int64 [B]; by default that of `rate`.
            fresh: As for `Channel.forward`.
        """
        if self.channel is None:
            return h
        channel = self.channel if h.device == self.context_mean.device else deepcopy(self.channel).to(h.device)
        with exact_float32(h.device):
            return channel(h.to(self.context_mean.dtype), self.rate if number is None else number, fresh)

    def context_of(self, h: Tensor, in_training: bool = False) -> Tensor:
        """Raw h [B, ...] as the density takes it: what arrives of it, standardised, and at which rate.

        In training each image draws its rate, and all noise, from torch's stream, as dropout does.
        """
        number: int | Tensor = self.rate
        if in_training and self.num_rates > 1:
            number = torch.randint(self.num_rates, (len(h),), device=h.device)
        return self.context_of_arrived(self.arrived(h, number, fresh=in_training), number)

    def context_of_arrived(self, h: Tensor, number: int | Tensor | None = None) -> Tensor:
        """What `arrived` gives, [B, ...], as the density takes it; the number is that of its rate, as there.

        Each number of it is made of one of h, and so is the same whatever the device, the batch and the threads.
        """
        context = self.standardised(h)
        if self.num_rates == 1:
            return context
        if not isinstance(number, Tensor):
            number = torch.full((len(h),), self.rate if number is None else number, device=h.device)
        one_hot = (number[:, None] == torch.arange(self.num_rates, device=h.device)).to(context)  # [B, R]
        places = one_hot.view(*one_hot.shape, *[1] * (h.ndim - 2)).expand(-1, -1, *h.shape[2:])
        return torch.cat([context, places], dim=1)

    @contextmanager
    def at_rate(self, number: int) -> Iterator[None]:
        """A block in which all is asked at another of the channel's rates."""
        before, self.rate = self.rate, number
        try:
            yield
        finally:
            self.rate = before

    def standardised(self, h: Tensor) -> Tensor:
        """Raw h [B, ...] by the statistics of training; what the density takes, where there is no channel."""
        mean, scale = self.context_mean.to(h.device), self.context_scale.to(h.device)
        return (h.to(mean.dtype) - mean) / scale  # a network may have a precision of its own

    def with_likelihood(self) -> ConditionalDensity:
        """The density. Raises ValueError where the generator has no likelihood."""
        if not isinstance(self.density, ConditionalDensity):
            raise ValueError(f"a {type(self.density).__name__} only draws images: it has no log p(x | h) to ask for")
        return self.density

    @property
    def measure(self) -> str:
        """The name of the number that validation and test give."""
        return "nce_nats" if isinstance(self.density, ConditionalDensity) else "loss"

    @property
    def monitor(self) -> tuple[str, str]:
        """The number by which the best weights are chosen, and whether that is its "max" or its "min"."""
        if self.density.last_is_best:
            return "val/step", "max"
        return f"val/{self.measure}", "max" if self.measure == "nce_nats" else "min"

    def log_prob(self, batch: dict[str, Tensor]) -> Tensor:
        """log p(x | h) of each image, [B] nats, in IEEE float32. h is that of `context_image` where the batch has one.

        Raises:
            ValueError: The generator has no likelihood; likewise below. Or the images are not uint8.
        """
        check_images(batch["image"])
        with exact_float32(batch["image"].device):
            return self.with_likelihood().log_prob(batch["image"], self._batch_context(batch))

    def log_prob_in_parts(self, batch: dict[str, Tensor]) -> Tensor:
        """`log_prob` without gradient, in parts that fit into memory: [B] float64 nats."""
        self.with_likelihood()
        return self.test_step(batch, 0)["log_prob"]

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """The density's `evaluation`, tensors [B, ...].

        In the run's precision, as it only chooses among the weights of one run.
        """
        return self._in_parts(self._evaluation, batch)

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """The same in IEEE float32, as draws are made: the number and the pictures are of one network."""
        with exact_float32(batch["image"].device):
            return self._in_parts(evaluation, batch)

    @torch.no_grad()
    def _in_parts(self, question: Question, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """What is asked about a batch, tensors [B, ...], in the largest parts that an accelerator's memory holds.

        On a CPU in parts of 32 images: more leave its caches, and take a third longer.
        """

        def answer(rows: Sequence[int]) -> dict[str, Tensor]:
            part = {name: values[rows[0] : rows[-1] + 1] for name, values in batch.items()}
            return question(self.density, part["image"], self._batch_context(part))

        image = batch["image"]
        size = 32 if image.device.type == "cpu" else len(image)
        found = list(self.evaluated.of(range(len(image)), size, answer))
        return {name: torch.cat([part[name] for part in found]) for name in found[0]}

    def draws_at_once(self, device: torch.device) -> int:
        """Images drawn at once on a device, where they fit."""
        return self.sample_batch_size or (64 if device.type == "cpu" else 1024)

    def draw_batches(
        self, image: Tensor, index: Sequence[int], num_draws: int, seed: int = 0, shown: bool = False
    ) -> Iterator[Tensor]:
        """What `draws` gives, as it is finished: uint8 [b, C, H, W], all of the first image first."""
        context, make = self.context(image), self.density.shown if shown else self.density.sample
        keys = [(row, draw) for row in range(len(image)) for draw in range(num_draws)]

        def answer(batch: Sequence[tuple[int, int]]) -> Tensor:
            rows = torch.tensor([row for row, _ in batch], device=image.device)
            with torch.no_grad(), exact_float32(image.device):
                if self.density.given_image:  # what it needs is not all in h
                    return self.density.reconstruct(image[rows])
                return make(context[rows], [draw_generator(index[row], n, seed) for row, n in batch])

        wanted = self.draws_at_once(image.device)
        with tqdm(total=len(keys), desc="sampling, images", disable=len(keys) <= wanted, leave=False) as bar:
            for drawn in self.drawn.of(keys, wanted, answer):
                yield drawn
                bar.update(len(drawn))

    def draws(self, image: Tensor, index: Sequence[int], num_draws: int, seed: int = 0, shown: bool = False) -> Tensor:
        """Draw from p(x | h) several times for each image, with noise that is a function of (seed, index, draw).

        Args:
            image: Of which h is taken, uint8 [N, C, H', W'].
            index: The images' indices in their data set, N.
            num_draws: M.
            seed: Of the noise.
            shown: Give what people are shown of each: the draw, unless the density has something better.

        Returns:
            uint8 [N, M, C, H, W].
        """
        batches = self.draw_batches(image, index, num_draws, seed, shown)
        empty = image.new_empty(0, *self.density.image_shape)
        return torch.cat([empty, *batches]).unflatten(0, (len(image), num_draws))

    def shown(self, image: Tensor, index: Sequence[int], num_draws: int, seed: int = 0) -> Tensor:
        """`draws`, as they are shown."""
        return self.draws(image, index, num_draws, seed, shown=True)

    @torch.no_grad()
    def initialise(self, images: Iterable[Tensor], first: Tensor, seen: Tensor | None = None) -> None:
        """Set the context's statistics and the density's data-dependent initialisation, once, before training.

        Args:
            images: Batches that make up the training set, as the network sees them, uint8 [B, C, H', W'].
            first: The batch that initialises the density, uint8 [B, C, H, W].
            seen: What the network sees of that batch, uint8 [B, C, H', W'], where it is not the same.

        Raises:
            ValueError: h of a training image is not finite.
        """
        with exact_float32(first.device):
            kept = Kept()
            given: Iterator[Tensor] = map(self.representation, images)
            contexts = given if self.channel is None else kept.passing(given)
            if self.standardise and self.context_mean.numel():
                mean, scale = channel_statistics(contexts)
                if not (mean.isfinite().all() and scale.isfinite().all()):
                    raise ValueError(
                        f"layer {self.representation.layer} gives NaN or infinity on training images: its network "
                        f"has diverged; train it anew with a lower learning rate, or give another one"
                    )
                self.context_mean.copy_(mean)
                self.context_scale.copy_(scale)
            if self.channel is not None:
                collections.deque(contexts, maxlen=0)  # the rest of them, where nothing is standardised
                self.channel.fit(torch.cat(kept.rows).to(self.context_mean.dtype))
            self.density.initialise(first, self.context(first if seen is None else seen))
        self.initialised.fill_(True)

    def setup(self, stage: str) -> None:
        """Have the data bring the companions of its images; else some of these would be taken for them."""
        data: Any = getattr(self.trainer, "datamodule", None)
        if stage == "fit" and hasattr(data, "companions"):
            data.companions = self.density.companions

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        batch, companions = parted(batch, self.density.companions, self.warp, self.global_step)
        found = self._loss(self.density, batch["image"], self._batch_context(batch, in_training=True))
        loss = found["loss"].mean()
        if companions:
            context = self._batch_context(companions, in_training=True)
            loss = loss + self.density.guess_loss(companions["image"], context).mean()
        parts = {name: found[name].detach() for name in self.density.parts}
        log_prob = {"log_prob": -found["loss"].detach()} if self.density.by_likelihood else {}
        return {"loss": loss, **parts, **log_prob}

    def predict_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """One draw from p(x | h) for each image, uint8 [B, C, H, W]."""
        return self.draws(batch.get("context_image", batch["image"]), batch["index"].tolist(), num_draws=1)[:, 0]

    def optimizer(self) -> torch.optim.Optimizer:
        """Of the density, before its first step."""
        groups, turned = self.density.own_groups(), [] if self.muon is None else self.density.directions()
        apart = {id(p) for p in (*(p for p, _ in turned), *(p for group in groups for p in group["params"]))}
        rest = [{"params": [p for p in self.density.parameters() if id(p) not in apart]}, *groups]
        if self.muon is None:
            return torch.optim.Adam(rest, lr=self.lr, betas=self.betas, fused=True)
        return AdamAndMuon(rest, turned, self.muon, self.lr, betas=self.betas, fused=True)

    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer()
        num_steps = int(self.trainer.estimated_stepping_batches) if self.cooldown else 0
        scheduler = Cooldown(optimizer, self.lr_decay, self.cooldown, num_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    @classmethod
    def load_from_checkpoint(cls, *args: Any, **kwargs: Any) -> NoReturn:
        """Raises ValueError: checkpoints have no arguments of the constructor, which are in a run's config."""
        raise ValueError(NOT_LOADED.format(cls.__name__))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["layer"] = self.representation.layer
        checkpoint |= {
            "preprocessing": self.representation.preprocess.what.to_json(),
            "tokens": self.representation.tokens,
            "channel": None if self.channel is None else self.channel.description,
            "classifies": self.classifies,
            "fingerprint": self._fingerprint(),
            # What its data had said; up to version 0.7 checkpoints lack it.
            "image_shape": list(map(int, self.density.image_shape)),
            "seen_shape": list(map(int, self.seen_shape)),
            "num_classes": int(self.num_classes),
        }
        checkpoint |= {name: getattr(self, name) for name in OF_CLASSIFIER}

    def check_network(self, checkpoint: Mapping[str, Any], source: object) -> None:
        """Raises ValueError where the network, which has a checkpoint's weights, is not the one that gave its h."""
        check_fingerprint(checkpoint, self._fingerprint(), source)

    def _fingerprint(self) -> Tensor | None:
        if self.representation.layer is None:
            return None
        return fingerprint(self.representation(random_images(self.seen_shape).to(self.context_mean.device)))

    def check_layer(self, checkpoint: Mapping[str, Any], source: str | os.PathLike[str]) -> None:
        """Raises ValueError where a checkpoint inverts another layer, or what another channel leaves of it.

        Its weights need not show that.
        """
        ours = self.representation.layer
        theirs = checkpoint.get("layer", ours)
        if theirs != ours:
            raise ValueError(
                f"{source} inverts layer {theirs}; this config asks for {ours}; give --model.layer "
                f"{'null' if theirs is None else theirs}, or another run by --name or --ckpt_path"
            )
        channel, its = None if self.channel is None else self.channel.description, checkpoint.get("channel")
        if its != channel:
            raise ValueError(
                f"{source} was trained with {its or 'no channel'} behind the layer; this config asks for "
                f"{channel or 'none'}; give --model.channel as its run's config.yaml has it, or another run by --name "
                f"or --ckpt_path"
            )

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Raises ValueError for the checkpoint of another layer, or of no inverter at all."""
        if "layer" not in checkpoint:
            raise ValueError("the checkpoint is not one of an inverter")
        self.check_layer(checkpoint, "the checkpoint")
        check_same(checkpoint, self.representation.preprocess.what, "the checkpoint")
        if checkpoint.get("tokens", "all") != self.representation.tokens:
            raise ValueError(
                f"the checkpoint was trained with --model.tokens {checkpoint['tokens']}; this config asks for "
                f"{self.representation.tokens}"
            )
        self.classifies = bool(self.classifies and checkpoint.get("classifies", True))
        for name in OF_CLASSIFIER:
            setattr(self, name, checkpoint.get(name))


def channel_statistics(contexts: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and scale of every channel of h, over images and positions, [K] or [K, 1, 1].

    The scale is max(std, 1e-2 x the layer's overall std); 1 everywhere if the layer is constant.

    Args:
        contexts: Batches of raw h, [B, K] or [B, K, H, W].
    """
    count, total, squares = 0, torch.zeros(()), torch.zeros(())
    for h in contexts:
        axes, wide = [0, *range(2, h.ndim)], h.double()
        count += h[:, 0].numel()
        total = total + wide.sum(axes, keepdim=True)  # [1, K] or [1, K, 1, 1]
        squares = squares + wide.square().sum(axes, keepdim=True)
    mean = total / count
    variance = (squares / count - mean.square()).clamp(min=0)
    overall = (variance.mean() + mean.var(correction=0)).sqrt()
    scale = torch.maximum(variance.sqrt(), 1e-2 * overall)
    scale = torch.where(scale > 0, scale, 1.0)
    return mean[0], scale[0]


def made_channel(factory: ChannelFactory, layer: str | None, context_shape: tuple[int, ...]) -> Channel:
    """What lies behind a layer that gives h of a shape. Raises ValueError where it can be none."""
    if layer is None:
        raise ValueError("an unconditional model has no h to send; give --model.channel null, or a layer")
    made = factory(context_shape)
    if not isinstance(made, Channel):
        raise ValueError(f"channel gives a {type(made).__name__}; give what makes a Channel, as UniformQuantiser")
    return made
