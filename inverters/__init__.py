"""What a config may name without its module, and `load`, by which Python has what was trained."""

import os
import typing

from inverters import worlds
from inverters.channel import AdditiveNoise, KMeansCodes, PrincipalComponents, UniformQuantiser, UnitsKept
from inverters.classifier import Classifier
from inverters.deconvnet import Deconvnet
from inverters.exact_networks import (
    CoordinatesNet,
    EverySecondPixel,
    GlyphNet,
    MixedBits,
    PermutedLevels,
    PositionNet,
    ReluNet,
    TopBits,
)
from inverters.inverter import Inverter
from inverters.likelihoods import Categorical, LogisticMixture
from inverters.mse_decoder import MSEDecoder
from inverters.network_by_name import Network
from inverters.networks import ConvNet, FullyConnectedNet
from inverters.perceptual_decoder import PerceptualDecoder
from inverters.pixel_optimisation import PixelOptimisation
from inverters.pixelcnn import PixelCNN
from inverters.preprocessing import Preprocessing
from inverters.stacked_gan import StackedGAN

if typing.TYPE_CHECKING:
    from commands.from_python import TrainedInverter

__all__ = [
    "AdditiveNoise", "Categorical", "Classifier", "ConvNet", "CoordinatesNet", "Deconvnet", "EverySecondPixel",
    "FullyConnectedNet", "GlyphNet", "Inverter", "KMeansCodes", "LogisticMixture", "MSEDecoder", "MixedBits", "Network",
    "PerceptualDecoder", "PermutedLevels", "PixelCNN", "PixelOptimisation", "PositionNet", "Preprocessing",
    "PrincipalComponents", "ReluNet", "StackedGAN", "TopBits", "UniformQuantiser", "UnitsKept", "load", "worlds",
]  # fmt: skip


def load(place: str | os.PathLike[str], device: str | None = None) -> "TrainedInverter":
    """A trained inverter of a run: log p(x | h), draws, h and the information, from Python.

    Nothing is said or drawn, no data set is read, and neither W&B nor a trainer is begun. The model is built as the
    run's config.yaml says, which is code: it imports what it names. The checkpoint is never executed.

        inverter = inverters.load("runs/inverter_mnist5k_fc3")
        inverter.log_prob(images, h_of=others)     # float64 [N], nats

    Args:
        place: A config's folder runs/NAME, whose newest run's best checkpoint is taken; a run's own, runs/NAME/START;
            or a checkpoint in it.
        device: Where it computes: "cpu", "cuda", "cuda:1"; by default a GPU, where there is one.

    Raises:
        OSError: There is no such run or checkpoint, or it has no config.
        ValueError: It is not of an inverter, its config or its checkpoint cannot be read, or there is no such device.
    """
    from commands.from_python import load_inverter  # the one import upwards: only here is a run known by its place

    return load_inverter(place, device)
