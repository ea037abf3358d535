"""A frozen network up to one layer."""

import hashlib
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from inverters.exact_float32 import exact_float32
from inverters.generators import ImageShape
from inverters.layer import ALL_LAYERS, Layer, depth, recorded_calls
from inverters.networks import FAULTS
from inverters.preprocessing import Preprocess, Preprocessing, precision, unit_interval
from inverters.reading import Tokens, as_read

NOT_LOADED = (
    "a checkpoint does not say how its {0} is built: use python cli.py with its config, or build the {0} with the "
    "arguments in its run's config.yaml, and give its load_state_dict torch.load(PATH, weights_only=True)['state_dict']"
)


def architecture(network: nn.Module) -> str:
    """The network's layers as text, dropout left out: what must agree for one's weights to fit the other."""
    return "\n".join(line.rstrip() for line in repr(network).splitlines() if "Dropout" not in line)


def digest(module: nn.Module, names: Collection[str] | None = None) -> str:
    """sha256 of a module's layers, and of its weights and buffers; of all of these, or of those of some names."""
    found = hashlib.sha256(architecture(module).encode())
    for name, value in module.state_dict().items():
        if names is None or name in names:
            found.update(f"\n{name} {value.dtype} {list(value.shape)}\n".encode())
            found.update(value.cpu().contiguous().flatten().view(torch.uint8).numpy())
    return found.hexdigest()


class Representation(nn.Module):
    """h(x), what one module of a network gives, in eval mode and without gradient, always.

    Args:
        network: Any. All of it is kept, so that `class_probabilities` can be asked too.
        layer: The module's dotted path, and which of its outputs (`inverters.layer`); None for the empty representation
            of an unconditional model.
        preprocessing: Of the images, before the network sees them.
        tokens: What to take, where the layer gives tokens (`inverters.reading`).

    Attributes:
        depth: The layer's place: the network's children that have ended when it has, with the share of the one that it
            is in. None before `try_on`, and where there is no layer.
        num_scores: K of the network's output [B, K]; None before `try_on`, and where it gives something else.

    Raises:
        ValueError: The network has no module of that name; the message has the nearest.
    """

    def __init__(
        self,
        network: nn.Module,
        layer: str | None,
        preprocessing: Preprocessing = Preprocessing(),  # noqa: B008 - frozen
        tokens: Tokens = "all",
    ) -> None:
        super().__init__()
        self.place = None if layer is None else Layer.of(layer, network)
        self.network = network.requires_grad_(False).eval()
        self.layer, self.tokens = layer, tokens
        self.preprocess = Preprocess(preprocessing, network)
        self.depth: float | None = None
        self.num_scores: int | None = None

    def train(self, mode: bool = True) -> "Representation":
        """Stays in eval mode: no dropout, no drift of batch statistics."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        """h of uint8 images [B, C, H, W]: a vector [B, K] or a map [B, K, H', W']; [B, 0] if the layer is None.

        In IEEE float32 whatever a run's precision is: h is the same number in every run.

        Raises:
            ValueError: The layer gives no such thing, or something else than a row an image.
        """
        return self.of_unit(unit_interval(image, self.network))

    def of_unit(self, x: Tensor) -> Tensor:
        """The same of floats x in [0, 1], [B, C, H, W], of which h has a gradient here: to optimise pixels, say."""
        with exact_float32(x.device):
            seen = self.preprocess.of_unit(x.to(precision(self.network) or x.dtype))
            if self.place is None:
                return seen.new_empty(len(seen), 0)
            return h_of(self.place.output(self.network, seen), self.place, seen, self.network, self.tokens)

    def at(self, layer: str) -> "Representation":
        """Another layer of the same network, which sees the same. Raises ValueError where there is none."""
        other = Representation(self.network, layer, self.preprocess.what, self.tokens)
        other.preprocess = self.preprocess  # which moves from device to device with this one
        return other

    @torch.no_grad()
    def output(self, image: Tensor) -> Tensor:
        """What the whole network gives for uint8 images [B, C, H, W]: [B, ...]; of a classifier scores, [B, K].

        In IEEE float32, as h.
        """
        with exact_float32(image.device):
            return self.network(self.preprocess(image, self.network))

    def class_probabilities(self, image: Tensor) -> Tensor:
        """What a classifier predicts for uint8 images [B, C, H, W]: [B, K]."""
        return self.output(image).softmax(dim=1)

    def shape(self, image_shape: ImageShape) -> tuple[int, ...]:
        """The shape of h, without its batch axis, for images of a shape."""
        return tuple(self(torch.zeros(1, *image_shape, dtype=torch.uint8)).shape[1:])

    def try_on(self, image_shape: ImageShape) -> None:
        """See on random images of a shape that h is a function of each of them, and how deep the layer lies.

        Neither random numbers nor the network change. What comes after the layer may fail.

        Raises:
            ValueError: It is not, the network does not take such images, or the module is run more than once.
        """
        if self.place is None:
            return
        images = random_images(image_shape)
        with torch.random.fork_rng(devices=[]):
            with recorded_calls(self.network) as calls, suppress(*FAULTS, ValueError):
                whole = self.output(images)
                self.num_scores = whole.shape[1] if isinstance(whole, Tensor) and whole.ndim == 2 else None
            try:
                h, again, alone = self(images), self(images), self(images[:1])
            except FAULTS as error:
                raise not_taken(self.network, self.preprocess, images, error) from error
        module, path = self.network.get_submodule(self.place.path), self.place.path
        first = next(name for name, other in self.network.named_modules() if other is module)
        ended = [name for name, _ in calls]
        if ended.count(first) > 1:
            around = path.rpartition(".")[0]
            raise ValueError(
                f"the module {path} is run {ended.count(first)} times for one batch, so that its name is no one layer; "
                f"give {f'{around}, which is around it, or ' if around else ''}another one: {ALL_LAYERS}"
            )
        if again.shape != h.shape or not torch.allclose(h, again, rtol=1e-4, atol=1e-5, equal_nan=True):
            raise ValueError(
                f"layer {self.layer} gives two answers for one batch of images: the network is random even in eval "
                f"mode; give a layer before that, or a network that is not"
            )
        if alone.shape[1:] != h.shape[1:] or not alike(h[:1], alone):
            raise ValueError(
                f"layer {self.layer} gives an image another h where other images are beside it, as batch normalisation "
                f"without its own statistics does; give a layer before that"
            )
        self.depth = depth(first, ended)

    def needed(self, image_shape: ImageShape) -> set[str]:
        """The names in the network's state_dict of what h depends on, for images of a shape.

        Those are the tensors of the modules that have ended when the layer has, and what it has a gradient of; a
        network's head is not among them.
        """
        if self.place is None:
            return set()
        with recorded_calls(self.network) as calls:
            parameters = dict(self.network.named_parameters(remove_duplicate=False))
            before = {name: p.requires_grad for name, p in parameters.items()}
            try:
                floats = [name for name, p in parameters.items() if p.is_floating_point()]
                for name in floats:
                    parameters[name].requires_grad_(True)
                device = next((t.device for t in self.network.state_dict().values()), torch.device("cpu"))
                zeros = torch.zeros(2, *image_shape, dtype=torch.uint8, device=device)
                with torch.enable_grad():
                    h = self.of_unit(unit_interval(zeros, self.network))
                    gradients = (
                        torch.autograd.grad(h.sum(), [parameters[name] for name in floats], allow_unused=True)
                        if h.requires_grad else [None] * len(floats)
                    )  # fmt: skip
            finally:
                for name, p in parameters.items():
                    p.requires_grad_(before[name])
        own = {name for name, _ in calls} | {self.place.path}
        if not h.requires_grad:  # the network itself forbids gradients, so that all around the layer may count
            own |= {"", *(self.place.path.rsplit(".", i)[0] for i in range(1, self.place.path.count(".") + 1))}
        used = {name for name, gradient in zip(floats, gradients, strict=True) if gradient is not None}
        owners = own | {name.rpartition(".")[0] for name in used}
        state = self.network.state_dict()
        return {
            name for name in state
            if name in used or name.rpartition(".")[0] in own
            or (name not in parameters and name.rpartition(".")[0] in owners)
        }  # fmt: skip


def h_of(output: Any, layer: Layer, x: Tensor, network: nn.Module, tokens: Tokens) -> Tensor:
    """h, a vector [B, K] or a map [B, K, H', W'], from what a layer's module gives for what the network sees, x.

    Raises:
        ValueError: It is no such thing, or has something else than a row an image.
    """
    raw = layer.chosen(output)
    if raw.ndim == 0 or len(raw) != len(x):
        raise ValueError(
            f"the first axis of what layer {layer.name} gives, {list(raw.shape)}, is not that of a batch of {len(x)} "
            f"images; give another one: {ALL_LAYERS}"
        )
    return as_read(raw, layer.name, network, (x.shape[2], x.shape[3]), tokens)


def random_images(image_shape: ImageShape) -> Tensor:
    """uint8 [3, C, H, W], always the same: three, which no layer's first axis is likely to be by chance."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (3, *image_shape), dtype=torch.uint8, generator=generator)


def check_fingerprint(checkpoint: Mapping[str, Any], ours: Tensor | None, source: object) -> None:
    """Raises ValueError where a network gives something else of random images than when its checkpoint was saved.

    Its arguments and its code are not in its weights; up to version 0.7 there was no fingerprint.

    Args:
        checkpoint: Whose weights the network has.
        ours: Its fingerprint now, [3, n]; None where there is no network.
        source: Of the checkpoint.
    """
    theirs = checkpoint.get("fingerprint")
    if theirs is None or ours is None:
        return
    same = isinstance(theirs, Tensor) and theirs.shape == ours.shape and theirs.is_floating_point()
    if same and alike(ours, theirs.float()):
        return
    raise ValueError(
        f"the network gives something else with the weights of {source} than when they were saved: its arguments or "
        f"its code have changed; give those of the run's config.yaml"
    )


def alike(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors of a shape differ by no more than machines and batches round: a thousandth of a's scale."""
    scale = float(a.abs().nan_to_num(0, 0, 0).max()) if a.numel() else 0.0
    return torch.allclose(a, b, rtol=1e-3, atol=1e-3 * scale, equal_nan=True)


def fingerprint(output: Tensor) -> Tensor:
    """Of what a network gives of `random_images`, [3, ...]: float32 [3, n], of the first numbers of each."""
    return output.detach().flatten(1)[:, :64].float().cpu()


def not_taken(network: nn.Module, preprocess: Preprocess, images: Tensor, error: Exception) -> ValueError:
    """The sentence for a network that fails on uint8 images [B, C, H, W]."""
    channels, height, width = images.shape[1:]
    seen = "x".join(map(str, preprocess.what.shape((channels, height, width))))
    reason = " ".join(str(error).split()) or type(error).__name__
    return ValueError(
        f"the network, a {type(network).__name__}, cannot be used on images of {seen}: {reason}; for another size or "
        f"three channels of a grey image give --model.preprocessing.side and --model.preprocessing.rgb true, or tell "
        f"it the size by --model.network.arguments"
    )
