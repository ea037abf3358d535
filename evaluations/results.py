"""What tests found, as results.json holds it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

from evaluations.diversity import COLLAPSED
from evaluations.information import wilson_interval
from evaluations.rows import Number, Row, RowWithFiles, read


@dataclass(frozen=True, kw_only=True)
class Published(Row):
    """The paper's numbers for an experiment, as its config gives them, to stand beside what is measured.

    Attributes:
        accuracy: Per cent.
        im_s_ratio, im_nn_ratio: IM-S / 1NN and IM-NN / 1NN.
        note: Which ones they are, where the experiment is not quite the paper's: "those of MNIST".
    """

    accuracy: float | None = None
    nce_nats: float | None = None
    im_s_ratio: float | None = None
    im_nn_ratio: float | None = None
    note: str | None = None


@dataclass(frozen=True, kw_only=True)
class TestResult(RowWithFiles, ABC):
    """What is common to tests. A standard error is nan, or None, where there is one image.

    Attributes:
        name: The config's.
        commit: Of the code, None outside a repository.
        dataset_note: What a reader must know of the data set.
        network: That is tested or inverted; None without a layer, as is its digest.
        checkpoint: That was tested, relative to the working folder.
    """

    name: str
    commit: str | None
    split: str = "test"
    dataset: str
    dataset_note: str | None
    network: str | None
    network_digest: str | None
    num_images: int
    checkpoint: str | None
    published: Published = Published()

    def summary(self) -> str:
        """In a few lines, for people."""
        about = f"{self.name}, {self.num_images} test images"
        return "\n  ".join([about, *self._lines(), f"checkpoint      {self.checkpoint}"])

    @abstractmethod
    def _lines(self) -> list[str]: ...


@dataclass(frozen=True, kw_only=True)
class ClassifierResult(TestResult):
    """The accuracy of a classifier, a share, with its 95 % Wilson interval, which rows of old versions lack."""

    kind: Literal["classifier"] = "classifier"
    accuracy: Number
    accuracy_se: Number
    accuracy_low: float | None = None
    accuracy_high: float | None = None

    def _lines(self) -> list[str]:
        low, high = wilson_interval(self.accuracy, self.num_images)
        return [f"accuracy        {self.accuracy:.2%} (95 % interval {low:.2%} to {high:.2%})"]


@dataclass(frozen=True, kw_only=True)
class WorldResult(Row):
    """How far a model is from the truth, where that is known, and whether it may be. A negative control must fail.

    Where only the information is known, the others are nan, and whether it passes is None: that takes p(x) too.

    Attributes:
        information_nats: I(x; h); None where the world does not say, as in rows of up to 0.8.
    """

    entropy_nats: Number
    exact_nce_nats: Number
    excess_nats: Number
    excess_nats_se: Number
    passes: bool | None
    must_fail: bool
    information_nats: float | None = None


@dataclass(frozen=True, kw_only=True)
class InverterResult(TestResult):
    """NCE of an inverter, under other images' h too, and what the classifier says of its samples.

    Attributes:
        layer: None for an unconditional model, as are depth, classifier and what follows from them.
        depth: Of the layer: the network's children that have ended with it, and the share of the one that it is in.
        bottleneck: Whether all that the network gives goes through the layer, so that later layers are functions of it.
            Rows of old versions lack it: their networks were stages one after the other.
        density: The class of the generator.
        point_estimate: Whether it gives the same image for all noise.
        classifier_updates: After how many the network was taken.
        course: The course of the classifier's training that this is a point of (Nash et al. 2019, fig 5b).
        nce_nats: None for a generator without likelihood, as are the three that follow.
        class_agreement: The share of samples that get the class of their input; None where no layer gives classes.
        num_samples: Of which that is the share; the interval is Wilson's, of 95 %, and rows of old versions lack it.
        sees: What the network sees, and h is of: "x", the picture that the density models, "original", the picture at
            a side of its own, or "partner", another picture, which shares something with x. But for "x", class
            agreement is None, as draws are not what the network sees.
        seen_shape: (C, H, W) of what it sees, before its own preprocessing. Rows of up to 0.7 lack this and the next.
        image_shape: (C, H, W) of x.
        preprocessing: Of what it sees, the arguments of `inverters.Preprocessing`; None where there is none.
        tokens: What was taken of a layer that gives tokens.
        pictures_digest: Of what decides which pictures x are, where the data set's name does not say it.
        world: Where the truth is known.
        training_images: That the training of the best checkpoint saw, each as often as it did. This and the next two
            are None where that has not ended by itself, or another checkpoint was tested, and in rows of up to 0.8.
        training_flop: Forward and backward of the density for all of these, without h and the optimiser.
        recipe: A digest of all that decided the training but its length.
        diversity_over_h: By `evaluations.diversity.spreads`, of a generator without likelihood; rows of up to 0.8 lack
            these, and up to 0.12 distances were Euclidean.
        diversity_over_noise: Likewise; None for a point estimate.
        loss_weights: Of the parts of the generator's loss by name, where it has them.
        channel: What lies between the layer and the inverter, and its rates; None where all of h is given.
        rate: Of these, the one at which all of this was measured.
    """

    kind: Literal["inverter"] = "inverter"
    layer: str | None
    depth: float | None
    bottleneck: bool = True
    density: str
    density_digest: str
    point_estimate: bool
    classifier: str | None
    classifier_updates: int | None
    course: Literal["regular", "overfitted"] | None
    num_dims: int
    nce_nats: float | None
    nce_nats_se: float | None
    bits_per_dim: float | None
    shuffled_nce_nats: float | None
    class_agreement: float | None
    class_agreement_se: float | None
    class_agreement_low: float | None = None
    class_agreement_high: float | None = None
    num_samples: int
    sees: Literal["x", "original", "partner"] = "x"
    seen_shape: tuple[int, int, int] | None = None
    image_shape: tuple[int, int, int] | None = None
    preprocessing: dict[str, Any] | None = None
    tokens: str = "all"
    pictures_digest: str | None = None
    world: WorldResult | None
    training_images: int | None = None
    training_flop: int | None = None
    recipe: str | None = None
    diversity_over_h: float | None = None
    diversity_over_noise: float | None = None
    loss_weights: dict[str, float] = field(default_factory=dict)
    channel: str | None = None
    rate: str | None = None

    @property
    def collapsed(self) -> bool:
        """Whether draws have less than COLLAPSED of the diversity of true images."""
        return any(d is not None and d < COLLAPSED for d in (self.diversity_over_h, self.diversity_over_noise))

    @property
    def seen_at(self) -> str | None:
        """The size of the pictures of which h is, where it is not that of x."""
        return _size(self.seen_shape) if self.sees == "original" else None

    @property
    def bound(self) -> str | None:
        """What NCE bounds, where h is not of x."""
        size = _size(self.image_shape)
        told = f"a lower bound on what the layer tells about the {size} picture"
        return f"h is of the pictures at {self.seen_at}: {told}" if self.seen_at else None

    def _of_diversity(self) -> list[str]:
        found = {"over h": self.diversity_over_h, "over the noise of one h": self.diversity_over_noise}
        said = [f"{share:.1%} {over}" for over, share in found.items() if share is not None]
        return [f"diversity       {', '.join(said)}; that of true images is 100 %"] if said else []

    def _lines(self) -> list[str]:
        lines = []
        if self.nce_nats is not None:
            lines += [f"NCE             {self.nce_nats:.2f} nats an image (standard error {self.nce_nats_se:.2f})"]
            lines += [f"bits/dim        {self.bits_per_dim:.3f}"]
        if self.bound:
            lines += [f"sees            {self.bound}"]
        if self.channel:
            lines += [f"channel         {self.channel}; this is at {self.rate}"]
        if self.sees == "partner":
            lines += ["sees            a partner of x, of which h is: it is no function of x"]
        if self.nce_nats is not None and self.shuffled_nce_nats is not None:
            worse = f"{self.nce_nats - self.shuffled_nce_nats:.2f} worse"
            lines += [f"shuffled        {self.shuffled_nce_nats:.2f} nats with the h of other images, {worse}"]
        if self.nce_nats is None:
            lines += ["likelihood      none: this generator only draws images"]
        lines += self._of_diversity()
        if self.collapsed:
            right = "right only of a layer that keeps all"
            lines += [f"collapsed       under {COLLAPSED:.0%} of the diversity of true images: {right}"]
        if self.class_agreement is not None:
            those = f"{self.num_samples} samples get the class predicted for their input"
            low, high = wilson_interval(self.class_agreement, self.num_samples)
            lines += [f"class agreement {self.class_agreement:.1%} of {those} (95 % interval {low:.1%} to {high:.1%})"]
        if (world := self.world) and world.passes is None:
            known = f"I(x; h) is {world.information_nats:.3f} nats, and log p(x | h) is not known"
            lines += [f"known exactly   {known}: the report compares the difference to p(x)"]
        elif world:
            off = f"off by {world.excess_nats:.3f} (standard error {world.excess_nats_se:.3f})"
            verdict = "as it must be" if world.passes else "outside of what is allowed"
            most = f"at most {0.02 * world.entropy_nats:.3f}, 2 % of H(x)"
            lines += [f"known exactly   {world.exact_nce_nats:.2f} nats; {off}, {verdict}: {most}"]
        return lines


def _size(shape: tuple[int, int, int] | None) -> str:
    return f"{shape[1]}x{shape[2]}" if shape else "another size"


def result_from_json(row: Mapping[str, Any]) -> ClassifierResult | InverterResult:
    """A test's result by its kind, of version 0.4 too. Raises ValueError as `Row.from_json`."""
    kind = Annotated[ClassifierResult | InverterResult, Field(discriminator="kind")]
    return read(kind, row if "published" in row else _upgraded(row))


def _upgraded(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of version 0.4, which left to names what the one who writes a row says of it since. Nothing else does."""
    course = {"updates": "regular", "overfitted": "overfitted"}.get(str(row.get("classifier")).rpartition("_")[2])
    world = {**row, "must_fail": row.get("dataset") == "shuffled"} if "passes" in row else None
    point_estimate = row.get("density") == "MSEDecoder"
    return {"dataset_note": None, "point_estimate": point_estimate, "course": course, "world": world, **row}
