"""The weights of the network that is inverted: a classifier's, or those that are asked for."""

from itertools import zip_longest
from pathlib import Path

import torch
from torch import nn

from datamodules import ImageDataModule
from inverters import ConvNet, FullyConnectedNet, Inverter
from inverters.exact_float32 import exact_float32
from inverters.network_by_name import named
from inverters.preprocessing import check_same
from inverters.representation import alike, architecture, check_fingerprint, fingerprint, random_images
from inverters.weights import fitted, weights_of_file
from runtime.checkpoints import check_fit, load_checkpoint
from runtime.run import Run

WORDS = ("untrained", "pretrained", "own")


def check_source(inverter: Inverter, classifier: str | None) -> None:
    """Raises ValueError where a new inverter's network has no weights, or is to have those of two."""
    representation = inverter.representation
    if inverter.weights and classifier:
        raise ValueError(
            f"--model.weights {inverter.weights} and --classifier {classifier} are both given; give one of them: "
            f"--classifier null where the config has a classifier"
        )
    by_name = named(representation.network)
    of_hub = by_name is not None and by_name.of_hub and "checkpoint_path" not in by_name.arguments
    if inverter.weights == "own" and (of_hub or isinstance(representation.network, ConvNet | FullyConnectedNet)):
        raise ValueError(
            f"--model.weights is own, and {inverter.network_name} comes without any; give a file, pretrained or "
            f"untrained"
        )
    if inverter.weights and representation.layer is None:
        raise ValueError(f"--model.weights {inverter.weights} is for a layer's network; this model has no layer")
    if not inverter.weights and not classifier and next(representation.parameters(), None) is not None:
        raise ValueError(
            "the network has weights and none are given; set --classifier to the name of a classifier's config or to "
            "the path of its checkpoint, or --model.weights to a file, or to untrained, pretrained or own"
        )


def load_network(inverter: Inverter, classifier: Path | None, data: ImageDataModule) -> None:
    """Put weights into the network of a new inverter; afterwards the inverter's own checkpoint holds them.

    Args:
        inverter: Whose `weights` are loaded where there is no classifier.
        classifier: Its checkpoint.
        data: That the inverter is trained on.

    Raises:
        OSError: A file cannot be read.
        ValueError: It is not of this network, or was trained on other data.
    """
    network, weights = inverter.representation.network, inverter.weights
    if classifier:
        _load_classifier(inverter, classifier, data)
    elif weights:
        inverter.classifier_name = weights if weights in WORDS else Path(weights).name
        if weights == "pretrained":
            by_name = named(network)
            if by_name is None:
                raise ValueError("weights is pretrained, and the network is not of torchvision: or timm:; give a file")
            take_weights(inverter, by_name.pretrained(inverter.num_classes).eval())
        elif weights not in WORDS:
            needed = inverter.representation.needed(inverter.seen_shape)
            found = fitted(weights_of_file(weights), network, needed, weights)
            own = network.state_dict()
            left = [name for name in own if name not in found and not name.endswith("num_batches_tracked")]
            inverter.classifies = inverter.classifies and not left  # scores of a random head
            network.load_state_dict({**own, **found})


def take_weights(inverter: Inverter, other: nn.Module) -> None:
    """The weights of the same network with those of a hub.

    Raises:
        ValueError: The hub's is made otherwise, so that its weights alone are not it.
    """
    representation = inverter.representation
    network, place = representation.network, representation.place
    assert place is not None
    remedy = "give --model.network.arguments that make it so (transform_input, aux_logits, ...)"
    try:
        network.load_state_dict(other.state_dict())
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"with its weights the network is made otherwise ({reason}); {remedy}") from error
    with torch.no_grad(), exact_float32(torch.device("cpu")):
        x = representation.preprocess(random_images(inverter.seen_shape), network)
        ours, theirs = (place.chosen(place.output(each, x.clone())) for each in (network, other))
    if not alike(theirs, ours):
        raise ValueError(f"with its weights the network gives something else of an image; {remedy}")
    about = getattr(network, "pretrained_cfg", None) or {}
    if about and about.get("num_classes") != getattr(network, "num_classes", None):  # timm has made a new head
        inverter.classifies = False
        head = str(about.get("classifier"))
        if any(name.startswith(f"{head}.") for name in representation.needed(inverter.seen_shape)):
            raise ValueError(f"the hub has no weights of {head} for {getattr(network, 'num_classes', None)} classes")


def _load_classifier(inverter: Inverter, path: Path, data: ImageDataModule) -> None:
    checkpoint, network = load_checkpoint(path), inverter.representation.network
    if "architecture" not in checkpoint:
        raise ValueError(f"{path} is not the checkpoint of a classifier; give the weights of a file as --model.weights")
    data.check(checkpoint, f"the classifier {path}", classifier=True)
    prefix = "network."
    weights = {k[len(prefix) :]: v for k, v in checkpoint["state_dict"].items() if k.startswith(prefix)}
    check_fit(network, weights, path)
    ours = architecture(network)
    if checkpoint["architecture"] != ours:
        lines = zip_longest(checkpoint["architecture"].splitlines(), ours.splitlines(), fillvalue="nothing")
        theirs, wanted = next(pair for pair in lines if pair[0] != pair[1])
        raise ValueError(f"the classifier {path} has {theirs.strip()} where this config has {wanted.strip()}")
    check_same(checkpoint, inverter.representation.preprocess.what, f"the classifier {path}")
    network.load_state_dict(weights)
    ours_now = inverter.representation.output(random_images(inverter.seen_shape))
    check_fingerprint(checkpoint, fingerprint(ours_now), f"the classifier {path}")
    run = Run.of(path)
    inverter.classifier_name = run.name if run else path.stem
    inverter.classifier_updates, inverter.classifier_course = checkpoint["global_step"], checkpoint.get("course")
