"""Models that judge what another one draws: a classifier that it was not trained against, and p(x)."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor, nn

from commands.built_from_run import checkpoint_at, inverter_of, keys_of_run, made, model_of
from commands.config_files import config_names
from datamodules import ImageDataModule
from evaluations.trained_beside import JUDGES, config_of_p_x, second_classifier, train_p_x
from inverters import Classifier, Inverter
from inverters.exact_float32 import exact_float32
from inverters.representation import digest
from runtime.checkpoints import check_fit, load_checkpoint
from runtime.run import Run


@dataclass(frozen=True)
class Opinion:
    """What another model says of images.

    Attributes:
        path: Its checkpoint.
        digest: Of its weights.
        of: Of uint8 images [B, C, H, W], on the device of what it judges, [B]: the classes that a classifier gives
            them, or log p(x) of an unconditional model, float64 nats.
    """

    path: Path
    digest: str
    of: Callable[[Tensor], Tensor]

    @property
    def run(self) -> str:
        """The folder of its run, or its checkpoint where that lies elsewhere."""
        run = Run.of(self.path)
        return str(run.folder if run else self.path)


def judge_of(inverter: Inverter, data: ImageDataModule, run: Run, given: str | None) -> Opinion | None:
    """The classifier that is given, or the newest of the inverted one's config in the folder of judges; None without.

    Args:
        inverter: Whose draws it judges.
        data: Theirs.
        run: The inverter's, in the folder of all runs.
        given: A checkpoint, or the folder of a run or of a config's runs.

    Raises:
        OSError: There is no such checkpoint, or no config beside it.
        ValueError: It is not of a classifier of this data, or of the very network that is inverted.
    """

    def judge(path: Path) -> Opinion:
        checkpoint = load_checkpoint(path)
        if "architecture" not in checkpoint:
            raise ValueError(f"--judge {path} is not the checkpoint of a classifier; {train_judge(inverter, run)}")
        data.check(checkpoint, f"--judge {path}", classifier=True)
        keys, config = keys_of_run(path)
        model, shape = model_of(keys, config), data.image_shape
        shapes = {"image_shape": shape, "num_classes": data.num_classes, "seen_shape": shape}
        classifier = made("model", Classifier, {**model, "init_args": {**model["init_args"], **shapes}}, keys, config)
        check_fit(classifier, checkpoint["state_dict"], path)
        classifier.load_state_dict(checkpoint["state_dict"])
        classifier.check_network(checkpoint, path)
        its = digest(classifier.network)
        if its == digest(inverter.representation.network):
            raise ValueError(f"--judge {path} is the very network that is inverted; {train_judge(inverter, run)}")
        ready = _ready(classifier, inverter)

        def classes(image: Tensor) -> Tensor:
            with exact_float32(image.device):
                found: Tensor = ready(image).argmax(1)
            return found

        return Opinion(path, its, classes)

    if given is not None:
        return judge(checkpoint_at(Path(given).expanduser()))
    return _newest(Run.all(run.root / JUDGES, str(inverter.classifier_name)), data, judge)


def train_judge(inverter: Inverter, run: Run) -> str:
    """How a second classifier is made, for people."""
    config = inverter.classifier_name
    if config in config_names():
        return f"give one of another seed: {second_classifier(config, run.root)}"
    return "train the network that is inverted from another seed, or another network, and give it by --judge"


def prior_of(inverter: Inverter, data: ImageDataModule, run: Run, given: str | None) -> Opinion | None:
    """The model that is given, or of unconditional_... the newest that fits; None without.

    First those are asked of the config that the inverter's data and size ask for, then all others. Arguments are as
    for `judge_of`.

    Raises:
        OSError: There is no such checkpoint, or no config beside it.
        ValueError: It is of a layer, has no likelihood, or has seen other data.
    """

    def prior(path: Path) -> Opinion:
        checkpoint = load_checkpoint(path)
        if "layer" not in checkpoint:
            raise ValueError(f"--prior {path} is not the checkpoint of an inverter; give an unconditional model")
        data.check(checkpoint, f"--prior {path}")
        found, _ = inverter_of(path, checkpoint)
        if (layer := found.representation.layer) is not None:
            raise ValueError(f"--prior {path} is p(x | {layer}); give an unconditional model; {how}")
        found.with_likelihood()
        ready = _ready(found, inverter)
        return Opinion(path, digest(found.density), lambda image: ready.log_prob_in_parts({"image": image}))

    how = train_p_x(data.name, run.name)
    if given is not None:
        return prior(checkpoint_at(Path(given).expanduser()))
    first = config_of_p_x(data.name, run.name)
    names = sorted({path.name for path in run.root.glob("unconditional_*/")}, key=lambda name: (name != first, name))
    return _newest([one for name in reversed(names) for one in Run.all(run.root, name)], data, prior)


def _newest(runs: Iterable[Run], data: ImageDataModule, opened: Callable[[Path], Opinion]) -> Opinion | None:
    """That of the last of these runs that can judge these draws, None where none can.

    Says why the newest one of this data was passed over.
    """
    told = False
    for run in reversed(list(runs)):
        try:
            if not _saw(run.best, data):
                continue
            if run.finished:
                return opened(run.best)
            why = "its training has not ended by itself"
        except (OSError, ValueError) as error:
            why = str(error)
        if not told:
            rank_zero_only(print)(f"{run.folder} does not judge: {why}")
        told = True
    return None


def _saw(path: Path, data: ImageDataModule) -> bool:
    """Whether a checkpoint is of a data set of this name."""
    states = (state for state in load_checkpoint(path).values() if isinstance(state, dict))
    return any(state.get("dataset") == data.name for state in states)


def _ready(model: Any, inverter: nn.Module) -> Any:
    """In eval mode, where the inverter is."""
    return model.eval().requires_grad_(False).to(next(inverter.buffers()).device)
