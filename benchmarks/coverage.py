"""Do draws reach all images that an h may be of? Each way to invert, where these are a list.

python -m benchmarks.coverage [--weights 0 0.1 1] [--seeds 0 1] [--runs runs/coverage] [--figure PATH] [--json PATH]

The world is `GlyphPositionDataModule` of side 11: h tells which of 4 glyphs it is, and not at which of 64 places. Draws
of each glyph are scored by `evaluations.coverage`: of p(x | h), the likelihood; of a decoder trained by squared error,
from its Gaussian; of a stacked GAN, by the weight of its entropy loss. A PixelCNN takes sides that 4 divides; its
images have an empty row and column more. A run that lies in --runs is taken as it is, and what is missing is trained.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

import inverters
from benchmarks.measure import options, report
from commands.command import Command
from datamodules import GlyphPositionDataModule
from evaluations.coverage import covered, valid
from inverters.exact_networks import GLYPHS
from runtime.run import Run
from runtime.wandb_run import finish_wandb

BORDERED = [f"{g[:4]}0{g[4:8]}0{g[8:12]}0{g[12:]}0" + 5 * "0" for g in GLYPHS]


@dataclass(frozen=True)
class Method:
    """What is trained: by which config, with which keys, and in how large a world."""

    called: str
    config: str
    keys: tuple[str, ...] = ()
    side: int = 11
    glyphs: tuple[str, ...] = GLYPHS
    weight: float | None = None  # of the entropy loss
    seed: int = 0

    def run(self, given: argparse.Namespace) -> Run:
        """A run of it, trained now unless it is there."""
        weight = "" if self.weight is None else f"-{self.weight:g}"
        run = Run.called(given.runs, self.config, f"{self.called.replace(' ', '-')}{weight}-{self.seed}")
        if not (run.last.is_file() and run.finished):
            glyphs = json.dumps(self.glyphs)
            steps = [f"--trainer.max_steps={given.steps}", f"--trainer.val_check_interval={given.steps}"]
            Command([
                "fit", f"--config={self.config}.yaml", f"--name={run.folder.name}", f"--seed_everything={self.seed}",
                f"--data.side={self.side}", f"--data.glyphs={glyphs}", f"--model.network.glyphs={glyphs}", *self.keys,
                *(steps if given.steps else []), f"--trainer.accelerator={given.device.type}",
                f"--trainer.default_root_dir={given.runs}", "--sample_grid.num_images=0",
            ]).run()  # fmt: skip
            finish_wandb()
        return run

    def row(self, given: argparse.Namespace) -> dict[str, Any]:
        """Means over the glyphs, of its last weights: by 8-bit likelihood a Gaussian is best with a black mean."""
        truth = GlyphPositionDataModule(self.side, self.glyphs).images.unflatten(0, (len(GLYPHS), -1))  # [K, P, ...]
        draws = inverters.load(self.run(given).last).sample(truth[:, 0], num_draws=given.draws)
        pairs = list(zip(draws, truth, strict=True))
        return {
            "method": self.called,
            "entropy weight": "" if self.weight is None else self.weight,
            "seed": self.seed,
            "places covered": round(sum(covered(*pair) for pair in pairs) / len(pairs), 3),
            "draws valid": round(sum(valid(*pair) for pair in pairs) / len(pairs), 3),
        }


def drawn(rows: list[dict[str, Any]], path: Path) -> None:
    """Coverage by the entropy weight: of the GANs, with a point for each seed, beside what has no such weight."""
    figure, axes = plt.subplots(figsize=(5, 3.2), layout="constrained")
    weights = sorted({row["entropy weight"] for row in rows} - {""})
    found = [[row["places covered"] for row in rows if row["entropy weight"] == weight] for weight in weights]
    axes.plot([sum(each) / len(each) for each in found], label="stacked GAN, mean of seeds")
    for i, each in enumerate(found):
        axes.plot([i] * len(each), each, "o", color="C0")
    others = [row for row in rows if row["entropy weight"] == ""]
    for line, row in zip(("--", ":"), others, strict=True):
        axes.axhline(row["places covered"], color="black", linestyle=line, label=row["method"])
    axes.set(xticks=range(len(weights)), xticklabels=weights, ylim=(-0.03, 1.03))
    axes.set(xlabel="weight of the entropy loss", ylabel="share of places that are drawn")
    axes.legend()
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main() -> None:
    given = options(
        __doc__,
        weights={"type": float, "nargs": "+", "default": [0, 0.1, 1], "help": "of the GAN's entropy loss"},
        seeds={"type": int, "nargs": "+", "default": [0, 1], "help": "of the GANs"},
        runs={"type": Path, "default": Path("runs/coverage"), "help": "where the trained ones are, or will be"},
        draws={"type": int, "default": 512, "help": "of each glyph"},
        steps={"type": int, "help": "of every training, in place of its config's"},
        figure={"type": Path, "help": "also draw coverage by the entropy weight, to this file"},
    )  # fmt: skip
    methods = [
        Method("likelihood", "world_glyph", side=12, glyphs=tuple(BORDERED)),
        Method("MSE decoder", "world_glyph", ("--model.density=MSEDecoder", "--model.density.filters=[]")),
    ]
    for weight in given.weights:
        key = f"--model.density.entropy_weight={weight}"
        methods += [Method("stacked GAN", "gan_world_glyph", (key,), weight=weight, seed=s) for s in given.seeds]
    rows = [method.row(given) for method in methods]
    report("Places of a glyph that draws reach", rows, given)
    if given.figure:
        drawn(rows, given.figure)


if __name__ == "__main__":
    main()
