"""What the processes of a run share, and what they agree on."""

import os
from collections.abc import Callable
from typing import Any, Protocol

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments import SLURMEnvironment
from pytorch_lightning.strategies import ParallelStrategy
from torch import Tensor

from runtime.lightning import say_before_killing
from runtime.starter import STARTER, done


def part_of_process(trainer: pl.Trainer, values: Any) -> Any:
    """Every world_size-th value, from this process's rank on, as the samplers give the images."""
    return values[trainer.global_rank :: trainer.world_size]


def gathered(trainer: pl.Trainer, value: Any) -> list[Any]:
    """The value of every process, in the order of their ranks, on every process."""
    if trainer.world_size == 1:
        return [value]
    everyone: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(everyone, value)
    return everyone


def in_order(trainer: pl.Trainer, mine: Tensor) -> Tensor:
    """The rows of all processes, on the CPU of each, in the order of what `part_of_process` took them from."""
    parts = gathered(trainer, mine.cpu())
    rows = torch.empty((sum(map(len, parts)), *mine.shape[1:]), dtype=mine.dtype)
    for rank, part in enumerate(parts):
        rows[rank :: trainer.world_size] = part
    return rows


class Highest:
    """The highest number of all processes, which must make this, and ask it, at the same moments.

    On the CPU, over gloo: over NCCL, and in Lightning's own, all would wait for their GPUs.
    """

    def __init__(self) -> None:
        gloo = torch.distributed.get_backend() == "gloo"
        self.group: Any = None if gloo else torch.distributed.new_group(backend="gloo")

    def of_all(self, number: int) -> int:
        found = torch.tensor(number)
        torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MAX, self.group)
        return int(found)


class Draw(Protocol):
    """`Inverter.draws` or `Inverter.shown`."""

    def __call__(self, image: Tensor, index: list[int], num_draws: int, seed: int = 0) -> Tensor: ...


def shared_draws(
    trainer: pl.Trainer, draw: Draw, image: Tensor, index: list[int], num_draws: int, seed: int = 0
) -> Tensor:
    """What `draw` gives for all images, on the CPU of every process, each of which draws for its part of them."""
    mine = part_of_process(trainer, image).to(trainer.strategy.root_device)
    with torch.random.fork_rng(devices=[]):  # a draw has a generator of its own; so that nobody notices
        return in_order(trainer, draw(mine, part_of_process(trainer, index), num_draws, seed))


def in_all_processes(trainer: pl.Trainer, work: Callable[[], None]) -> None:
    """Do something in every process, as Lightning does its own verbs; those that it starts run the same command.

    They are in one process group when the work begins, and stay in it for verbs of Lightning's that the work calls.
    """
    strategy = trainer.strategy
    if isinstance(strategy, ParallelStrategy) and strategy.launcher is not None:

        def joined() -> None:
            os.environ.pop(STARTER, None)  # they have been started
            strategy.setup_environment()
            work()

        say_before_killing()
        os.environ[STARTER] = str(os.getpid())  # for those that it starts
        try:
            strategy.launcher.launch(joined, trainer=trainer)
        finally:
            done.set()
    else:
        work()


def check_started(trainer: pl.Trainer) -> None:
    """Raises ValueError where a launcher has started another number of processes than a run has.

    Each would take itself for the only one, and there would be as many runs.
    """
    launchers = (
        ("torchrun", "TORCHELASTIC_RUN_ID", "WORLD_SIZE", "LOCAL_WORLD_SIZE"),
        ("srun", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_NUM_NODES"),
    )
    for launcher, sign, of_all, other in launchers:
        # In a shell on a node, which is a step of one task, Lightning starts the processes by itself.
        if sign not in os.environ or (launcher == "srun" and SLURMEnvironment.job_name() in ("bash", "interactive")):
            continue
        processes, number = int(os.environ[of_all]), int(os.environ.get(other, 1))
        nodes = number if launcher == "srun" else processes // number
        if processes != trainer.num_devices * trainer.num_nodes:
            more = f" and --trainer.num_nodes {nodes}" if nodes > 1 else ""
            raise ValueError(
                f"{launcher} has started {processes} processes on {nodes} node{'s' if nodes > 1 else ''}, and this run "
                f"is of {trainer.num_devices} on {trainer.num_nodes}; give --trainer.devices {processes // nodes}{more}"
            )


def one_process_environment() -> dict[str, str]:
    """The environment without what launchers of several processes set, for a command that is to run alone."""
    launchers = ("SLURM_", "TORCHELASTIC_", "PMI", "OMPI_")
    names = {"RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE"}
    names |= {"ROLE_WORLD_SIZE", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT"}
    names |= {"WANDB_SWEEP_ID", "WANDB_RUN_ID", STARTER}  # its run is not the sweep's
    return {k: v for k, v in os.environ.items() if k not in names and not k.startswith(launchers)}
