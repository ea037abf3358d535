"""How much faster are several processes than one, with the same global batch?

python -m benchmarks.scaling [--config CONFIG ...] [--processes 2] [--json PATH]

The efficiency is time of one process / (processes x time of all), on the wall. On a CPU every process has one thread,
with GPUs each has one.
"""

import os
import socket
import time
from typing import Any

import torch
import torch.multiprocessing
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from benchmarks.cost import configured
from benchmarks.measure import parser, ratio, report
from inverters.inverter import Inverter
from runtime.cost import synchronise


class Loss(torch.nn.Module):
    """The training step as a forward pass, which is what DDP listens to."""

    def __init__(self, inverter: Inverter) -> None:
        super().__init__()
        self.inverter = inverter

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        loss: torch.Tensor = self.inverter.training_step({"image": image}, 0)["loss"]
        return loss


def measure(rank: int, world: int, port: int, config: str, repeats: int, cuda: bool, answers: Any) -> None:
    """One of the processes: by turns the first alone with the global batch, and all with their shares of it."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    device = torch.device("cuda", rank) if cuda else torch.device("cpu")
    torch.set_num_threads(1)
    distributed.init_process_group("nccl" if cuda else "gloo", rank=rank, world_size=world)
    made = configured(config)
    alone = Loss(made.model.to(device).train())
    together = DistributedDataParallel(alone, device_ids=[rank] if cuda else None)
    optimizer = made.model.configure_optimizers()["optimizer"]
    batch = made.datamodule.batch_size
    image = torch.randint(256, (batch, *made.datamodule.image_shape), dtype=torch.uint8, device=device)

    def seconds(model: torch.nn.Module, images: torch.Tensor) -> float:
        """Of a step."""
        start = time.perf_counter()
        optimizer.zero_grad()
        model(images).backward()
        optimizer.step()
        synchronise(device)
        return time.perf_counter() - start

    times: dict[str, list[float]] = {"one": [], "all": []}
    for repeat in range(repeats + 1):  # the first warms up
        if rank == 0:
            times["one"].append(seconds(alone, image))
        distributed.barrier()
        times["all"].append(seconds(together, image[rank::world]))
        distributed.barrier()
        if repeat == 0:
            times = {"one": [], "all": []}
    if rank == 0:
        answers.put(
            {
                "config": config.removesuffix(".yaml"),
                "processes": world,
                "global batch": batch,
                "one, images/s": round(batch / min(times["one"]), 1),
                "all, images/s": round(batch / min(times["all"]), 1),
                "efficiency": ratio(times["one"], times["all"], 1 / world),
            }
        )
    distributed.destroy_process_group()


def row(config: str, world: int, repeats: int, cuda: bool) -> dict[str, Any]:
    """What the processes measured."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    answers: Any = torch.multiprocessing.get_context("spawn").SimpleQueue()
    torch.multiprocessing.spawn(measure, (world, port, config, repeats, cuda, answers), nprocs=world)
    found: dict[str, Any] = answers.get()
    return found


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--config", nargs="+", default=["inverter_mnist5k_fc3.yaml"])
    arguments.add_argument("--processes", type=int, default=2)
    given = arguments.parse_args()
    cuda = torch.device(given.device).type == "cuda"
    report("Several processes", [row(name, given.processes, given.repeats, cuda) for name in given.config], given)


if __name__ == "__main__":
    main()
