"""How do two networks, two layers of one, or two trainings differ: in nats, in pictures and in what they tell apart?"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from commands.signatures import summary
from commands.trained_inverter import scores, training_images
from commands.two_runs import Asked, asked, check_same_images, function, names
from datamodules.split import seen
from evaluations.difference import (
    Crossed,
    Nats,
    alike,
    divergence,
    gap,
    matching,
    ratios,
    share_matched,
    told_apart,
)
from evaluations.difference_figures import figures, labels
from evaluations.difference_result import DifferenceResult, Side
from evaluations.distances import nearest
from evaluations.information import paired_difference
from runtime.activations import cached_activations
from runtime.files import json_bytes, npz_bytes, png_bytes

NUM_MAPS = 4
AT_LEAST = {"num_images": 2, "num_draws": 1, "num_shown": 1, "num_candidates": 1, "seed": 0}


def diff(words: Sequence[str]) -> None:
    """What B has and A has not, of the same images, or what is lost from layer A to layer B: diff A B; needs no config.

    A and B are runs of inverters (runs/NAME, a run's own folder in it, or a checkpoint) of one data set, of any layers
    and networks: before and after fine-tuning, pruning, quantising, a defence, another seed; or two layers of one.

    Raises:
        OSError: There is no such run.
        ValueError: One has no layer or no likelihood, or their images are not the same.
    """
    parser = argparse.ArgumentParser("cli.py diff", description=summary(("commands.diff", "diff")), allow_abbrev=False)
    parser.add_argument("a", type=Path, help="runs/NAME (its newest run), a run's own folder in it, or a checkpoint")
    parser.add_argument("b", type=Path, help="likewise; the answer is written into its run's folder")
    for name, default, what in (
        ("num_images", 64, "test images, of which pairs are made: twice as many take four times as long"),
        ("num_draws", 4, "draws of each by both, which both score"),
        ("num_shown", 6, "of the images, in the pictures"),
        ("num_candidates", 64, "draws of each of these, of which sets are chosen that a layer cannot tell apart"),
        ("seed", 0, "of the noise, which is a function of (seed, image, draw), the same for both"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{what}; default: %(default)s")
    parser.add_argument("--device", help="cpu or cuda; by default a GPU where there is one")
    given = parser.parse_args(words)
    for name, least in AT_LEAST.items():
        if (value := getattr(given, name)) < least:
            raise ValueError(f"--{name} is {value}; give at least {least}")
    a, b = (asked(place.expanduser(), given.device) for place in (given.a, given.b))
    check_same_images(a, b)
    total = len(a.data.datasets["test"])
    if given.num_images > total:
        raise ValueError(f"--num_images is {given.num_images} and there are {total} test images; give at most {total}")
    result, arrays = _answer(a, b, given.num_images, given.num_draws, given.num_shown, given.num_candidates, given.seed)
    files = {f"{result.stem}.npz": npz_bytes(arrays)}
    pictures = {name: png_bytes(figure) for name, (_, figure) in figures(result, arrays).items()}
    row = result.with_files(files).to_json()
    files |= {f"{result.stem}_{name}.png": content for name, content in pictures.items()}
    b.run.write({f"{result.stem}.json": json_bytes(row), **files})
    _say(result, b.run.folder)


def _answer(
    a: Asked, b: Asked, num_images: int, num_draws: int, num_shown: int, num_candidates: int, seed: int
) -> tuple[DifferenceResult, dict[str, np.ndarray]]:
    """The numbers, and the arrays of the pictures."""
    both = a, b
    batch = a.first(num_images)
    image, index = batch["image"].cpu(), batch["index"].tolist()
    pictures = [seen(side.first(num_images)).cpu() for side in both]
    shown = slice(min(num_shown, num_images))
    arrays = {"inputs": image[shown].numpy()}

    tested = [len(kept["index"]) for side in both if (kept := side.of_test())]
    num_tested = min(tested, default=len(a.data.datasets["test"]))
    found = [side.values(num_tested) for side in both]
    if wrong := sum(int((~values["log_prob"].isfinite()).sum()) for values in found):
        raise ValueError(f"log p(x | h) of {wrong} test images is not finite; train for longer, or give another run")
    log_prob = paired_difference(found[1]["log_prob"], found[0]["log_prob"])
    pixels = [values.get("log_prob_per_pixel") for values in found]
    if pixels[0] is not None and pixels[1] is not None:
        maps = (pixels[1].double() - pixels[0].double()).numpy()
        arrays |= {"mean_map": maps.mean(0), "maps": maps[: min(NUM_MAPS, len(arrays["inputs"]))]}

    h = [side.h(its) for side, its in zip(both, pictures, strict=True)]
    draws = [
        side.inverter.draws(its.to(side.inverter.device), index, num_draws, seed).cpu()
        for side, its in zip(both, pictures, strict=True)
    ]  # of A and of B, [N, M, C, H, W]
    arrays |= {f"draws_{name}": its[shown].numpy() for name, its in zip("ab", draws, strict=True)}
    own = torch.stack([by.evaluated(image, its)["log_prob"] for by, its in zip(both, h, strict=True)])
    crossed = Crossed(own, torch.stack([
        torch.stack([
            _log_prob(by, its, given)
            for by, given in zip(both, h, strict=True)
        ]) for its in draws
    ]))  # fmt: skip

    odds = [matching(scores(side.inverter, image, its).numpy()) for side, its in zip(both, pictures, strict=True)]
    pairs = told_apart(odds[0], odds[1])
    for name, its in zip("ab", pairs, strict=True):
        rows = [[pair.first, pair.second] for pair in its]
        arrays[f"pairs_of_{name}"] = image[torch.tensor(rows, dtype=torch.long).reshape(-1, 2)].numpy()

    alike_by = _alike(both, image[shown], [its[shown] for its in pictures], index[shown], num_candidates, seed)
    sides = []
    for k, (side, name) in enumerate(zip(both, names(a, b), strict=True)):
        network, density = side.digests
        share, by_other, more = alike_by[k]
        arrays |= {f"alike_{'ab'[k]}{what}": values for what, values in more.items()}
        sides.append(Side(
            called=name, name=side.run.name, layer=str(side.inverter.representation.layer),
            checkpoint=str(side.checkpoint), network_digest=network, density_digest=density,
            draws_less_own=gap(1 - k, k, crossed), own_draws_less=gap(k, k, crossed),
            divergence=divergence(k, crossed), share_matched=share_matched(odds[k]), alike=share,
            alike_by_other=by_other,
        ))  # fmt: skip
    result = DifferenceResult(
        network_digest=sides[1].network_digest, density_digest=sides[1].density_digest, dataset=b.data.name, a=sides[0],
        b=sides[1], function=function(a, b), log_prob=Nats(**log_prob._asdict()), num_tested=num_tested,
        num_images=num_images, num_draws=num_draws, num_candidates=num_candidates, seed=seed,
        pairs_of_a=tuple(pairs[0]), pairs_of_b=tuple(pairs[1]),
    )  # fmt: skip
    return result, arrays


def _log_prob(by: Asked, draws: Tensor, h: Tensor) -> Tensor:
    """log p of draws [N, M, C, H, W] of each image with its h [N, ...]: float64 [N, M] nats."""
    found = by.evaluated(draws.flatten(0, 1), h.repeat_interleave(draws.shape[1], 0))["log_prob"]
    return found.unflatten(0, draws.shape[:2])


def _alike(
    both: tuple[Asked, Asked], image: Tensor, pictures: Sequence[Tensor], index: Sequence[int], num_candidates: int,
    seed: int,
) -> list[tuple[float | None, float | None, dict[str, np.ndarray]]]:  # fmt: skip
    """Of each, what its layer cannot tell apart: the share of draws, how far the other finds these, and the sets."""
    spaces: list[tuple[Tensor, Tensor] | None] = []
    for side in both:
        if not side.draws_have_h:
            spaces.append(None)
            continue
        representation, training = side.inverter.representation, training_images(side.data)
        h_training = cached_activations(representation, training, "train", side.run.activations)
        h = side.h(image)
        spaces.append((h, nearest(h.to(side.inverter.device), h_training, k=1)[0][:, 0]))
    found: list[tuple[float | None, float | None, dict[str, np.ndarray]]] = []
    for k, (side, its) in enumerate(zip(both, pictures, strict=True)):
        if spaces[k] is None:
            found.append((None, None, {}))
            continue
        draws = side.inverter.draws(its.to(side.inverter.device), index, num_candidates, seed).cpu()
        far = torch.stack([
            torch.full(draws.shape[:2], torch.nan, dtype=torch.float64) if space is None
            else ratios(space[0], (by.h(x) for x in draws), space[1]) for by, space in zip(both, spaces, strict=True)
        ], dim=2)  # fmt: skip # [Q, S, 2]
        near = far[..., k] <= 1
        by_other = far[..., 1 - k][near]
        told = by_other.mean().item() if len(by_other) and by_other.isfinite().all() else None
        sets, distances = alike(image, draws, far, k)
        found.append((near.double().mean().item(), told, {"": sets.numpy(), "_far": distances.numpy()}))
    return found


def _say(result: DifferenceResult, folder: Path) -> None:
    """What people are told at once."""
    a, b = result.a, result.b
    known = {"b of a": f"; {b.called} is a function of {a.called}", "a of b": f"; {a.called} is one of {b.called}"}
    print(f"{b.called} less {a.called}, {result.dataset}{known.get(str(result.function), '')}; nats an image")
    interval = f"95 % interval {result.log_prob.low:.2f} to {result.log_prob.high:.2f}"
    print(f"  log p(x | h)             {_told(result.log_prob)}, paired, {result.num_tested} test images ({interval})")
    for of, by in ((a, b), (b, a)):
        print(f"  draws of {of.called}, less likely")
        print(f"    by {by.called} than by {of.called}: {_told(of.divergence)} (KL divergence)")
        control = f"{by.called}'s own draws: {_told(by.own_draws_less)}"
        print(f"    by {by.called} than the images: {_told(by.draws_less_own)} ({control})")
        if of.alike is not None:
            print(f"    {of.alike:.1%} are as near by {of.called} as the nearest training image{_by_other(of, by)}")
    print(f"  that is of {result.num_images} images and {result.num_draws} draws of each, by the same noise")
    print(f"  pairs matched with their h: {a.share_matched:.1%} by {a.called}, {b.share_matched:.1%} by {b.called}")
    for pairs, more, less in ((result.pairs_of_a, a, b), (result.pairs_of_b, b, a)):
        told = [f"{pair.first} and {pair.second} ({odds})" for pair, odds in zip(pairs, labels(pairs), strict=True)]
        print(f"    told apart by {more.called} and less by {less.called}: {', '.join(told) or 'none'}")
    print(f"    (test images by their position, and the log odds by {a.called} / {b.called} in nats)")
    print(f"  numbers and pictures     {folder}/{result.stem}.json, {result.stem}_*.png")


def _by_other(of: Side, by: Side) -> str:
    return "" if of.alike_by_other is None else f"; by {by.called} those are at {of.alike_by_other:.2f} of it"


def _told(nats: Nats) -> str:
    return "infinitely many" if nats.mean is None else f"{nats.mean:.2f} ± {nats.standard_error:.2f}"
