"""Models that judge what another one draws: a classifier that it was not trained against, and p(x)."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn

from commands.from_python import checkpoint_at, inverter_of, keys_of_run, made, model_of
from datamodules import ImageDataModule
from inverters import Classifier, Inverter
from inverters.exact_float32 import exact_float32
from inverters.representation import digest
from runtime.checkpoints import check_fit, load_checkpoint
from runtime.run import Run

JUDGES = "judge"  # the folder, in that of all runs, of classifiers that are to be inverted by nobody


Opinion = TypeVar("Opinion")


@dataclass(frozen=True)
class Judge:
    """A classifier that says what draws look like.

    Attributes:
        classifier: Trained, on the device of what it judges.
        path: Its checkpoint.
    """

    classifier: Classifier
    path: Path

    @property
    def digest(self) -> str:
        return digest(self.classifier.network)

    def classes(self, image: Tensor) -> Tensor:
        """The class that it gives each of uint8 images [B, C, H, W]: [B]."""
        with exact_float32(image.device):
            return self.classifier(image).argmax(1)


@dataclass(frozen=True)
class Prior:
    """An unconditional model p(x).

    Attributes:
        inverter: Trained, on the device of what it judges; it has no layer.
        path: Its checkpoint.
    """

    inverter: Inverter
    path: Path

    @property
    def digest(self) -> str:
        return digest(self.inverter.density)

    def log_prob(self, image: Tensor) -> Tensor:
        """log p(x) of uint8 images [B, C, H, W]: float64 [B], nats."""
        return self.inverter.log_prob_in_parts({"image": image})


def judge_of(inverter: Inverter, data: ImageDataModule, root: Path, given: str | None) -> Judge | None:
    """The classifier that is given, or the newest of the inverted one's config in the folder of judges; None without.

    Args:
        inverter: Whose draws it judges.
        data: Theirs.
        root: The folder of all runs.
        given: A checkpoint, or the folder of a run or of a config's runs.

    Raises:
        OSError: There is no such checkpoint, or no config beside it.
        ValueError: It is not of a classifier of this data, or of the very network that is inverted.
    """

    def judge(path: Path) -> Judge:
        checkpoint = load_checkpoint(path)
        if "architecture" not in checkpoint:
            raise ValueError(f"--judge {path} is not the checkpoint of a classifier; give one of another seed: {_HOW}")
        data.check(checkpoint, f"--judge {path}", classifier=True)
        keys, config = keys_of_run(path)
        model, shape = model_of(keys, config), data.image_shape
        shapes = {"image_shape": shape, "num_classes": data.num_classes, "seen_shape": shape}
        classifier = made("model", Classifier, {**model, "init_args": {**model["init_args"], **shapes}}, keys, config)
        check_fit(classifier, checkpoint["state_dict"], path)
        classifier.load_state_dict(checkpoint["state_dict"])
        classifier.check_network(checkpoint, path)
        found = Judge(_ready(classifier, inverter), path)
        if found.digest == digest(inverter.representation.network):
            raise ValueError(f"--judge {path} is the very network that is inverted; give one of another seed: {_HOW}")
        return found

    if given is None:
        return _newest(root / JUDGES, str(inverter.classifier_name), judge)
    return judge(checkpoint_at(Path(given).expanduser()))


_HOW = f"python cli.py fit --config classifier_... --seed_everything 1 --trainer.default_root_dir runs/{JUDGES}"


def prior_of(inverter: Inverter, data: ImageDataModule, root: Path, given: str | None) -> Prior | None:
    """The model that is given, or that of the newest run of unconditional_<data>; None without.

    Arguments are as for `judge_of`.

    Raises:
        OSError: There is no such checkpoint, or no config beside it.
        ValueError: It is of a layer, has no likelihood, or has seen other data.
    """

    def prior(path: Path) -> Prior:
        checkpoint = load_checkpoint(path)
        if "layer" not in checkpoint:
            raise ValueError(f"--prior {path} is not the checkpoint of an inverter; give an unconditional model")
        data.check(checkpoint, f"--prior {path}")
        found, _ = inverter_of(path, checkpoint)
        if (layer := found.representation.layer) is not None:
            raise ValueError(
                f"--prior {path} is p(x | {layer}); give an unconditional model, as of unconditional_{data.name}"
            )
        found.with_likelihood()
        return Prior(_ready(found, inverter), path)

    if given is None:
        return _newest(root, f"unconditional_{data.name}", prior)
    return prior(checkpoint_at(Path(given).expanduser()))


def _newest(root: Path, name: str, opened: Callable[[Path], Opinion]) -> Opinion | None:
    """That of a config's newest run that can judge these draws; None where none can."""
    for run in reversed(Run.all(root, name)):
        with suppress(OSError, ValueError):
            return opened(run.best)
    return None


def _ready(model: Any, inverter: nn.Module) -> Any:
    """In eval mode, where the inverter is."""
    return model.eval().requires_grad_(False).to(next(inverter.buffers()).device)
