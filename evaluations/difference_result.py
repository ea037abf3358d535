"""How one run differs from another, as diff_<the other>.json beside it has it."""

from dataclasses import dataclass

from evaluations.difference import Nats, Pair
from evaluations.results import InverterResult
from evaluations.rows import MeasurementOfDensity, Row, RowWithFiles

PREFIX = "diff_"  # of the names of such files


@dataclass(frozen=True, kw_only=True)
class Side(Row):
    """One of the two runs.

    Attributes:
        called: For people: the layer, with more where both have the same.
        name: The config's.
        checkpoint: That was asked.
        draws_less_own: The other's draws under this model, less likely than the images: `evaluations.difference.gap`.
        own_draws_less: Likewise its own draws, 0 of a calibrated model.
        divergence: The KL divergence of its draws from the other model.
        share_matched: Of pairs of images and of representations, matched rightly.
        alike: The share of draws that are as near by h as the nearest training image; None where draws have no h of
            this layer, or there is no finite training set.
        alike_by_other: How far these are from their images by the other layer, over its own nearest training image.
    """

    called: str
    name: str
    layer: str
    checkpoint: str
    network_digest: str
    density_digest: str
    draws_less_own: Nats
    own_draws_less: Nats
    divergence: Nats
    share_matched: float
    alike: float | None
    alike_by_other: float | None


@dataclass(frozen=True, kw_only=True)
class DifferenceResult(MeasurementOfDensity, RowWithFiles):
    """What B, in whose folder it lies, has and A has not: nats an image.

    Attributes:
        a, b: The two.
        log_prob: log p(x | h) under B less that under A, paired, over num_tested images.
        function: Whether h of B is a function of h of A, "b of a", or the other way round, as of two layers of one
            network with nothing that goes past the earlier one; None where neither is known.
        num_images: The first test images, of which pairs were made and M draws each.
        num_candidates: Draws of each of which sets were chosen.
        pairs_of_a: Pairs that A tells apart better than most and B worse than most; pairs_of_b likewise.
    """

    verb = "diff"
    dataset: str
    a: Side
    b: Side
    function: str | None
    log_prob: Nats
    num_tested: int
    num_images: int
    num_draws: int
    num_candidates: int
    seed: int
    pairs_of_a: tuple[Pair, ...]
    pairs_of_b: tuple[Pair, ...]

    def is_from(self, tested: InverterResult) -> bool:
        """Whether A has the weights that were tested."""
        return (self.a.network_digest, self.a.density_digest) == (tested.network_digest, tested.density_digest)

    @property
    def stem(self) -> str:
        """What its files are called: those of other partners have other names."""
        return f"{PREFIX}{self.a.name}_{self.a.density_digest[:8]}"
