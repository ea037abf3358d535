"""A layer projected back to pixels through the network in reverse, by a deconvnet (Zeiler and Fergus 2014)."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_input

from inverters.generators import ImageShape
from inverters.preprocessing import unit_interval
from inverters.representation import Representation
from inverters.untrained import Untrained, relative_distance

Back = Callable[[Tensor], Tensor]
WAYS = "convolutions, linear layers, ReLU and max pooling, one after the other"


def modules_up_to(network: nn.Module, path: str) -> list[nn.Module]:
    """The modules of nested nn.Sequentials in the order in which they run, the last of which is, or ends, a path."""
    found: list[nn.Module] = []

    def walk(module: nn.Module, prefix: str) -> bool:
        """Whether the path's end has been reached."""
        if type(module).forward is not nn.Sequential.forward:
            found.append(module)
        else:
            named = module.named_modules(remove_duplicate=False)  # one ReLU may serve twice
            for name, child in [(name, child) for name, child in named if name and "." not in name]:
                if walk(child, f"{prefix}{name}."):
                    return True
        return prefix == f"{path}."

    walk(network, "")
    return found


def run(module: nn.Module, x: Tensor) -> tuple[Tensor, Back]:
    """What a module gives for x, [B, ...], and its reverse: from a signal at its output to one at its input.

    Raises:
        ValueError: It has none.
    """
    y: Any
    if isinstance(module, nn.MaxPool2d) and not module.ceil_mode and module.dilation in (1, (1, 1)):
        size, options = x.shape[2:], (module.kernel_size, module.stride, module.padding)
        y, switches = F.max_pool2d(x, *options, return_indices=True)
        # Where pools overlap one pixel may be the largest of several, and gets the sum.
        return (
            y,
            lambda s: (
                x.new_zeros(x.shape).flatten(2).scatter_add(2, switches.flatten(2), s.flatten(2)).unflatten(2, size)
            ),
        )
    y = module(x)
    if isinstance(module, nn.Conv2d) and module.padding_mode == "zeros" and not isinstance(module.padding, str):
        convolution = module
        return y, lambda s: conv2d_input(
            x.shape, convolution.weight, s, convolution.stride, convolution.padding, convolution.dilation,
            convolution.groups,
        )  # fmt: skip
    if isinstance(module, nn.Linear):
        weight = module.weight
        return y, lambda s: s @ weight
    if isinstance(module, nn.ReLU):
        return y, torch.relu
    if isinstance(module, nn.Flatten | nn.Unflatten | nn.Identity | nn.Dropout | nn.Dropout2d):
        return y, lambda s: s.reshape(x.shape)
    raise ValueError(
        f"a Deconvnet goes back through {WAYS}, and not through a {type(module).__name__}; give another layer or "
        f"network, or another --model.density"
    )


class Deconvnet(Untrained):
    """Goes back from h through the transposed filters, with the switches of max pooling and rectified signals.

    Zeiler and Fergus 2014, "Visualizing and understanding convolutional networks", section 2.1: each pooling puts its
    values where the image's largest were, each rectification rectifies the signal that comes down, and each convolution
    or linear layer is transposed, without its bias. Of all of h at once, and not of one feature map.

    **It is given more than h**: the switches are those of the image. So it is no generator of x given h, and what it
    shows need not be in h. It is the gradient of h . h0 in x (Simonyan et al. 2013) but for the rectifiers, where the
    gradient lets a signal pass if the rectifier's input was positive, and a deconvnet if the signal itself is. Of a
    network without any the two are the same.

    The projection is signed, and has no scale; as people show it, 0 is mid-grey, 127.5, and the largest of an image's
    values, of either sign, black or white. So squared error and h of it say how it is shown as much as what it has.

    Args:
        image_shape: (C, H, W).
        context_shape: Of h.

    Raises:
        ValueError: There is no layer, or the network is more than convolutions, linear layers, ReLU and max pooling
            one after the other.
    """

    point_estimate = True
    given_image = True
    called = "deconvnet"

    def __init__(self, image_shape: ImageShape, context_shape: tuple[int, ...]) -> None:
        super().__init__(image_shape)

    def meet(self, representation: Representation, standardised: Callable[[Tensor], Tensor]) -> None:
        super().meet(representation, standardised)
        what = representation.preprocess.what
        if what.shape(self.image_shape) != tuple(self.image_shape):
            raise ValueError("a Deconvnet needs a network that sees the images at their size; leave preprocessing out")
        self.projection(torch.zeros(2, *self.image_shape, dtype=torch.uint8))

    @torch.no_grad()
    def projection(self, image: Tensor) -> Tensor:
        """h of uint8 images projected back to their pixels, signed floats [B, C, H, W]; raw h, not standardised.

        Raises:
            ValueError: See above.
        """
        representation = self.representation
        assert representation.place is not None
        network, preprocess = representation.network, representation.preprocess
        x = preprocess.of_unit(unit_interval(image, network))
        if representation.place.picks:
            raise ValueError(f"a Deconvnet goes back through {WAYS}, and {representation.layer} is a part of a layer")
        ways: list[Back] = []
        for module in modules_up_to(network, representation.place.path):
            x, back = run(module, x)
            ways.append(back)
        for back in reversed(ways):
            x = back(x)
        return x if preprocess.std is None else x / preprocess.std.to(x)

    def reconstruct(self, image: Tensor) -> Tensor:
        signal = self.projection(image)
        largest = signal.abs().amax(dim=(1, 2, 3), keepdim=True).clamp(min=torch.finfo(signal.dtype).tiny)
        return (127.5 + 127.5 * signal / largest).round().to(torch.uint8)

    def sample(self, context: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """Raises ValueError: h alone has no switches."""
        raise ValueError("a Deconvnet needs the image, whose pooling switches are not in h; ask `reconstruct`")

    def loss(self, image: Tensor, context: Tensor) -> Tensor:
        """How far h of what is shown is from h, relative to that, [B]."""
        shown = self.reconstruct(image)
        return relative_distance(self.context_of(shown.to(context.dtype) / 255), context)
