"""What decides a training but its length: of two runs that have the same, one has only seen more images."""

import hashlib
import json
from typing import Any

from datamodules import ImageDataModule

OF_TRAINER = ("precision", "gradient_clip_val", "gradient_clip_algorithm", "limit_train_batches", "overfit_batches")
NONE = (("companions", 0), ("decoder_layers", 1))  # of a density, as before there were any
NOT_OF_TRAINING = ("sample_batch_size", "weights")  # of an inverter; the weights that it inverts have a digest


def recipe(settings: Any, data: ImageDataModule) -> str:
    """A digest of model, data, seed and arithmetic; the weights of a network that is inverted have one of their own.

    Args:
        settings: The values of all keys of a fit.
        data: That it trains on.
    """
    its = settings.as_dict()
    trainer = {key: its["trainer"].get(key) for key in OF_TRAINER}
    model = {key: value for key, value in its["model"]["init_args"].items() if key not in NOT_OF_TRAINING}
    if model.get("channel") is None:
        model.pop("channel", None)  # as before there were any
    if not model.get("warp"):
        model.pop("warp", None)
    density = model.get("density")
    if isinstance(density, dict) and "init_args" in density:
        its_own = density["init_args"].items()
        model["density"] = density | {"init_args": {k: v for k, v in its_own if k != "sampler" and (k, v) not in NONE}}
    decides = [
        its["model"]["class_path"],
        model,
        its.get("cache_activations"),
        its["averaging_decay"],
        its["seed_everything"],
    ]
    decides += [trainer, data.name, data.identity, data.batch_size]
    return hashlib.sha256(json.dumps(decides, sort_keys=True, default=str).encode()).hexdigest()[:16]
