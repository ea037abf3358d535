"""What decides a training but its length: of two runs that have the same, one has only seen more images."""

import hashlib
import json
from typing import Any

from datamodules import ImageDataModule

OF_TRAINER = ("precision", "gradient_clip_val", "gradient_clip_algorithm", "limit_train_batches")


def recipe(settings: Any, data: ImageDataModule) -> str:
    """A digest of model, data, seed and arithmetic; the weights of a network that is inverted have one of their own.

    Args:
        settings: The values of all keys of a fit.
        data: That it trains on.
    """
    its = settings.as_dict()
    trainer = {key: its["trainer"].get(key) for key in OF_TRAINER}
    decides = [its["model"], its["averaging_decay"], its["seed_everything"], trainer]
    decides += [data.name, data.identity, data.batch_size]
    return hashlib.sha256(json.dumps(decides, sort_keys=True, default=str).encode()).hexdigest()[:16]
