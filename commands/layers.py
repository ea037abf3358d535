"""Which layers has a network?"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from jsonargparse import Namespace
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from datamodules import ImageDataModule
from inverters import ConvNet, Preprocessing
from inverters.exact_float32 import exact_float32
from inverters.generators import ImageShape
from inverters.layer import Layer, tensors_in
from inverters.networks import FAULTS, NetworkFactory, made_network, network_name
from inverters.preprocessing import Preprocess
from inverters.reading import Tokens
from inverters.representation import h_of, not_taken, random_images

MADE_FOR_IT = ("image_shape", "num_classes", "seen_shape")
COLUMNS = ("layer", "class", "h", "numbers", "FLOPs", "so far")


def layers(trainer: pl.Trainer, model: pl.LightningModule, datamodule: ImageDataModule) -> None:
    """List every layer of the network in order of execution: its class, h, and what can be inverted as it is."""
    assert isinstance(model, NetworkAlone)
    rows = list(surveyed(model))
    table = [COLUMNS, *(row.cells() for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    seen = "x".join(map(str, model.preprocess.what.shape(model.seen_shape)))
    print(f"{network_name(model.network)}, which sees {seen}; h as a density takes it, of one image; FLOPs, % of all")
    for cells, why in zip(table, ["", *(row.refused for row in rows)], strict=True):
        left = [cell.ljust(width) for cell, width in zip(cells[:3], widths[:3], strict=True)]
        right = [cell.rjust(width) for cell, width in zip(cells[3:], widths[3:], strict=True)]
        print("  ".join([*left, *right, why]).rstrip())
    can = sum(not row.refused for row in rows)
    asleep = {name for name, _ in model.network.named_modules() if name} - {row.module for row in rows}
    few = f"; {len(asleep)} modules are not run, such as {min(asleep)}" if asleep else ""
    print(f"{can} of {len(rows)} can be inverted as they are: --model.layer NAME{few}")


def network_alone(model: Namespace) -> Namespace:
    """A config's model without its layer, which need not be one of its network, and without its density."""
    given = model.get("init_args", {})
    kept = {key: given[key] for key in ("network", "preprocessing", "tokens") if key in given}
    linked = dict.fromkeys(MADE_FOR_IT)  # the data's, where there is a place for them
    return Namespace(class_path=f"{__name__}.NetworkAlone", init_args=Namespace({**linked, **kept}))


class NetworkAlone(pl.LightningModule):
    """A network of which no layer is chosen; arguments as for an Inverter."""

    def __init__(
        self,
        image_shape: ImageShape,
        num_classes: int,
        network: NetworkFactory = ConvNet,
        preprocessing: Preprocessing = Preprocessing(),  # noqa: B008 - frozen
        tokens: Tokens = "all",
        seen_shape: ImageShape | None = None,
    ) -> None:
        super().__init__()
        self.seen_shape = seen_shape or image_shape
        self.network = made_network(network, preprocessing.shape(self.seen_shape), num_classes).eval()
        self.preprocess, self.tokens = Preprocess(preprocessing, self.network), tokens


class Row(NamedTuple):
    """A layer.

    Attributes:
        module: Its module's path.
        name: By which it is inverted.
        kind: The module's class.
        size: Of h as a density takes it, without its batch axis; None where it is refused.
        number: Of numbers an image that the layer gives.
        flops: The module's share of the network's, and that of all that is done when it has ended.
        refused: Why it cannot be inverted, or nothing.
    """

    module: str
    name: str
    kind: str
    size: tuple[int, ...] | None
    number: int
    flops: tuple[float, float]
    refused: str

    def cells(self) -> tuple[str, ...]:
        """As they are shown."""
        size = "x".join(map(str, self.size)) if self.size else "-"
        return self.name, self.kind, size, str(self.number), *(f"{share:.1%}" for share in self.flops)


class Call(NamedTuple):
    """One call of a module, with the FLOPs that were done when it began and ended."""

    name: str
    output: Any
    began: int
    ended: int


@torch.no_grad()
def surveyed(model: NetworkAlone) -> Iterator[Row]:
    """Every layer of a network, in the order in which they end. Raises ValueError where it does not take the images."""
    images, network = random_images(model.seen_shape), model.network
    with torch.random.fork_rng(devices=[]), exact_float32(images.device):
        x = model.preprocess(images, network)
        try:
            calls, total = _calls(network, x)
        except FAULTS as error:
            raise not_taken(network, model.preprocess, images, error) from error
    names = [call.name for call in calls]
    for i, call in enumerate(calls):
        if call.name in names[:i]:
            continue
        kind, times = type(network.get_submodule(call.name)).__name__, names.count(call.name)
        flops = (call.ended - call.began) / max(total, 1), call.ended / max(total, 1)
        # Of what it gives twice the choice is the first's.
        for pick, tensor in list(tensors_in(call.output)) or [("", x.new_empty(0))]:
            name, size, refused = call.name + pick, None, f"run {times} times" if times > 1 else ""
            try:
                h = h_of(call.output, Layer.of(name, network), x, network, model.tokens)
                size = tuple(h.shape[1:])
            except ValueError as error:
                refused = refused or str(error).split(";")[0]
            yield Row(call.name, name, kind, size, tensor.numel() // len(x), flops, refused)


def _calls(network: nn.Module, x: Tensor) -> tuple[list[Call], int]:
    """Every call of a module for one batch, in the order in which they end, and the FLOPs of all."""
    calls: list[Call] = []
    began: list[int] = []
    with FlopCounterMode(display=False) as counter:

        def end(name: str, output: Any) -> None:
            calls.append(Call(name, output, began.pop(), counter.get_total_flops()))

        handles = []
        for name, module in network.named_modules():
            if name:
                handles.append(module.register_forward_pre_hook(lambda *_: began.append(counter.get_total_flops())))
                handles.append(module.register_forward_hook(lambda _, inputs, output, name=name: end(name, output)))
        try:
            network(x)
        finally:
            for handle in handles:
                handle.remove()
    return calls, counter.get_total_flops()
