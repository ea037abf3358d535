"""What is done to images before a network sees them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jsonargparse.typing import PositiveInt
from torch import Tensor, nn

from inverters.generators import ImageShape, check_images

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of most networks trained on it, torchvision's first


@dataclass(frozen=True)
class Preprocessing:
    """(x - mean) / std of images x in [0, 1], at the size and with the channels that a network expects.

    A part of the representation: recorded in checkpoints and results, as another one is another h.

    Args:
        side: Of the square that images are resized to, bilinearly and without aliasing; by default as they are.
        mean: Of every channel, or one of all; or whose statistics these and `std` are: imagenet's, or those that a
            network of timm brings along.
        std: Likewise.
        rgb: Make three equal channels of a grey one.
    """

    side: PositiveInt | None = None
    mean: Literal["imagenet", "timm"] | list[float] = (0.0,)  # type: ignore[assignment] # a list could be changed
    std: list[float] = (1.0,)  # type: ignore[assignment]
    rgb: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.mean, str) and list(self.std) != [1.0]:
            raise ValueError(f"preprocessing.mean is {self.mean}, which has an std too; leave preprocessing.std out")
        if any(not std > 0 for std in self.std):
            raise ValueError(f"preprocessing.std is {list(self.std)}; give numbers above 0")

    def shape(self, image_shape: ImageShape) -> ImageShape:
        """Of what the network sees, (C, H, W)."""
        channels, height, width = image_shape
        height, width = (self.side, self.side) if self.side else (height, width)
        return 3 if self.rgb and channels == 1 else channels, height, width

    def in_numbers(self, network: nn.Module) -> "Preprocessing":
        """The same with mean and standard deviation as numbers. Raises ValueError where the network has none."""
        if not isinstance(self.mean, str):
            return replace(self, mean=list(self.mean), std=list(self.std))
        mean, std = IMAGENET if self.mean == "imagenet" else _of_timm(network)
        return replace(_WITHOUT, side=self.side, rgb=self.rgb, mean=list(mean), std=list(std))

    def to_json(self) -> dict[str, Any]:
        """Its arguments as plain values."""
        side = None if self.side is None else int(self.side)  # a bounded number has a type of its own
        return {"side": side, "mean": list(self.mean), "std": list(self.std), "rgb": self.rgb}

    def __str__(self) -> str:
        """For people."""
        size = f"{self.side}x{self.side}" if self.side else "their own size"
        mean, std = (", ".join(f"{x:g}" for x in values) for values in (self.mean, self.std))
        return f"at {size}, mean {mean}, std {std}{', grey as three channels' if self.rgb else ''}"


_WITHOUT = Preprocessing()


def check_same(checkpoint: Mapping[str, Any], ours: Preprocessing, source: str) -> None:
    """Raises ValueError where a checkpoint's network has seen images in another way; up to 0.7 there was one."""
    theirs = checkpoint.get("preprocessing", _WITHOUT.to_json())
    if not isinstance(theirs, dict):
        raise ValueError(f"{source} has preprocessing {theirs!r}, which is none; give another checkpoint")
    for key, value in ours.to_json().items():
        if theirs.get(key) != value:
            raise ValueError(
                f"{source} was trained with preprocessing.{key} {theirs.get(key)}, not {value}, which gives another h; "
                f"give --model.preprocessing.{key} as it was"
            )


def _of_timm(network: nn.Module) -> tuple[Sequence[float], Sequence[float]]:
    found = getattr(network, "pretrained_cfg", None)
    if not isinstance(found, dict) or "mean" not in found:
        raise ValueError(
            f"preprocessing.mean is timm, and the network, a {type(network).__name__}, has no statistics of timm's; "
            f"give imagenet or numbers"
        )
    return found["mean"], found["std"]


def unit_interval(image: Tensor, network: nn.Module) -> Tensor:
    """uint8 images in [0, 1], in the precision of a network's weights."""
    check_images(image)
    return image.to(precision(network) or torch.float32) / 255


def precision(network: nn.Module) -> torch.dtype | None:
    """Of a network's weights; None where it has none that are fractions."""
    own = (t.dtype for t in chain(network.parameters(), network.buffers()) if t.is_floating_point())
    return next(own, None)


class Preprocess(nn.Module):
    """Does it.

    Args:
        preprocessing: What to do.
        network: That sees the images.
    """

    mean: Tensor | None
    std: Tensor | None

    def __init__(self, preprocessing: Preprocessing, network: nn.Module) -> None:
        super().__init__()
        self.what = preprocessing.in_numbers(network)
        plain = list(self.what.mean) == [0.0] and list(self.what.std) == [1.0]
        for name, values in (("mean", self.what.mean), ("std", self.what.std)):
            made = None if plain else torch.tensor(values).view(-1, 1, 1)
            self.register_buffer(name, made, persistent=False)  # it is in the config, and not of the network's weights

    def forward(self, image: Tensor, network: nn.Module) -> Tensor:
        """uint8 images [B, C, H, W] as the network sees them, [B, C', H', W']."""
        return self.of_unit(unit_interval(image, network))

    def of_unit(self, x: Tensor) -> Tensor:
        """The same of floats in [0, 1]."""
        if self.what.rgb and x.shape[1] == 1:
            x = x.expand(-1, 3, -1, -1).contiguous()  # a network may change it in place
        if self.what.side and x.shape[2:] != (self.what.side, self.what.side):
            x = F.interpolate(x, size=(self.what.side,) * 2, mode="bilinear", align_corners=False, antialias=True)
        if self.mean is None or self.std is None:
            return x
        if len(self.mean) not in (1, x.shape[1]) or len(self.std) not in (1, x.shape[1]):
            rgb = ", or --model.preprocessing.rgb true" if x.shape[1] == 1 else ""
            raise ValueError(
                f"preprocessing.mean and std are of {len(self.mean)} and {len(self.std)} channels, and the images have "
                f"{x.shape[1]}; give one number for all, or as many{rgb}"
            )
        return (x - self.mean.to(x.dtype)) / self.std.to(x.dtype)
