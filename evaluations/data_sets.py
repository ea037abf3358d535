"""Tested runs in groups: the inverters of one data set."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evaluations.information import Estimate, paired_difference
from evaluations.runs import Run

OVER_TRAINING = ("_updates", "_overfitted")  # how the names of the classifiers of fig 5b end


@dataclass
class DataSet:
    """The inverters of one data set, from the input to the output, all tested on the same images.

    Attributes:
        name: As results give it.
        inverters: By layer; where there are several networks, by layer and network, or the name of its config.
        decoders: Likewise, those trained by squared error.
        unconditional: The model of p(x), where there is one.
        others: Further runs of what has a place above, as those of a sweep, each with the run that has it.
        left_out: Names of runs that were tested on other images.
    """

    name: str
    inverters: dict[str, Run] = field(default_factory=dict)
    decoders: dict[str, Run] = field(default_factory=dict)
    unconditional: Run | None = None
    others: list[tuple[Run, Run]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    @property
    def classifiers(self) -> set[str]:
        """The names of those whose layers are inverted."""
        return {run.row["classifier"] for run in self.inverters.values()}

    @property
    def digests(self) -> set[str]:
        """Of their weights."""
        return {run.row["network_digest"] for run in self.inverters.values()}

    @property
    def one_network(self) -> bool:
        """Whether every layer is a function of the one before it: of the same network, with the same weights."""
        return len(self.digests) == 1


def image_index(run: Run) -> np.ndarray:
    """The test images' indices in their data set, [N]. Raises ValueError where they are missing."""
    index = run.array("index")
    if index is None:
        raise ValueError(f"{run.folder} has no index.npy; test it again")
    return index


def log_prob(run: Run) -> Tensor:
    """log p(x | h) of every test image, float64 [N] nats. Raises ValueError where it is missing."""
    values = run.array("log_prob")
    if values is None:
        raise ValueError(f"{run.folder} has no log_prob.npy; test it again")
    return torch.from_numpy(values).double()


def nce_difference(run: Run, less: Run) -> Estimate | None:
    """NCE of one run less another's, paired, nats; None where they were tested on different images."""
    if not np.array_equal(image_index(run), image_index(less)):
        return None
    return paired_difference(log_prob(run), log_prob(less))


def data_sets(runs: Iterable[Run]) -> list[DataSet]:
    """The inverters by data set, without exactly known worlds and without those of fig 5b.

    What was tested on other images than most inverters of its data set is left out, for differences are paired. Of
    several runs of the same, as in a sweep, the one in the outermost folder comes first.
    """
    chosen = [run for run in runs if run.row.get("kind") == "inverter" and "passes" not in run.row]
    chosen = [run for run in chosen if not str(run.row["classifier"]).endswith(OVER_TRAINING)]
    groups: dict[str, list[Run]] = {}
    for run in sorted(chosen, key=place):
        groups.setdefault(run.row["dataset"], []).append(run)
    return [_data_set(name, members) for name, members in sorted(groups.items())]


def place(run: Run) -> tuple[Any, ...]:
    """What runs are sorted by: from the input to the output, the outermost folder first."""
    row = run.row
    return row["depth"] or 0, str(row["classifier"]), len(run.folder.parts), row["name"], str(run.folder)


def _data_set(name: str, runs: list[Run]) -> DataSet:
    indices = [image_index(run) for run in runs]
    votes = [sum(np.array_equal(index, other) for other in indices) for index in indices]
    usual = indices[votes.index(max(votes))]
    networks = {run.row["classifier"]: run.row["network"] for run in runs if run.row["layer"]}
    different = len(set(networks.values())) == len(networks)
    group = DataSet(name)
    for run, index in zip(runs, indices, strict=True):
        layer = run.row["layer"]
        if not np.array_equal(index, usual):
            group.left_out.append(run.row["name"])
        elif layer is None:
            group.unconditional = group.unconditional or run
            if run is not group.unconditional:
                group.others.append((run, group.unconditional))
        else:
            kind = group.decoders if run.row["density"] == "MSEDecoder" else group.inverters
            network = run.row["network"] if different else run.row["classifier"]
            label = layer if len(networks) == 1 else f"{layer} of {network}"
            first = kind.setdefault(label, run)
            if run is not first:
                group.others.append((run, first))
    return group
