"""The inverter p(x | h): a frozen representation and a conditional density."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from tqdm import tqdm

from inverters.densities import DensityFactory, ImageShape
from inverters.networks import ConvNet, NetworkFactory
from inverters.pixelcnn import PixelCNN
from inverters.representation import Representation
from inverters.sampling import draw_generator


class Inverter(LightningModule):
    """Learns p(x | h) of one layer by maximum likelihood (Nash et al. 2019, eq. 4), or as its density is trained.

    The frozen network lives in this module's checkpoint, which is thereby self-contained.

    Args:
        layer: The layer to invert; None for the unconditional model p(x).
        image_shape: (C, H, W), from the data module.
        num_classes: K, from the data module.
        network: Makes the classifier from these two; its weights are loaded by a callback.
        density: Makes the density from the shapes of x and h.
        standardise: Give the density (h - mean) / max(std, 1e-2 x the layer's overall std) per channel, with the
            statistics of the training set: an invertible map, so that the information is unchanged.
        lr: Adam's learning rate.
        betas: Adam's.
        lr_decay: Factor on the learning rate at every step. The default is the original's, for 250 000 steps, of which
            the paper's 0.9999 would leave nothing; runs of up to 50 000 steps take 0.9999.
        compile: Compile the density with torch.compile (minutes at the start; for GPUs).
        channels_last: Keep the density's weights, and so its feature maps, in that memory format (for GPUs).
        sample_batch_size: Images drawn at once.

    Raises:
        ValueError: The network has no such layer.
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
        density: DensityFactory = PixelCNN,
        standardise: bool = True,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.95, 0.9995),
        lr_decay: float = 0.999995,
        compile: bool = False,
        channels_last: bool = False,
        sample_batch_size: int = 64,
    ) -> None:
        super().__init__()
        stages = nn.Sequential() if layer is None else network(image_shape, num_classes)
        self.representation = Representation(stages, layer)
        context_shape = self.representation.shape(image_shape)
        self.density = density(image_shape, context_shape)
        if channels_last:
            self.density.to(memory_format=torch.channels_last)
        if compile:
            self.density.compile()
        self.sample_batch_size = sample_batch_size
        self.largest_eval_batch = sys.maxsize
        self.classifier_name: str | None = None  # of the weights that were loaded into the network
        self.classifier_updates: int | None = None
        self.standardise = standardise
        self.lr, self.betas, self.lr_decay = lr, betas, lr_decay
        per_channel = (context_shape[0],) + (1,) * (len(context_shape) - 1)
        self.register_buffer("context_mean", torch.zeros(per_channel))
        self.register_buffer("context_scale", torch.ones(per_channel))
        self.register_buffer("initialised", torch.tensor(False))

    def context(self, image: Tensor) -> Tensor:
        """h of uint8 images [B, C, H, W] as the density takes it: [B, ...], standardised."""
        return self._standardised(self.representation(image))

    def _standardised(self, h: Tensor) -> Tensor:
        return (h - self.context_mean) / self.context_scale

    def _batch_context(self, batch: dict[str, Tensor]) -> Tensor:
        """Of `context_image` where the batch has one, else the raw `h` that it brings along, else of `image`."""
        if "h" in batch and "context_image" not in batch:
            return self._standardised(batch["h"].to(self.context_mean.dtype))  # it may be kept in float16
        return self.context(batch.get("context_image", batch["image"]))

    def log_prob(self, batch: dict[str, Tensor]) -> Tensor:
        """log p(x | h) of each image, [B] nats. h is that of `context_image` where the batch has one."""
        return self.density.log_prob(batch["image"], self._batch_context(batch))

    def log_prob_per_pixel(self, batch: dict[str, Tensor]) -> Tensor:
        """log p(x_i | x_<i, h) of every pixel, [B, H, W] nats; h as for `log_prob`."""
        return self.density.log_prob_per_pixel(batch["image"], self._batch_context(batch))

    @torch.no_grad()
    def log_prob_per_pixel_in_parts(self, batch: dict[str, Tensor]) -> Tensor:
        """`log_prob_per_pixel` without gradient, in the largest parts that an accelerator's memory holds.

        On a CPU in parts of 64 images: more leave its caches, and take a quarter longer.
        """
        image = batch["image"]
        size = min(len(image), 64) if image.device.type == "cpu" else len(image)
        while True:
            part = min(size, self.largest_eval_batch)
            try:
                parts = zip(*(value.split(part) for value in batch.values()), strict=True)
                return torch.cat([self.log_prob_per_pixel(dict(zip(batch, values, strict=True))) for values in parts])
            except torch.OutOfMemoryError:
                if part == 1:
                    raise
                self.largest_eval_batch = (part + 1) // 2

    def log_prob_in_parts(self, batch: dict[str, Tensor]) -> Tensor:
        """log p(x | h) of each image, [B] nats: what `log_prob_per_pixel_in_parts` gives, summed in float64."""
        return self.log_prob_per_pixel_in_parts(batch).double().sum(dim=(1, 2))

    def draw_batches(self, image: Tensor, index: Sequence[int], num_draws: int, seed: int = 0) -> Iterator[Tensor]:
        """The draws of `draws` as they are finished: uint8 [b, C, H, W], all of the first image, then the next."""
        context = self.context(image)
        keys = [(row, draw) for row in range(len(image)) for draw in range(num_draws)]
        batches = [keys[i : i + self.sample_batch_size] for i in range(0, len(keys), self.sample_batch_size)]
        for batch in tqdm(batches, f"sampling {len(keys)} images, batches", disable=len(batches) == 1, leave=False):
            rows = torch.tensor([row for row, _ in batch], device=image.device)
            with torch.no_grad(), torch.autocast(image.device.type, enabled=False):
                yield self.density.sample(context[rows], [draw_generator(index[row], n, seed) for row, n in batch])

    def draws(self, image: Tensor, index: Sequence[int], num_draws: int, seed: int = 0) -> Tensor:
        """Draw from p(x | h) several times for each image, with noise that is a function of (seed, index, draw).

        Args:
            image: uint8 [N, C, H, W].
            index: The images' indices in their data set, N.
            num_draws: M.
            seed: Of the noise.

        Returns:
            uint8 [N, M, C, H, W].
        """
        drawn = list(self.draw_batches(image, index, num_draws, seed))
        if not drawn:
            return image.new_empty(len(image), num_draws, *image.shape[1:])
        return torch.cat(drawn).unflatten(0, (len(image), num_draws))

    @torch.no_grad()
    def initialise(self, images: Iterable[Tensor], first: Tensor) -> None:
        """Set the context's statistics and the density's data-dependent initialisation, once, before training.

        Args:
            images: Batches that make up the training set, uint8 [B, C, H, W].
            first: The batch that initialises the density, uint8 [B, C, H, W].

        Raises:
            ValueError: h of a training image is not finite.
        """
        if self.standardise and self.context_mean.numel():
            mean, scale = channel_statistics(map(self.representation, images))
            if not (mean.isfinite().all() and scale.isfinite().all()):
                raise ValueError(
                    f"layer {self.representation.layer} gives NaN or infinity on training images: its classifier has "
                    f"diverged; train it anew with a lower learning rate, or give another with --classifier"
                )
            self.context_mean.copy_(mean)
            self.context_scale.copy_(scale)
        self.density.initialise(first, self.context(first))
        self.initialised.fill_(True)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        loss, log_prob = self.density.loss_and_log_prob(batch["image"], self._batch_context(batch))
        return {"loss": loss.mean(), "log_prob": log_prob.detach()}

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        per_pixel = self.log_prob_per_pixel_in_parts(batch)
        return {"log_prob": per_pixel.double().sum(dim=(1, 2)), "log_prob_per_pixel": per_pixel}

    test_step = validation_step

    def predict_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """One draw from p(x | h) for each image, uint8 [B, C, H, W]."""
        return self.draws(batch["image"], batch["index"].tolist(), num_draws=1)[:, 0]

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.density.parameters(), lr=self.lr, betas=self.betas, fused=True)
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, self.lr_decay)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["layer"] = self.representation.layer
        checkpoint["classifier_name"] = self.classifier_name
        checkpoint["classifier_updates"] = self.classifier_updates

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Raises ValueError for the checkpoint of another layer, or of no inverter at all."""
        if "layer" not in checkpoint:
            raise ValueError("the checkpoint is not one of an inverter")
        if checkpoint["layer"] != self.representation.layer:
            raise ValueError(
                f"the checkpoint inverts layer {checkpoint['layer']}; this config asks for {self.representation.layer}"
            )
        self.classifier_name = checkpoint.get("classifier_name")
        self.classifier_updates = checkpoint.get("classifier_updates")


def channel_statistics(contexts: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and scale of every channel of h, over images and positions, [K] or [K, 1, 1].

    The scale is max(std, 1e-2 x the layer's overall std); 1 everywhere if the layer is constant.

    Args:
        contexts: Batches of raw h, [B, K] or [B, K, H, W].
    """
    count = 0
    total = squares = torch.zeros((), dtype=torch.float64)
    for h in contexts:
        axes = [axis for axis in range(h.ndim) if axis != 1]
        wide = h.double()
        count += h[:, 0].numel()
        total = total + wide.sum(axes)
        squares = squares + wide.square().sum(axes)
    shape = [-1] + [1] * (h.ndim - 2)
    mean = total / count
    variance = (squares / count - mean.square()).clamp(min=0)
    overall = (variance.mean() + mean.var(correction=0)).sqrt()
    scale = torch.maximum(variance.sqrt(), 1e-2 * overall)
    scale = torch.where(scale > 0, scale, 1.0)
    return mean.view(shape).to(h.dtype), scale.view(shape).to(h.dtype)
