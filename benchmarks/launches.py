"""How many operations does a training step give the device to do? Each is a launch, and its time on the CPU.

python -m benchmarks.launches [--device cpu] [--json PATH]

Counted is every operation that torch dispatches below autograd and autocast (so a cast is one of its own) and that
computes: no view, and no `empty`. One is at least one kernel; a convolution of cuDNN is several. The number is a
theorem on the graph and depends on neither image size, batch nor filters, so it is counted on a tiny image: the
published depth, h a vector, dropout on, gradients that begin as None. Forward and backward are 1544 + 856 of it in
float32 at commit 9bee982, and 1885 + 1154 in bfloat16.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.measure import options, report
from benchmarks.sizes import SIZES, Size


class _Launches(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        aliases = [value.alias_info for value in func._schema.returns if value.alias_info is not None]
        # What is written in place is an alias too; _unsafe_view does not say that it is one.
        is_view = any(not alias.is_write for alias in aliases) or name == "_unsafe_view"
        if not is_view and "empty" not in name:
            self.count[name] += 1
        return func(*args, **(kwargs or {}))


def launches(step: Callable[[], Any]) -> dict[str, int]:
    """How often a call gives the device each operation, the most frequent first; their sum is the launches."""
    with _Launches() as mode:
        step()
    return dict(mode.count.most_common())


def parts_of_step(size: Size, device: torch.device, bf16: bool) -> dict[str, dict[str, int]]:
    """`launches` of forward, backward and Adam's step of a density with a vector as h, in training."""
    size = replace(size, image_shape=(size.image_shape[0], 8, 8), num_filters=8, training_batch=2)
    density = size.density(context_size=5, dropout=0.5).to(device).train()
    image, context = size.images(2).to(device), torch.randn(2, 5, device=device)
    optimizer = torch.optim.Adam(density.parameters(), fused=True)
    losses = []

    def forward() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            losses.append(density.loss(image, context).mean())

    result = {"forward": launches(forward), "backward": launches(lambda: losses[0].backward())}
    optimizer.step()  # makes its state
    return {**result, "optimiser": launches(optimizer.step)}


def rows(device: torch.device) -> list[dict[str, Any]]:
    result = []
    for name in ("mnist", "cifar"):
        for bf16 in (False, True):
            parts = parts_of_step(SIZES[name], device, bf16)
            counts = {part: sum(found.values()) for part, found in parts.items()}
            every: Counter[str] = sum((Counter(found) for found in parts.values()), Counter())
            result.append(
                {
                    "likelihood": type(SIZES[name].likelihood).__name__,
                    "precision": "bf16" if bf16 else "fp32",
                    **counts,
                    "all": sum(counts.values()),
                    "most frequent": ", ".join(f"{op} {n}" for op, n in every.most_common(8)),
                }
            )
    return result


def main() -> None:
    given = options(__doc__)
    report("operations of a training step", rows(given.device), given)


if __name__ == "__main__":
    main()
