"""What the verbs found of inverters, as distances.json, comparison.json and so on hold it."""

from dataclasses import dataclass
from typing import Literal

from evaluations.contrast import NEAR_CEILING
from evaluations.diversity import COLLAPSED
from evaluations.results import InverterResult
from evaluations.rows import Measurement, MeasurementOfDensity, Number, Row, RowWithFiles


@dataclass(frozen=True, kw_only=True)
class DistancesResult(MeasurementOfDensity, RowWithFiles):
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
class ContrastResult(MeasurementOfDensity, RowWithFiles):
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
    reidentified: tuple[Reidentification, ...] = ()

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
class ComparisonResult(MeasurementOfDensity, RowWithFiles):
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

    @property
    def collapsed(self) -> bool:
        """Whether draws of one input, which should differ, are as good as one image."""
        return not self.point_estimate and self.own.diversity is not None and self.own.diversity < COLLAPSED

    @classmethod
    def answer(cls) -> str:
        return "comparison"


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
class CompressionResult(MeasurementOfDensity):
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
