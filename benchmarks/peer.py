"""A checkout of the public PyTorch port of PixelCNN++ (pclucas14/pixel-cnn-pp), to run beside ours."""

import re
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from inverters.likelihoods import Likelihood

OF_PEER = {"type": Path, "help": "a checkout of pclucas14/pixel-cnn-pp to run beside ours"}  # its option


def peer_pixelcnn(
    checkout: Path, channels: int, likelihood: Likelihood, num_filters: int, num_layers: int, dropout: float
) -> nn.Module:
    """Its network with our likelihood's number of parameters and our kind of dropout: x in [-1, 1] -> [B, P, H, W].

    Raises:
        FileNotFoundError: It is not such a checkout.
    """
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    modules: dict[str, Any] = {}
    for name in ("utils", "layers", "model"):
        path = checkout / f"{name}.py"
        if not path.is_file():
            raise FileNotFoundError(f"no {path}; --peer takes a checkout of github.com/pclucas14/pixel-cnn-pp")
        source = re.sub(r"^(\s*)print (\w+)$", r"\1print(\2)", path.read_text(), flags=re.MULTILINE)  # of Python 2
        modules[name] = sys.modules[name] = ModuleType(name)
        exec(compile(source, str(path), "exec"), modules[name].__dict__)
    for name in modules:
        del sys.modules[name]
    model = modules["model"]
    network: Any = model.PixelCNN(num_layers, num_filters, input_channels=channels)
    network.nin_out = model.nin(num_filters, likelihood.num_parameters(channels))
    for layer in network.modules():
        if isinstance(layer, model.gated_resnet):
            layer.dropout = nn.Dropout(dropout)  # of elements, as in the original and ours; the port drops channels
    return network
