"""Which command trains a model that a measure needs beside an inverter: a second classifier, or p(x)."""

from pathlib import Path

JUDGES = "judge"  # the folder, in that of all runs, of classifiers that are to be inverted by nobody

# By what a data set is called, a folder of pictures by what is before the colon; others have no config.
OF_DATA = {
    "mnist5k": "unconditional_mnist5k",
    "mnist": "unconditional_mnist",
    "svhn": "unconditional_svhn",
    "cifar10": "unconditional_cifar",
    "affnist": "unconditional_affnist",
    "affnist_generated": "unconditional_affnist",
    "photos": "unconditional_photos",
    "images": "unconditional_images",
}
FOR_A_CPU = {"unconditional_mnist", "unconditional_images"}  # of which there is one with _small


def second_classifier(config: str = "classifier_...", root: Path = Path("runs")) -> str:
    """The command that trains a config's classifier again, from another seed, where a comparison looks for it."""
    return f"python cli.py fit --config {config} --seed_everything 1 --trainer.default_root_dir {root / JUDGES}"


def config_of_p_x(dataset: str, beside: str) -> str | None:
    """The config of an unconditional model of a data set, None where there is none.

    Args:
        dataset: As results call it.
        beside: The config of the inverter that it is for, a small one's being small.
    """
    found = OF_DATA.get(dataset.partition(":")[0])
    return f"{found}_small" if found in FOR_A_CPU and beside.endswith("_small") else found


def train_p_x(dataset: str, beside: str) -> str:
    """What makes one, for people."""
    config = config_of_p_x(dataset, beside)
    return f"train one on the same data: python cli.py fit --config {config}" if config else (
        f"there is no config of one for {dataset}: write one after unconditional_mnist"
    )  # fmt: skip
