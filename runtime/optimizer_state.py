"""What an optimiser keeps between its steps, and what of it a resumed run may take from a checkpoint."""

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

OF_SCHEDULERS = {
    "gamma": "lr_decay",
    "cooldown": "cooldown",
    "num_steps": "max_steps",
}  # how the command line calls them


class Configured:
    """An optimiser as the command line wants it, looked at before a checkpoint's state goes into it.

    Args:
        optimizer: That has made no step.
        schedulers: Of its learning rate.
    """

    def __init__(self, optimizer: Optimizer, schedulers: list[LRScheduler]) -> None:
        self.optimizer, self.schedulers = optimizer, schedulers
        self.groups = [{key: group[key] for key in group if key != "params"} for group in optimizer.param_groups]
        self.courses = [{key: getattr(s, key) for key in OF_SCHEDULERS if hasattr(s, key)} for s in schedulers]
        # A copy makes a step, and has then a state of the right form, whatever the optimiser is.
        twin = copy.deepcopy(optimizer)
        parameters = [p for group in twin.param_groups for p in group["params"]]
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)
        twin.step(lambda: 0.0)
        self.forms = [{key: _form(value) for key, value in twin.state[p].items()} for p in parameters]

    def check_groups(self, saved: Any) -> None:
        """Raises ValueError where a saved state is of an optimiser with Muon and this is one without, or vice versa."""
        groups = saved.get("param_groups") if isinstance(saved, dict) else None
        if not isinstance(groups, list) or not all(isinstance(group, dict) for group in groups):
            return  # whoever loads it says so
        ours, theirs = ([g for g in those if g.get("argument") == "muon"] for those in (self.groups, groups))
        if len(ours) != len(theirs):
            share = theirs[0].get("initial_lr") if theirs else "null"
            raise ValueError(f"it was trained with --model.muon {share}: give that, or its run's own config.yaml")

    def check(self, names: Mapping[Tensor, str]) -> None:
        """Look at the state that was loaded, and give every tensor in it memory of its own.

        Args:
            names: Of the parameters.

        Raises:
            ValueError: A step with it would compute something else, or work outside of a tensor.
        """
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        for parameter, form in zip(parameters, self.forms, strict=True):
            state = self.optimizer.state.get(parameter)  # one without a gradient has none
            if state is None:
                continue
            for key, wanted in form.items():
                found = _form(state.get(key))
                if found != wanted:
                    raise ValueError(f"its optimiser's {key} of {names[parameter]} is {found} where {wanted} is needed")
            for key, value in state.items():
                if isinstance(value, Tensor):
                    if not value.isfinite().all():
                        raise ValueError(f"its optimiser's {key} of {names[parameter]} is NaN or infinite")
                    state[key] = value.clone()  # which is dense, whatever its strides were
        for group in self.optimizer.param_groups:
            for key in ("lr", *(["initial_lr"] if self.schedulers else [])):
                if not isinstance(group.get(key), float | int) or not 0 <= group[key] < math.inf:
                    raise ValueError(f"its optimiser's {key} is {group.get(key)!r}")

    def check_complete(self, names: Mapping[Tensor, str]) -> None:
        """Raises ValueError where a parameter has a gradient, before the first step, and no state of earlier steps."""
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        for parameter, form in zip(parameters, self.forms, strict=True):
            if form and parameter.grad is not None and parameter not in self.optimizer.state:
                raise ValueError(f"its optimiser knows nothing of {names[parameter]}")

    def apply(self) -> list[str]:
        """Let the command line decide all but the state; what it changes, for people.

        A learning rate that decays has decayed, and another one is used with the decay so far.
        """
        said = {}
        for group, wanted in zip(self.optimizer.param_groups, self.groups, strict=True):
            for key, value in wanted.items():
                if key == "lr" and "initial_lr" in wanted:
                    continue
                before = group.get(key)
                if before == value:
                    continue
                if key == "initial_lr":
                    group["lr"] = value * (group["lr"] / before if before else 1.0)
                group[key] = value
                said[wanted.get("argument", "lr") if key == "initial_lr" else key] = f"{value}, not {before}"
        scheduler: Any  # of which some have a course that can be changed
        for scheduler, course in zip(self.schedulers, self.courses, strict=True):
            scheduler.base_lrs = [group["initial_lr"] for group in self.groups]
            before = {key: getattr(scheduler, key) for key in course}
            for key, value in course.items():
                setattr(scheduler, key, value)
                if value != before[key] and (key != "num_steps" or (value and before[key])):  # 0 without a cooldown
                    said[OF_SCHEDULERS[key]] = f"{value}, not {before[key]}"
            if any(before[key] != course[key] for key in ("cooldown", "num_steps") if key in course):
                for group, lr in zip(self.optimizer.param_groups, scheduler.closed_form(), strict=True):
                    group["lr"] = lr
        return [f"{key} {change}" for key, change in said.items()]


def _form(value: Any) -> str:
    """Of a tensor its shape and whether it counts in fractions, of anything else its type: for comparison."""
    if isinstance(value, Tensor):
        return f"{list(value.shape)}{'' if value.is_floating_point() else f' {value.dtype}'}"
    return "missing" if value is None else type(value).__name__
