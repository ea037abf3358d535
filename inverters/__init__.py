"""What a config may name without its module."""

from inverters.classifier import Classifier
from inverters.exact_networks import EverySecondPixel, GlyphNet, PositionNet, ReluNet, TopBits
from inverters.inverter import Inverter
from inverters.likelihoods import Categorical, LogisticMixture
from inverters.mse_decoder import MSEDecoder
from inverters.networks import ConvNet, FullyConnectedNet
from inverters.pixelcnn import PixelCNN

__all__ = [
    "Categorical", "Classifier", "ConvNet", "EverySecondPixel", "FullyConnectedNet", "GlyphNet", "Inverter",
    "LogisticMixture", "MSEDecoder", "PixelCNN", "PositionNet", "ReluNet", "TopBits",
]  # fmt: skip
