"""Work that the processes of a run share, and what they must agree on."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import ParallelStrategy
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import Tensor

from inverters.inverter import Inverter


def share(trainer: pl.Trainer, values: Any) -> Any:
    """This process's part: every world_size-th value, as the samplers give the images."""
    return values[trainer.global_rank :: trainer.world_size]


def gathered(trainer: pl.Trainer, value: Any) -> list[Any]:
    """The value of every process, in the order of their ranks, on every process."""
    if trainer.world_size == 1:
        return [value]
    everyone: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(everyone, value)
    return everyone


def in_order(trainer: pl.Trainer, mine: Tensor) -> Tensor:
    """The rows of all processes, in the order of what `share` took them from; on the CPU, on every process."""
    parts = gathered(trainer, mine.cpu())
    rows = torch.empty((sum(map(len, parts)), *mine.shape[1:]), dtype=mine.dtype)
    for rank, part in enumerate(parts):
        rows[rank :: trainer.world_size] = part
    return rows


def shared_draws(
    trainer: pl.Trainer, inverter: Inverter, image: Tensor, index: Sequence[int], num_draws: int, seed: int = 0
) -> Tensor:
    """What `Inverter.draws` gives, on the CPU of every process, each of which draws for its share of the images."""
    mine = share(trainer, image).to(inverter.device)
    with torch.random.fork_rng(devices=[]):  # a draw has a generator of its own; so that nobody notices
        return in_order(trainer, inverter.draws(mine, share(trainer, index), num_draws, seed))


def in_all_processes(trainer: pl.Trainer, work: Callable[[], None]) -> None:
    """Do something in every process, as Lightning does its own verbs; those that it starts run the same command."""
    strategy = trainer.strategy
    if isinstance(strategy, ParallelStrategy) and strategy.launcher is not None:

        def joined() -> None:
            strategy.setup_environment()
            work()

        strategy.launcher.launch(joined, trainer=trainer)
    else:
        work()


def of_first_process(value: Any, options: dict[str, Any]) -> Any:
    """What the first of the processes that torchrun or SLURM started, all at the same moment, has for this value.

    Where Lightning starts the others, it does so later: the value is returned as it is.

    Args:
        value: Of this process; of the first one it is taken.
        options: Lightning's accelerator, devices, num_nodes and strategy.

    Raises:
        ValueError: Lightning cannot make a trainer of these.
    """
    try:
        trainer = pl.Trainer(
            **options, logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False
        )
    except (TypeError, ValueError, MisconfigurationException) as error:
        given = ", ".join(f"trainer.{key} {value}" for key, value in options.items())
        raise ValueError(f"these processes cannot be had ({error}); change one of {given}") from error
    strategy = trainer.strategy
    if not isinstance(strategy, ParallelStrategy) or trainer.world_size == 1:
        return value
    assert strategy.cluster_environment is not None
    if strategy.cluster_environment.creates_processes_externally:
        strategy.setup_environment()  # joins the process group; the run's own trainer finds it and stays in it
        value = strategy.broadcast(value)
    return value


def one_process_environment() -> dict[str, str]:
    """The environment without what launchers of several processes set, for a command that is to run alone."""
    launchers = ("SLURM_", "TORCHELASTIC_", "PMI", "OMPI_")
    names = {"RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE"}
    names |= {"ROLE_WORLD_SIZE", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT"}
    names |= {"WANDB_SWEEP_ID", "WANDB_RUN_ID"}  # its run is not the sweep's
    return {k: v for k, v in os.environ.items() if k not in names and not k.startswith(launchers)}
