"""What does h keep of an attribute a? The gain of a probe q(a | h) over the shares of a, in nats, on unseen images."""

import copy
import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evaluations.information import Estimate, paired_difference

NUM_BINS = 16  # of a continuous attribute, equally full in training, and of a circle, equally wide
NUM_UNITS, LEARNING_RATE, BATCH_SIZE, MOST_EPOCHS, PATIENCE = 256, 1e-3, 64, 60, 6


class Entry(NamedTuple):
    """What h keeps of an attribute, nats, and of how many.

    Attributes:
        kept: A lower bound of I(a; h), but for the error of its images.
        entropy: H(a) of the test images, or where a is known to be uniform, ln K; of a continuous one, of its bins.
        num_values: That a probe tells apart.
    """

    kept: Estimate
    entropy: float
    num_values: int


def bins(train: Tensor, others: tuple[Tensor, ...], circular: bool, num_bins: int = NUM_BINS) -> list[Tensor]:
    """The bins of values [N] of training, and of others, whose edges are of training alone: int64, from 0.

    On a circle they are equally wide, and the first begins at the mean direction: turning all angles changes nothing.
    """
    if circular:
        start = torch.atan2(train.sin().mean(), train.cos().mean())
        turns = [((x - start) / (2 * math.pi)).remainder(1) for x in (train, *others)]
        return [(turn * num_bins).long().clamp(max=num_bins - 1) for turn in turns]
    edges = torch.quantile(train, torch.linspace(0, 1, num_bins + 1, dtype=train.dtype)[1:-1]).unique()
    return [torch.bucketize(x.contiguous(), edges, right=True) for x in (train, *others)]


def entry(
    h: tuple[Tensor, Tensor, Tensor], a: tuple[Tensor, Tensor, Tensor], num_values: int, uniform: bool = False,
    seed: int = 0,
) -> Entry:  # fmt: skip
    """I(a; h) >= H(a) + E ln q(a | h) on the test images, paired (Barber and Agakov 2003).

    q(a | h) is a small network that begins as the shares of training, and is kept as it is when the validation images
    fit best, which may be at the beginning: where h says nothing, it tells nothing. Nothing is chosen by the test's.
    H(a) is the entropy of the shares p(a) among the N test images themselves, unless a is uniform. On average over
    test sets it is too low, by about (K - 1) / 2N, so that this is a lower bound whatever the shares of training are;
    its error is, to first order, that of the mean of -ln p(a), which is paired with ln q. A probe may miss what another
    one finds: what is kept is at least this, and what is lost is not known to be.

    Args:
        h: Of training, validation and test images, [N, ...].
        a: int64 [N], likewise.
        num_values: K.
        uniform: Whether all K are known to be equally likely.
        seed: Of the probe and its order of images.

    Raises:
        ValueError: A split has no image, h is not finite, or a value lies outside of 0 to K - 1.
    """
    if not all(map(len, h)):
        raise ValueError(f"there are {', '.join(str(len(x)) for x in h)} images to train, choose and test a probe on")
    if not all(x.isfinite().all() for x in h):
        raise ValueError("h of some images is not finite, so that nothing can be told from it; give another layer")
    if any(((x < 0) | (x >= num_values)).any() for x in a):
        raise ValueError(f"an attribute of {num_values} values has some outside of 0 to {num_values - 1}")
    flat = [x.flatten(1).float() for x in h]
    mean, scale = flat[0].mean(dim=0), flat[0].std(dim=0, correction=0)
    flat = [(x - mean) / torch.where(scale > 0, scale, 1) for x in flat]
    of_train, of_test = (x.bincount(minlength=num_values).double() for x in (a[0], a[2]))
    even = torch.full_like(of_test, 1 / num_values)
    begin = even if uniform else (of_train + 0.5) / (of_train + 0.5).sum()  # none is impossible
    log_q = _probe(flat, a, begin.log().float(), seed)
    without = (even if uniform else of_test / of_test.sum()).log()[a[2]]
    return Entry(paired_difference(log_q, without), abs(float(without.mean())), num_values)


def _probe(h: list[Tensor], a: tuple[Tensor, Tensor, Tensor], begin: Tensor, seed: int) -> Tensor:
    """ln q(a | h) of the test images, float64 [N], of a network that begins as `begin`, ln q of each value, [K]."""
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        last = nn.Linear(NUM_UNITS, len(begin))
        net = nn.Sequential(nn.Linear(h[0].shape[1], NUM_UNITS), nn.ReLU(), last)
        with torch.no_grad():
            last.weight.zero_()
            last.bias.copy_(begin)
        optimizer = torch.optim.AdamW(net.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
        best, kept, since = _cross_entropy(net, h[1], a[1]), copy.deepcopy(net), 0
        for _ in range(MOST_EPOCHS):
            for batch in torch.randperm(len(h[0])).split(BATCH_SIZE):
                optimizer.zero_grad()
                F.cross_entropy(net(h[0][batch]), a[0][batch]).backward()
                optimizer.step()
            found = _cross_entropy(net, h[1], a[1])
            since += 1
            if found < best:
                best, kept, since = found, copy.deepcopy(net), 0
            if since == PATIENCE:
                break
    with torch.no_grad():
        return kept(h[2]).double().log_softmax(dim=1).gather(1, a[2][:, None])[:, 0]


@torch.no_grad()
def _cross_entropy(net: nn.Module, h: Tensor, a: Tensor) -> float:
    return float(F.cross_entropy(net(h), a))
