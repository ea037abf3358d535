"""An initialised density on a device and on the CPU, and how far the one is from the other and from float64."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from benchmarks.sizes import Size
from inverters.exact_float32 import exact_float32
from inverters.generators import draw_generator
from inverters.pixelcnn import PixelCNN, incremental

Found = tuple[str, str, bool]  # the value, its bound, and whether it holds
# Half of the last place of a float32 between 4 and 8: what a sub-pixel's log-probability is rounded to, if all have one
# sign. 1.9e-4 nats for an image of MNIST, 7.3e-4 of CIFAR; seen on a CPU is a fifth of it.
PER_SUB_PIXEL = 2.0**-22
TIE = 1e-4  # parameters within it of the full pass's draw either of two pixels
N = 8  # images


@contextmanager
def tf32() -> Iterator[None]:
    """Products of float32 in 10 bits on a GPU for a while, as in training."""
    convolutions, products = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    torch.backends.cudnn.allow_tf32 = True
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = convolutions
        torch.set_float32_matmul_precision(products)


def relative(found: Tensor, expected: Tensor) -> float:
    """||found - expected|| / ||expected||."""
    expected = expected.double().cpu()
    return ((found.detach().double().cpu() - expected).norm() / expected.norm()).item()


def generators(n: int) -> list[torch.Generator]:
    return [draw_generator(index, 0, seed=0) for index in range(n)]


class Trial:
    """An initialised density of a size, on both devices, with images and h, and what float64 makes of them."""

    def __init__(self, size: Size, device: torch.device) -> None:
        self.density = size.density(context_size=256).eval().requires_grad_(False)
        self.image, self.context = size.images(N), torch.randn(N, 256)
        self.density.initialise(self.image, self.context)
        self.there = size.density(context_size=256).eval().requires_grad_(False).to(device)
        self.there.load_state_dict(self.density.state_dict())
        self.x, self.h = self.image.to(device), self.context.to(device)
        wide = self.density.double()
        self.params, self.nats = self.evaluated(wide, self.image, self.context.double())
        self.density = wide.float()
        self.bound = PER_SUB_PIXEL * self.image[0].numel()

    @staticmethod
    def evaluated(density: PixelCNN, image: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Parameters [B, P, H, W] and log p(x | h) [B] in nats."""
        with torch.inference_mode():
            return density(image, context), density.evaluation(image, context)["log_prob"]

    def errors(self) -> tuple[float, float]:
        """The relative error of the parameters on the device, and that of the worst image in nats."""
        params, nats = self.evaluated(self.there, self.x, self.h)
        return relative(params, self.params), (nats.cpu() - self.nats).abs().max().item()

    def incremental_error(self) -> float:
        """The largest difference of the incremental sampler's parameters from the full pass's."""
        with exact_float32(self.x.device), torch.inference_mode():
            network, full, worst = incremental.IncrementalPixelCNN(self.there, self.h), self.there(self.x, self.h), 0.0
            for r in range(full.shape[2]):
                network.row(r, self.x)
                for c in range(full.shape[3]):
                    worst = max(worst, (network.cell(r, c) - full[:, :, r, c]).abs().max().item())
        return worst

    def drawn(self, there: bool = True, alone: bool = False) -> Tensor:
        """Draws of the same noise, uint8 [B, C, H, W]: on the device or the CPU, in one batch or two alone."""
        density, h = (self.there, self.h) if there else (self.density, self.context)
        with exact_float32(h.device):
            if not alone:
                return incremental.incremental_sample(density, h, generators(N)).cpu()
            return torch.cat(
                [incremental.incremental_sample(density, h[i : i + 1], [generators(N)[i]]).cpu() for i in range(2)]
            )

    @torch.inference_mode()
    def up_to_ties(self, drawn: Tensor, expected: Tensor) -> Found:
        """Whether each image that differs does so first at a pixel where parameters within TIE draw either."""
        noise, different = self.density.noise(self.context, generators(N)), (drawn != expected).any(dim=1).flatten(1)
        wrong = []
        for i in different.any(dim=1).nonzero()[:, 0].tolist():
            r, c = divmod(int(different[i].int().argmax()), drawn.shape[3])
            params = self.density(expected[i : i + 1], self.context[i : i + 1])[:, :, r : r + 1, c : c + 1]
            near = params + TIE * torch.randn(256, *params.shape[1:]).sign()
            its_noise = noise[i : i + 1, :, r : r + 1, c : c + 1].expand(256, -1, -1, -1)
            draws = self.density.likelihood.sample(near, its_noise, drawn.shape[1])
            if not (draws == drawn[i : i + 1, :, r : r + 1, c : c + 1]).flatten(1).all(dim=1).any():
                wrong.append(f"image {i} at row {r}, column {c}")
        same = len(drawn) - int(different.any(dim=1).sum())
        return f"{same} of {len(drawn)} equal" + (f"; {', '.join(wrong)}" if wrong else ""), "the rest ties", not wrong
