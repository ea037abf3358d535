"""How weights move: Adam, Muon where a weight is a direction, and how the learning rates end."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam
from torch.optim.lr_scheduler import ExponentialLR

MOMENTUM = 0.95
QUINTIC = (3.4445, -4.7750, 2.0315)  # Jordan et al. 2024


def orthogonal(matrices: Tensor) -> Tensor:
    """About U V^T of U S V^T, [N, R, C], and zeros of zeros.

    Singular values of more than about 0.2 % of the Frobenius norm become such between 0.7 and 1.2. Smaller ones grow
    by up to 3.4445^5 = 485, the first coefficient at each iteration.

    Five iterations of Newton and Schulz with the coefficients of Jordan et al. (2024), "Muon: An optimizer for hidden
    layers in neural networks".
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-30)
    a, b, c = QUINTIC
    for _ in range(5):
        gram = x @ x.mT
        x = a * x + torch.baddbmm(b * gram, gram, gram, alpha=c) @ x
    return x.mT if tall else x


class AdamAndMuon(Adam):
    """Adam, but for weights of which only the direction counts, as the filters of weight-normalised convolutions.

    Those are turned by Muon (Jordan et al. 2024): each step adds the orthogonalised gradient, with Nesterov's momentum,
    scaled to a fixed share of the weight's norm, which is then restored. A step's length is thereby an angle, whatever
    the size of gradients and weights.

    Args:
        params: Adam's, or groups of them.
        directions: Weights of which each step turns the matrix that their first axis and all others make, and the part
            of the share that each takes.
        share: Of a direction's norm, the length of a step.
        lr: Adam's, and so are the others.
    """

    def __init__(
        self,
        params: Iterable[Any],
        directions: Iterable[tuple[nn.Parameter, float]],
        share: float,
        lr: float,
        **of_adam: Any,
    ) -> None:
        super().__init__(params, lr=lr, **of_adam)
        self._parts = dict(directions)
        self.add_param_group({"params": list(self._parts), "lr": share, "argument": "muon"})
        self._step_supports_amp_scaling = False  # a step with infinite gradients is left out as a whole

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_parts": self._parts}  # torch's own are all that a copy would have

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Adam's own completes the state of older versions of torch, and expects to find its own for every weight.
        super(Adam, self).__setstate__(state)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        with torch.enable_grad():
            loss = None if closure is None else closure()
        turned = self.param_groups.pop()
        try:
            super().step()  # with which torch calls hooks of steps a second time
        finally:
            self.param_groups.append(turned)
        self._turn(turned["params"], turned["lr"])
        return loss

    @torch.no_grad()
    def _turn(self, directions: Sequence[nn.Parameter], share: float) -> None:
        moved = [weight for weight in directions if weight.grad is not None]
        if not moved:
            return
        for weight in moved:
            if not self.state[weight]:
                self.state[weight]["momentum"] = torch.zeros_like(weight)
        gradients: Any = [weight.grad for weight in moved]
        momenta = [self.state[weight]["momentum"] for weight in moved]
        torch._foreach_lerp_(momenta, gradients, 1 - MOMENTUM)
        ahead = torch._foreach_lerp(gradients, momenta, MOMENTUM)
        # Those of one shape at once: on a GPU a launch for each would take longer than its work.
        alike: dict[tuple[torch.Size, float], list[tuple[nn.Parameter, Tensor]]] = defaultdict(list)
        for weight, update in zip(moved, ahead, strict=True):
            alike[weight.flatten(1).shape, self._parts[weight]].append((weight, update.flatten(1)))
        for (_, part), those in alike.items():
            weights, updates = zip(*those, strict=True)
            before = torch.stack([weight.flatten(1) for weight in weights])  # [N, O, I]
            after = turned_by(before, orthogonal(torch.stack(updates)), share * part)
            torch._foreach_copy_(list(weights), [a.view_as(w) for a, w in zip(after, weights, strict=True)])


def turned_by(weight: Tensor, update: Tensor, share: float) -> Tensor:
    """[N, O, I] less an update of a share of the norm of each [O, I], which is kept; a zero update changes nothing."""
    norm = weight.norm(dim=(1, 2), keepdim=True)
    length = update.norm(dim=(1, 2), keepdim=True).clamp(min=1e-30)
    moved = weight - share * norm / length * update
    return moved * (norm / moved.norm(dim=(1, 2), keepdim=True).clamp(min=1e-30))


class Cooldown(ExponentialLR):
    """lr_0 gamma^t, and over the last share of the training linearly to zero (Hägele et al. 2024, there 0.2).

    Without a cooldown it is ExponentialLR, to the last bit.

    Args:
        optimizer: Each group's learning rate is lr_0.
        gamma: Factor at every step.
        cooldown: The share, in [0, 1].
        num_steps: Of the training, where there is a cooldown.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, gamma: float, cooldown: float, num_steps: int) -> None:
        self.cooldown, self.num_steps = cooldown, num_steps
        super().__init__(optimizer, gamma)

    def get_lr(self) -> list[float | Tensor]:
        return self.closed_form() if self.cooldown else super().get_lr()

    def closed_form(self) -> list[float | Tensor]:
        """The learning rates at this step, whatever they were before."""
        t, share = self.last_epoch, 1.0
        if self.cooldown:
            share = min(1.0, max(0, self.num_steps - t) / (self.cooldown * self.num_steps))
        return [lr * self.gamma**t * share for lr in self.base_lrs]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict({"cooldown": 0.0, "num_steps": 0} | state_dict)  # up to version 0.8 there was none
