"""Silence about what Lightning says and nobody needs."""

import logging
import os
import warnings


def silence_lightning() -> None:
    """Keep Lightning's advertisements, and advice that does not apply here, off the screen; let our own remarks on."""
    logging.basicConfig(format="%(message)s")
    logging.raiseExceptions = False  # W&B's own log would print a traceback for every line that a full disk refuses
    logging.getLogger("inverters").setLevel(logging.INFO)
    for name in (
        "pytorch_lightning", "pytorch_lightning.utilities.rank_zero", "lightning_fabric",
        "lightning_fabric.utilities.seed", "lightning_fabric.utilities.distributed",
    ):  # fmt: skip
        logging.getLogger(name).setLevel(logging.WARNING)
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # Lightning 2.6's to answer, not the user's
    for message in (
        ".*does not have many workers.*",  # the images are in memory: workers would only copy them
        "Checkpoint directory .* exists and is not empty.*",  # the run makes it, and a resumed run goes on in it
        ".*is smaller than the logging interval.*",  # of one epoch; metrics are logged by steps over all epochs
        ".*callbacks used to create the checkpoint need to be provided.*",  # not in order to test
        "The dirpath has changed from.*",  # a path is relative to the working folder
        ".*resuming from a checkpoint that ended before the epoch ended.*",  # our sampler goes on where it was
        ".*broadcast_buffers. is deprecated.*",  # its new name is not in every torch that we take
        ".*Grad strides do not match bucket view strides.*",  # of 1x1 convolutions, whose strides mean the same
        ".*It is recommended to use `self.log.*sync_dist=True.*",  # the sums are of all processes already
        ".*`srun` command is available on your system but is not used.*",
        ".*isinstance.treespec, LeafSpec.*",  # Lightning calls what newer torch deprecates
        "Found .* module.s. in eval mode at the start of training.*",  # the frozen representation, as it must be
    ):
        warnings.filterwarnings("ignore", message=message)
