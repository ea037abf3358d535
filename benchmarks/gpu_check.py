"""Is it right on this device? One row for each thing that must hold; the exit status is 1 if one does not.

python -m benchmarks.gpu_check [--sizes mnist cifar] [--device cuda] [--compile] [--json PATH]

What is computed is compared with float64 on a CPU; what only a GPU can do is left out there.
Networks are as data-dependent initialisation leaves them, and images are noise: log-probabilities are lower than those
of any trained model. In training and validation TF32 and bfloat16 are meant, and their errors are only reported.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import product
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.measure import options, report
from benchmarks.sizes import OF_SIZES, SIZES, Size
from benchmarks.trial import PER_SUB_PIXEL, TIE, Found, N, Trial, relative, tf32
from inverters.compiled import Compiled, loss
from inverters.exact_float32 import exact_float32
from inverters.inverter import Inverter
from inverters.likelihoods import Categorical, LogisticMixture
from inverters.mse_decoder import MSEDecoder
from inverters.networks import ConvNet, FullyConnectedNet, NetworkFactory
from inverters.pixelcnn import PixelCNN, incremental
from inverters.preprocessing import unit_interval
from inverters.representation import Representation

Row = dict[str, Any]
REPORTED = "reported"


def row(size: str, what: str, check: Callable[[], Found]) -> Row:
    """What a check found; an error is a row too."""
    try:
        found, bound, holds = check()
    except Exception as error:
        found, bound, holds = f"{type(error).__name__}: {str(error).splitlines()[0][:120]}", "no error", False
    return {"size": size, "what": what, "found": found, "bound": bound, "holds": "yes" if holds else "no"}


def below(value: float, bound: float, unit: str = "") -> Found:
    return f"{value:.1e}{unit}", f"{bound:.1e}{unit}", value <= bound


def of_size(name: str, device: torch.device) -> Iterator[Row]:
    """Numbers and draws of one size."""
    trial = Trial(SIZES[name], device)
    with exact_float32(device):
        params, nats = trial.errors()
    yield row(name, "float32: parameters against float64, relative", lambda: below(params, 1e-5))
    yield row(name, "float32: log-probability of the worst image", lambda: below(nats, trial.bound, " nats"))
    for label, bf16 in (("TF32", False), ("bf16", True)):
        with tf32(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            params, nats = trial.errors()
        text = f"{params:.1e}; {nats:.2g} nats of {-trial.nats.mean():.0f}"
        yield {
            "size": name,
            "what": f"{label}: the same two",
            "found": text,
            "bound": "training only",
            "holds": REPORTED,
        }
    yield row(
        name, "incremental sampler: parameters against the full pass", lambda: below(trial.incremental_error(), TIE)
    )
    yield row(name, "draws against those on a CPU", lambda: trial.up_to_ties(trial.drawn(), trial.drawn(there=False)))
    yield row(
        name, "draws alone against in a batch", lambda: trial.up_to_ties(trial.drawn(alone=True), trial.drawn()[:2])
    )
    if device.type == "cuda":
        yield row(
            name, "draws by CUDA graphs against eager", lambda: trial.up_to_ties(trial.drawn(), eager_draws(trial))
        )


def eager_draws(trial: Trial) -> Tensor:
    with mock.patch.object(incremental, "RowGraphs", lambda draw, device: draw):
        return trial.drawn()


@torch.no_grad()
def sharp_head(device: torch.device) -> Found:
    """bf16 against float32 where the head gives log-scales of -7 and means on levels, as a trained one does."""
    density = PixelCNN((3, 8, 8), (5,), LogisticMixture(), num_filters=8, num_layers=1).eval()
    level = torch.randint(1, 255, (3, 10))  # of every channel and component
    head: Any = density.head
    head.parametrizations.weight.original0.zero_()
    head.bias.copy_(torch.cat((torch.zeros(10), level.flatten() / 127.5 - 1, torch.full((30,), -7.0), torch.zeros(30))))
    component = torch.randint(10, (N, 8, 8))
    image, context = level[:, component].transpose(0, 1).to(torch.uint8), torch.randn(N, 5)
    density, image, context = density.to(device), image.to(device), context.to(device)
    exact = density.log_prob(image, context)
    with torch.autocast(device.type, torch.bfloat16):
        rounded = density.log_prob(image, context)
    return below((rounded - exact).abs().mean().item() * 3072 / image[0].numel(), 1.0, " nats per 3072 sub-pixels")


def h_error(factory: NetworkFactory, layer: str, shape: tuple[int, int, int], device: torch.device) -> Found:
    """h in one batch and one by one, where TF32 and bf16 are on around it, to float64: the worse relative error."""
    representation, image = (
        Representation(factory(shape, 10), layer),
        torch.randint(256, (N, *shape), dtype=torch.uint8),
    )
    expected = representation.double()(image)
    there, x = representation.float().to(device), image.to(device)
    with tf32(), torch.autocast(device.type, torch.bfloat16):
        found = (
            there(x),
            torch.cat([there(part) for part in x.split(1)]),
            torch.cat([there(part) for part in x.split(3)]),
        )
    return below(max(relative(h, expected) for h in found), 1e-5)


def inverter_of(size: Size, device: torch.device) -> Inverter:
    """An inverter of a size, initialised on noise."""
    network = ConvNet if min(size.image_shape[1:]) >= 16 else partial(FullyConnectedNet, num_wide=64)
    density = partial(PixelCNN, likelihood=size.likelihood, num_filters=size.num_filters)
    inverter = Inverter("fc3", size.image_shape, 10, network, density)
    inverter = inverter.to(device).eval()
    images = size.images(64).to(device)  # of fewer, a unit that is hardly ever on has a scale that magnifies roundings
    inverter.initialise([images], images[:N])
    return inverter


def nats_whatever_the_batch(size: Size, device: torch.device) -> Found:
    """The test's log-probabilities in one batch and one by one, in a run with TF32 and bf16: the worst image."""
    inverter, image = inverter_of(size, device), size.images(N).to(device)
    with tf32(), torch.autocast(device.type, torch.bfloat16):
        together = inverter.test_step({"image": image}, 0)["log_prob"]
        parts = [torch.cat([inverter.test_step({"image": p}, 0)["log_prob"] for p in image.split(n)]) for n in (1, 3)]
    worst = max((found - together).abs().max().item() for found in parts)
    return below(worst, max(1e-4, PER_SUB_PIXEL * image[0].numel()), " nats")  # h rounds too, whatever the image's size


@contextmanager
def little_memory(gib: float) -> Iterator[None]:
    """So much more of a GPU's memory than is taken, and an OutOfMemoryError beyond."""
    torch.cuda.empty_cache()
    _, total = torch.cuda.mem_get_info()
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + gib * 2**30) / total)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def evaluation_out_of_memory(size: Size, device: torch.device) -> Found:
    """More images at once than fit."""
    inverter, many = inverter_of(size, device), size.images(8000).to(device)
    few = inverter.log_prob_in_parts({"image": many[:N]})
    with little_memory(gib=2):
        found = inverter.log_prob_in_parts({"image": many})
    worst, bound = (found[:N] - few).abs().max().item(), PER_SUB_PIXEL * many[0].numel()
    text = f"parts of {inverter.evaluated.largest}; {worst:.1e} nats"
    return (
        text,
        f"parts of less than {len(many)}; {bound:.1e} nats",
        inverter.evaluated.largest < len(many) and worst <= bound,
    )


def sampling_out_of_memory(size: Size, device: torch.device) -> Found:
    """More draws at once than fit."""
    inverter, image = inverter_of(size, device), size.images(1).to(device)
    inverter.sample_batch_size = 8000
    with little_memory(gib=2):
        drawn = inverter.draws(image, [0], num_draws=8000)
    largest = inverter.drawn.largest
    return f"{drawn.shape[1]} in batches of {largest}", "8000, of less", drawn.shape[1] == 8000 > largest


@contextmanager
def deterministic() -> Iterator[None]:
    """What `--trainer.deterministic true` sets."""
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def same_twice(make: Callable[[], nn.Module], loss: Callable[[nn.Module], Tensor], device: torch.device) -> Found:
    """Whether two steps of training give the same weights, bit for bit, from the same start."""

    def trained() -> dict[str, Tensor]:
        torch.manual_seed(0)
        module = make().to(device).train()
        optimizer = torch.optim.Adam(module.parameters())
        for _ in range(2):
            optimizer.zero_grad()
            loss(module).backward()
            optimizer.step()
        return module.state_dict()

    with deterministic():
        first, second = trained(), trained()
    different = [name for name, value in first.items() if not torch.equal(value, second[name])]
    return f"{len(different)} of {len(first)} tensors differ", "0", not different


def deterministic_rows(device: torch.device) -> Iterator[Row]:
    """A training step of every network and every generator, twice."""
    shape = (3, 16, 16)
    image, label = torch.randint(256, (N, *shape), dtype=torch.uint8, device=device), torch.arange(N, device=device)

    def cross_entropy(network: nn.Module) -> Tensor:
        return F.cross_entropy(network(unit_interval(image, network)), label)

    networks: dict[str, NetworkFactory] = {
        "ConvNet": ConvNet,
        "ConvNet with global pooling": partial(ConvNet, global_pooling=True),
        "ConvNet with batch norm and residuals": partial(ConvNet, batch_norm=True, residual=True, activation=nn.ELU),
        "FullyConnectedNet": partial(FullyConnectedNet, num_wide=64),
    }
    for name, factory in networks.items():
        check = partial(same_twice, partial(factory, shape, 10), cross_entropy, device)
        yield row("", f"deterministic: {name}", check)

    for likelihood, context_shape in product((Categorical(), LogisticMixture()), ((5,), (3, 5, 5), (2, 20, 20), (0,))):
        channels = 1 if isinstance(likelihood, Categorical) else 3
        make = partial(
            PixelCNN, (channels, 16, 16), context_shape, likelihood, num_filters=8, num_layers=1, context_dropout=0.2
        )
        check = partial(same_twice, make, of_generator(image[:, :channels], context_shape), device)
        h = "x".join(map(str, context_shape))
        yield row("", f"deterministic: PixelCNN, {type(likelihood).__name__}, h {h}", check)
    for context_shape in ((5,), (32, 6, 6)):
        check = partial(
            same_twice, partial(MSEDecoder, shape, context_shape), of_generator(image, context_shape), device
        )
        yield row("", f"deterministic: MSEDecoder, h {'x'.join(map(str, context_shape))}", check)


def of_generator(image: Tensor, context_shape: tuple[int, ...]) -> Callable[[Any], Tensor]:
    context = torch.randn(len(image), *context_shape, device=image.device)
    return lambda generator: generator.loss(image, context).mean()


def gradients(
    of: Callable[[Tensor, Tensor], Tensor], density: PixelCNN, image: Tensor, context: Tensor, bf16: bool
) -> tuple[Tensor, Tensor]:
    """The loss, and its gradient as one vector."""
    density.zero_grad()
    with torch.autocast(image.device.type, torch.bfloat16, enabled=bf16):
        value = of(image, context).mean()
    value.backward()
    return value.detach(), torch.cat([p.grad.flatten() for p in density.parameters() if p.grad is not None])


def compiled_rows(name: str, device: torch.device) -> Iterator[Row]:
    """A compiled step beside the eager one, without dropout, whose noise is another."""
    trial = Trial(SIZES[name], device)
    density = trial.there.train().requires_grad_(True)
    module: Any
    for module in density.modules():
        if hasattr(module, "dropout"):
            module.dropout = 0.0
    compiled_loss = Compiled(loss, device.type)

    def compiled(image: Tensor, context: Tensor) -> Tensor:
        return compiled_loss(density, image, context)["loss"]

    def both(bf16: bool) -> Iterator[tuple[Tensor, Tensor]]:
        """The compiled step's, of the third call, which is a replay of a CUDA graph with other images; the eager."""
        for images in (trial.x.flip(0), 255 - trial.x):
            gradients(compiled, density, images, trial.h, bf16)
        for of in (compiled, density.loss):
            yield gradients(of, density, trial.x, trial.h, bf16)

    def fp32() -> Found:
        with exact_float32(device):
            (value, grad), (expected, wanted) = both(bf16=False)
        return below(max(relative(value, expected), relative(grad, wanted)), 1e-4)

    def bf16() -> Found:
        with exact_float32(device):
            _, exact = gradients(density.loss, density, trial.x, trial.h, bf16=False)
            errors = [relative(gradient, exact) for _, gradient in both(bf16=True)]
        return below(errors[0], 1.2 * errors[1])

    yield row(name, "compiled: loss and gradient in float32 against eager, relative", fp32)
    yield row(name, "compiled: gradient in bf16 against float32; at most 1.2 times eager's", bf16)


def rows(sizes: list[str], device: torch.device, compiled: bool) -> Iterator[Row]:
    for name in sizes:
        yield from of_size(name, device)
        yield row(
            name, "test: log-probability, whatever the batch", partial(nats_whatever_the_batch, SIZES[name], device)
        )
        if device.type == "cuda":
            yield row(name, "evaluation beyond the memory", partial(evaluation_out_of_memory, SIZES[name], device))
            yield row(name, "sampling beyond the memory", partial(sampling_out_of_memory, SIZES[name], device))
        if compiled:
            yield from compiled_rows(name, device)
    yield row("", "bf16, log-scales -7: log-probability against float32", partial(sharp_head, device))
    for factory, shape, layers in (
        (ConvNet, (1, 28, 28), ("conv1", "conv2", "fc3", "logits")),
        (partial(ConvNet, filters=(64, 128)), (3, 32, 32), ("conv1", "logits")),
        (FullyConnectedNet, (1, 40, 40), ("logits",)),
    ):
        for layer in layers:
            check = partial(h_error, factory, layer, shape, device)
            yield row(
                "", f"h of {layer}, {'x'.join(map(str, shape))}: against float64, whatever the batch, relative", check
            )
    yield from deterministic_rows(device)


def main() -> None:
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # before the first product, or deterministic ones fail
    given = options(__doc__, sizes=OF_SIZES, compile={"action": "store_true", "help": "on a CPU too: minutes"})
    table = list(rows(given.sizes, given.device, given.compile or given.device.type == "cuda"))
    report("what must hold", table, given)
    if wrong := [found["what"] for found in table if found["holds"] == "no"]:
        sys.exit(f"{len(wrong)} do not hold: {'; '.join(wrong)}")


if __name__ == "__main__":
    main()
