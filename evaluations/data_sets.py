"""Tested runs in groups: the inverters of one data set, and those of a classifier's training."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from evaluations.runs import Run

OVER_TRAINING = ("_updates", "_overfitted")  # how the names of the classifiers of fig 5b end


@dataclass
class DataSet:
    """The inverters of one data set, from the input to the output, all tested on the same images.

    Attributes:
        name: As results give it.
        inverters: By layer; where there are several networks, by layer and network; a second of the same, by folder.
        decoders: Likewise, those trained by squared error.
        unconditional: The model of p(x), where there is one.
        left_out: Names of runs that were tested on other images.
    """

    name: str
    inverters: dict[str, Run] = field(default_factory=dict)
    decoders: dict[str, Run] = field(default_factory=dict)
    unconditional: Run | None = None
    left_out: list[str] = field(default_factory=list)

    @property
    def one_network(self) -> bool:
        """Whether every layer is a function of the one before it."""
        return len({run.row["classifier"] for run in self.inverters.values()}) == 1


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


def data_sets(runs: Iterable[Run]) -> list[DataSet]:
    """The inverters by data set, without exactly known worlds and without those of fig 5b.

    What was tested on other images than most inverters of its data set is left out, for differences are paired.
    """
    chosen = [run for run in runs if run.row.get("kind") == "inverter" and "passes" not in run.row]
    chosen = [run for run in chosen if not str(run.row["classifier"]).endswith(OVER_TRAINING)]
    groups: dict[str, list[Run]] = {}
    for run in sorted(chosen, key=lambda run: (run.row["depth"] or 0, str(run.row["classifier"]), run.row["name"])):
        groups.setdefault(run.row["dataset"], []).append(run)
    return [_data_set(name, members) for name, members in sorted(groups.items())]


def _data_set(name: str, runs: list[Run]) -> DataSet:
    indices = [image_index(run) for run in runs]
    votes = [sum(np.array_equal(index, other) for other in indices) for index in indices]
    usual = indices[votes.index(max(votes))]
    networks = {run.row["classifier"]: run.row["network"] for run in runs if run.row["layer"]}
    group = DataSet(name)
    for run, index in zip(runs, indices, strict=True):
        if not np.array_equal(index, usual):
            group.left_out.append(run.row["name"])
        elif run.row["layer"] is None:
            group.unconditional = run
        else:
            kind = group.decoders if run.row["density"] == "MSEDecoder" else group.inverters
            layer = run.row["layer"]
            label = layer if len(networks) == 1 else f"{layer} of {run.row['network']}"
            kind[str(run.folder) if label in kind else label] = run
    return group


def over_training(runs: Iterable[Run]) -> dict[str, dict[str, dict[str, dict[int, tuple[float, float]]]]]:
    """NCE and its standard error, nats, by data set, kind of training, layer and number of the classifier's updates."""
    found: dict[str, dict[str, dict[str, dict[int, tuple[float, float]]]]] = {}
    for run in sorted(runs, key=lambda run: run.row.get("depth") or 0):
        row = run.row
        if row.get("kind") != "inverter" or row["density"] == "MSEDecoder":
            continue
        if str(row["classifier"]).endswith(OVER_TRAINING):
            kind = "overfitted" if row["classifier"].endswith("_overfitted") else "regular"
            points = found.setdefault(row["dataset"], {}).setdefault(kind, {}).setdefault(row["layer"], {})
            points[row["classifier_updates"]] = (row["nce_nats"], row["nce_nats_se"])
    return {name: dict(sorted(kinds.items(), reverse=True)) for name, kinds in found.items()}  # regular first
