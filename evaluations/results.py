"""What tests and measurements found, as results.json, distances.json, comparison.json and so on hold it."""

import json
import math
import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError

from evaluations.contrast import NEAR_CEILING
from evaluations.diversity import COLLAPSED
from evaluations.information import wilson_interval

Number = Annotated[float, BeforeValidator(lambda value: math.nan if value is None else value)]  # JSON has no nan


@dataclass(frozen=True, kw_only=True)
class Row:
    """Values that are written as an object of JSON, and read from it."""

    def to_json(self) -> dict[str, Any]:
        """Plain values; nan becomes None."""

        def plain(value: Any) -> Any:
            return list(value) if isinstance(value, tuple) else value if value == value else None  # nan != nan

        return asdict(self, dict_factory=lambda pairs: {k: plain(v) for k, v in pairs})

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Raises ValueError where a field is missing or has a value of another type. Other keys are not read."""
        return _read(cls, row)


@dataclass(frozen=True, kw_only=True)
class RowWithFiles(Row):
    """A row that has files beside it.

    Attributes:
        files: Their checksums by their names, by which one sees that they are of this row and not of another. Version
            0.4 gave none.
    """

    files: dict[str, int] = field(default_factory=dict)

    def with_files(self, files: Mapping[str, bytes | memoryview]) -> Self:
        """This row with the checksums of its files."""
        return replace(self, files={name: zlib.crc32(content) for name, content in files.items()})


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


@dataclass(frozen=True, kw_only=True)
class Measurement(Row):
    """What a verb, whose file it is in, found of an inverter."""

    verb: ClassVar[str]
    network_digest: str

    @classmethod
    def answer(cls) -> str:
        """What the verb gives, and its file is called by."""
        return cls.verb

    def is_of(self, tested: Any) -> bool:
        """Whether it is of the weights that were tested, and not of earlier ones."""
        return self.network_digest == tested.network_digest


@dataclass(frozen=True, kw_only=True)
class DistancesResult(Measurement, RowWithFiles):
    """A column of table 1 (Nash et al. 2019), from `evaluations.distances.table_1`: means over test images.

    The ratios to 1NN do not depend on the arbitrary scale of h. The seed is that of the samples' noise. Class
    agreement is None where no layer gives classes. Samples of one image are not independent, so its standard error is
    over images; its 95 % interval is Wilson's as of one sample an image, too wide rather than nothing where all agree.
    """

    verb = "distances"
    name: str
    layer: str
    seed: int
    num_images: int
    num_samples: int
    one_nn: Number
    one_nn_se: Number
    im_s: Number
    im_s_se: Number
    im_nn: Number
    im_nn_se: Number
    im_s_ratio: Number
    im_s_ratio_se: Number
    im_nn_ratio: Number
    im_nn_ratio_se: Number
    unit: str = "mean absolute difference per unit"
    class_agreement: float | None
    class_agreement_se: float | None
    class_agreement_low: float | None = None
    class_agreement_high: float | None = None
    density_digest: str

    def is_of(self, tested: InverterResult) -> bool:
        return super().is_of(tested) and self.density_digest == tested.density_digest


@dataclass(frozen=True, kw_only=True)
class Reidentification(Row):
    """How often the right one of N candidates is among the first k, from `evaluations.reidentification`.

    Attributes:
        attack: "whose h is it" ranks N images for one h, "which h is of it" N representations for one image.
        classes: Of the images; None where they are of all.
        unseen: Whether no image of these classes was trained on.
        share: With Wilson's 95 % interval; chance is k / N.
    """

    attack: str
    classes: tuple[int, ...] | None = None
    unseen: bool = False
    num_images: int
    k: int
    share: float
    share_low: float
    share_high: float

    @property
    def chance(self) -> float:
        """What a guess finds."""
        return min(self.k / self.num_images, 1.0)

    @property
    def images(self) -> str:
        """Which they are, in words."""
        if self.classes is None:
            return f"{self.num_images} unseen images"
        kind = "unseen class" if self.unseen else "class"
        return f"{self.num_images} of {kind}{'es' * (len(self.classes) > 1)} {', '.join(map(str, self.classes))}"


@dataclass(frozen=True, kw_only=True)
class ContrastResult(Measurement, RowWithFiles):
    """A lower bound of I(x; h) for any model, from `evaluations.contrast.contrastive_bound`: nats, over test images.

    Attributes:
        ceiling_nats: ln of their number, which no such bound exceeds.
        reidentified: How often images are found by their h, from the same scores; rows of up to 0.10 lack it.
    """

    verb = "contrast"
    name: str
    layer: str
    num_images: int
    bound_nats: Number
    bound_nats_se: Number
    bound_nats_low: Number
    bound_nats_high: Number
    ceiling_nats: float
    density_digest: str
    reidentified: tuple[Reidentification, ...] = ()

    def is_of(self, tested: InverterResult) -> bool:
        return super().is_of(tested) and self.density_digest == tested.density_digest

    @property
    def saturated(self) -> bool:
        """Whether more images would give a higher one."""
        return self.bound_nats > NEAR_CEILING * self.ceiling_nats


@dataclass(frozen=True, kw_only=True)
class Scores(Row):
    """What draws are like, from `evaluations.comparison.compared`: means over test images, with standard errors.

    Attributes:
        im_s_ratio: The distance in h of a draw over that of the nearest training image (Nash et al. 2019, table 1).
        im_nn_ratio: Likewise of the nearest of an image's draws.
        class_agreement: The share that gets the class which the inverted network gives the input; None where no layer
            gives classes.
        judge_agreement: Likewise of another classifier; None without one.
        log_prob_difference: log p(x) of draws less that of the inputs, nats; None without an unconditional model.
        diversity: The mean distance of two draws of one input, in pixels, over that of two true images of its class;
            None where there are no draws.
        diversity_in_h: Likewise in h.
        squared_error: Of a sub-pixel in [0, 1].
        psnr: Of that, dB; None where it is infinite.
        ssim: Structural similarity; nan where images are too small.
    """

    im_s_ratio: Number
    im_s_ratio_se: Number
    im_nn_ratio: Number
    im_nn_ratio_se: Number
    class_agreement: float | None = None
    class_agreement_se: float | None = None
    judge_agreement: float | None = None
    judge_agreement_se: float | None = None
    log_prob_difference: float | None = None
    log_prob_difference_se: float | None = None
    diversity: float | None = None
    diversity_se: float | None = None
    diversity_in_h: float | None = None
    diversity_in_h_se: float | None = None
    squared_error: Number
    squared_error_se: Number
    psnr: float | None
    psnr_se: float | None
    ssim: Number
    ssim_se: Number


@dataclass(frozen=True, kw_only=True)
class ComparisonResult(Measurement, RowWithFiles):
    """One way to invert a layer, and the floor and the ceiling of the same images.

    Attributes:
        called: The generator, for people.
        given_image: Whether it was given more than h: the image itself.
        trained: Whether it was trained at all.
        entropy_weight: Of the loss that keeps its draws apart; None where it has no such knob.
        num_samples: Draws of each image. Of a point estimate what is shown is compared, once.
        judge: The run of the other classifier, judge_digest its weights; None without one.
        prior: That of the unconditional model, prior_digest its weights; None without one, as are the next two.
        input_log_prob: The mean of its log p(x) of the inputs, nats.
        input_log_prob_sd: And how far one of them is from that: the standard deviation, nan where there is one.
        seconds_per_draw: On this device, with so many threads.
        own, nearest, input: The scores of what it gives, of the nearest training image by h, and of the input itself.
    """

    verb = "compare"
    name: str
    layer: str
    called: str
    point_estimate: bool
    given_image: bool
    trained: bool
    entropy_weight: float | None = None
    seed: int
    num_images: int
    num_samples: int
    judge: str | None
    judge_digest: str | None
    prior: str | None
    prior_digest: str | None
    input_log_prob: float | None
    input_log_prob_sd: float | None
    seconds_per_draw: float
    device: str
    num_threads: int
    own: Scores
    nearest: Scores
    input: Scores
    density_digest: str

    @property
    def collapsed(self) -> bool:
        """Whether draws of one input, which should differ, are as good as one image."""
        return not self.point_estimate and self.own.diversity is not None and self.own.diversity < COLLAPSED

    @classmethod
    def answer(cls) -> str:
        return "comparison"

    def is_of(self, tested: InverterResult) -> bool:
        return super().is_of(tested) and self.density_digest == tested.density_digest


@dataclass(frozen=True, kw_only=True)
class LedgerResult(Measurement):
    """What a layer keeps of an attribute of the images, nats, from `evaluations.ledger.entry`.

    Attributes:
        kept_nats: At least so much of entropy_nats; its error is paired, over test images.
        entropy_nats: Of the attribute, or of its bins.
        num_values: How many values or bins.
        num_images: Test images.
        num_train: That the probe was trained on.
        channel: What lies behind the layer, so that all is of what arrives of h; None where it is of h, as is the rate.
        rate: Of the channel.
    """

    verb = "ledger"
    name: str
    layer: str
    network: str | None
    attribute: str
    kind: Literal["discrete", "continuous", "circular"]
    kept_nats: Number
    kept_nats_se: Number
    kept_nats_low: Number
    kept_nats_high: Number
    entropy_nats: float
    num_values: int
    num_images: int
    num_train: int
    channel: str | None = None
    rate: str | None = None

    @property
    def called(self) -> str:
        """Which h it is of, for people."""
        return f"{self.name} {self.layer}" + (f", at {self.rate}" if self.rate else "")


@dataclass(frozen=True, kw_only=True)
class EstimatorResult(Measurement):
    """What another estimator says of a layer, nats, and the ceiling that it cannot exceed, where there is one."""

    verb = "estimators"
    estimator: str
    estimate_nats: Number
    ceiling_nats: float | None
    parameters: dict
    num_images: int


@dataclass(frozen=True, kw_only=True)
class CompressionResult(Measurement):
    """How many bytes images took in a file that p(x | h) has made, from which they come back bit for bit.

    Attributes:
        layer: None for an unconditional model.
        network_digest: Empty for one.
        num_bytes: Of the file, header and checksum with it.
        ideal_bytes: -log2 p(x | h) / 8 of all images, by full passes, which is no code's doing.
        h_bytes: Of h, or what arrives of it, as numbers: no part of the file, but whoever decompresses must have it.
        rate: Of a channel behind the layer, at which all of this is; None without one, as is the next.
        sent_bits: An image, as the channel counts them.
        alone_bytes: Of the same images in other formats, by their names, a file each.
        mosaic_bytes: Likewise, of one picture of them all, in which headers count little.
    """

    verb = "compress"
    name: str
    layer: str | None
    num_images: int
    num_dims: int
    num_bytes: int
    ideal_bytes: float
    h_bytes: int
    alone_bytes: dict[str, int]
    mosaic_bytes: dict[str, int]
    density_digest: str
    rate: str | None = None
    sent_bits: float | None = None

    @classmethod
    def answer(cls) -> str:
        return "compression"

    def is_of(self, tested: InverterResult) -> bool:
        its = self.network_digest, self.density_digest, self.rate
        return its == (tested.network_digest or "", tested.density_digest, tested.rate)

    @property
    def given_bytes(self) -> float:
        """An image: of h, or behind a channel of the bits that are sent of it."""
        return self.h_bytes / self.num_images if self.sent_bits is None else self.sent_bits / 8

    def bits_per_dim(self, num_bytes: float) -> float:
        """Bits per sub-pixel of what took so many bytes for all images."""
        return 8 * num_bytes / (self.num_images * self.num_dims)


def _size(shape: tuple[int, int, int] | None) -> str:
    return f"{shape[1]}x{shape[2]}" if shape else "another size"


def result_from_json(row: Mapping[str, Any]) -> ClassifierResult | InverterResult:
    """A test's result by its kind, of version 0.4 too. Raises ValueError as `Row.from_json`."""
    kind = Annotated[ClassifierResult | InverterResult, Field(discriminator="kind")]
    return _read(kind, row if "published" in row else _upgraded(row))


def _read(kind: Any, row: Mapping[str, Any]) -> Any:
    try:
        return _reader(kind).validate_json(json.dumps(row), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        given = "" if isinstance(first["input"], dict) else f", not {first['input']!r}"
        raise ValueError(": ".join([*map(str, first["loc"]), first["msg"] + given])) from error


_reader = cache(TypeAdapter)  # making one takes milliseconds, and there are as many rows as runs


def _upgraded(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of version 0.4, which left to names what the one who writes a row says of it since. Nothing else does."""
    course = {"updates": "regular", "overfitted": "overfitted"}.get(str(row.get("classifier")).rpartition("_")[2])
    world = {**row, "must_fail": row.get("dataset") == "shuffled"} if "passes" in row else None
    point_estimate = row.get("density") == "MSEDecoder"
    return {"dataset_note": None, "point_estimate": point_estimate, "course": course, "world": world, **row}
