"""What a config may name without its module."""

from inverters.classifier import Classifier
from inverters.exact_networks import EverySecondPixel, GlyphNet, PositionNet, ReluNet, TopBits
from inverters.inverter import Inverter
from inverters.likelihoods import Categorical, LogisticMixture
from inverters.mse_decoder import MSEDecoder
from inverters.network_by_name import Network
from inverters.networks import ConvNet, FullyConnectedNet
from inverters.pixelcnn import PixelCNN
from inverters.preprocessing import Preprocessing

__all__ = [
    "Categorical", "Classifier", "ConvNet", "EverySecondPixel", "FullyConnectedNet", "GlyphNet", "Inverter",
    "LogisticMixture", "MSEDecoder", "Network", "PixelCNN", "PositionNet", "Preprocessing", "ReluNet", "TopBits",
]  # fmt: skip
