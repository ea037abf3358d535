"""How much faster are several processes than one, with the same global batch?

python -m benchmarks.scaling [--config CONFIG ...] [--processes 2] [--json PATH]

The efficiency is time of one process / (processes x time of all), on the wall. On a CPU every process has one thread,
with GPUs each has one.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from benchmarks.cost import configured
from benchmarks.measure import options, ratio, report, seconds, training_step


def measure(rank: int, world: int, folder: str, config: str, repeats: int, cuda: bool) -> None:
    """One of the processes: by turns the first alone with the global batch, and all with their shares of it."""
    device = torch.device("cuda", rank) if cuda else torch.device("cpu")
    torch.set_num_threads(1)
    distributed.init_process_group("nccl" if cuda else "gloo", f"file://{folder}/store", rank=rank, world_size=world)
    made, image = configured(config, device)
    alone, optimizer = made.model, made.model.optimizer()
    alone.forward = lambda image: alone.training_step({"image": image}, 0)["loss"]  # DDP listens to forward passes
    together = DistributedDataParallel(alone, device_ids=[rank] if cuda else None)

    whole = training_step(lambda: alone(image), optimizer)
    share = training_step(lambda: together(image[rank::world]), optimizer)

    one, every = [], []
    for _ in range(repeats + 1):
        if rank == 0:
            one.append(seconds(whole, device, wall=True))
        distributed.barrier()
        every.append(seconds(share, device, wall=True))
        distributed.barrier()
    one, every = one[1:], every[1:]  # the first warms up
    if rank == 0:
        found = {
            "config": config.removesuffix(".yaml"),
            "processes": world,
            "global batch": len(image),
            "one, images/s": round(len(image) / min(one), 1),
            "all, images/s": round(len(image) / min(every), 1),
            "efficiency": ratio(one, every, 1 / world),
        }
        Path(folder, "row.json").write_text(json.dumps(found))
    distributed.destroy_process_group()


def row(config: str, world: int, repeats: int, cuda: bool) -> dict[str, Any]:
    """What the processes measured."""
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(measure, (world, folder, config, repeats, cuda), nprocs=world)
        return dict(json.loads(Path(folder, "row.json").read_text()))


def main() -> None:
    given = options(
        __doc__, config={"nargs": "+", "default": ["inverter_mnist5k_fc3.yaml"]}, processes={"type": int, "default": 2}
    )
    cuda = given.device.type == "cuda"
    report("Several processes", [row(name, given.processes, given.repeats, cuda) for name in given.config], given)


if __name__ == "__main__":
    main()
