"""A frozen network up to one layer."""

import hashlib
from itertools import islice

import torch
from torch import Tensor, nn

from inverters.exact_float32 import exact_float32
from inverters.networks import stages, unit_interval

NOT_LOADED = (
    "a checkpoint does not say how its {0} is built: use python cli.py with its config, or build the {0} with the "
    "arguments in its run's config.yaml, and give its load_state_dict torch.load(PATH, weights_only=True)['state_dict']"
)


def architecture(network: nn.Module) -> str:
    """The network's layers as text, dropout left out: what must agree for one's weights to fit the other."""
    return "\n".join(line.rstrip() for line in repr(network).splitlines() if "Dropout" not in line)


def digest(module: nn.Module) -> str:
    """sha256 of a module's layers, weights and buffers."""
    found = hashlib.sha256(architecture(module).encode())
    for name, value in module.state_dict().items():
        found.update(f"\n{name} {value.dtype} {list(value.shape)}\n".encode())
        found.update(value.cpu().contiguous().flatten().view(torch.uint8).numpy())
    return found.hexdigest()


class Representation(nn.Module):
    """h(x), the output of one stage of a network, in eval mode and without gradient, always.

    Args:
        network: Named stages. All of them are kept, so that `class_probabilities` can be asked too.
        layer: The name of a stage; None for the empty representation of an unconditional model.

    Attributes:
        depth: The layer's place among the stages, from 1; None where there is no layer.

    Raises:
        ValueError: The network has no stage of that name; the message lists them. Or it is not made of stages.
    """

    def __init__(self, network: nn.Sequential, layer: str | None) -> None:
        super().__init__()
        names = [] if layer is None else list(stages(network))
        if layer is not None and layer not in names:
            raise ValueError(f"no layer {layer!r}; this network has {', '.join(names)}")
        self.network = network.requires_grad_(False).eval()
        self.layer = layer
        self.depth = None if layer is None else names.index(layer) + 1

    def train(self, mode: bool = True) -> "Representation":
        """Stays in eval mode: no dropout, no drift of batch statistics."""
        return super().train(False)

    @property
    def used(self) -> dict[str, nn.Module]:
        """The stages up to the layer, by name."""
        return dict(islice(stages(self.network).items(), self.depth)) if self.depth else {}

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        """h of uint8 images [B, C, H, W]: [B, ...] as the layer gives it; [B, 0] if the layer is None.

        In IEEE float32 whatever a run's precision is: h is the same number in every run.
        """
        h = unit_interval(image, self.network)
        if self.layer is None:
            return h.new_empty(len(h), 0)
        with exact_float32(h.device):
            for stage in self.used.values():
                h = stage(h)
        return h

    @torch.no_grad()
    def output(self, image: Tensor) -> Tensor:
        """What the whole network gives for uint8 images [B, C, H, W]: [B, ...]; of a classifier scores, [B, K].

        In IEEE float32, as h.
        """
        with exact_float32(image.device):
            return self.network(unit_interval(image, self.network))

    def class_probabilities(self, image: Tensor) -> Tensor:
        """What a classifier predicts for uint8 images [B, C, H, W]: [B, K]."""
        return self.output(image).softmax(dim=1)

    def shape(self, image_shape: tuple[int, int, int]) -> tuple[int, ...]:
        """The shape of h, without its batch axis, for images of a shape."""
        return tuple(self(torch.zeros(1, *image_shape, dtype=torch.uint8)).shape[1:])
