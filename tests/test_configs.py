"""Every config runs through the command line."""

import pytest
from dataset_files import write_data_sets
from small_runs import ROOT, result

from callbacks.initialise_from_data import InitialiseFromData
from cli import main

CONFIGS = sorted(path.name for path in (ROOT / "configs").glob("*.yaml"))
# The packages that hold these networks and their weights are in no extra for developers.
MORE = ("inverter_photos_lite0.yaml", "inverter_photos_onet.yaml")
RUN = [pytest.param(name, marks=pytest.mark.slow) if name in MORE else name for name in CONFIGS]
SHORT = [
    "--trainer.max_steps=1", "--trainer.limit_val_batches=2", "--trainer.limit_test_batches=2",
    "--data.batch_size=2", "--data.eval_batch_size=3",
]  # fmt: skip
DECODER = ["--num_agreement=2", "--sample_grid.num_images=2", "--sample_grid.num_draws=1"]
INVERTER = ["--model.density.num_filters=4", "--model.density.num_layers=1", *DECODER]


def shortened(name):
    """A config's arguments, with flags that make it small."""
    kind, data = name.removesuffix(".yaml").split("_")[:2]
    arguments = ["--config", name, *SHORT]
    arguments += {
        "mnist": ["--data.val_split=10"],
        "cifar": ["--data.val_split=10"],
        "affnist": ["--data.val_split=10", "--data.num_transformations=2"],
        "images": ["--data.path=pictures.zip"],
    }.get(data, [])
    if name == "classifier_mnist_overfitted.yaml":
        arguments += ["--data.num_train=10"]
    of_kind = {
        "classifier": [],
        **dict.fromkeys(("mse", "perceptual", "gan", "deconvnet"), DECODER),
        "pixels": [*DECODER, "--model.density.num_steps=2"],
    }
    return arguments + of_kind.get(kind, INVERTER)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("configs")
    with pytest.MonkeyPatch.context() as patch:
        write_data_sets(folder, patch)
        patch.chdir(folder)
        patch.setattr(InitialiseFromData.__init__, "__defaults__", (64, 100, 50))  # not 50 000 of a world's images
        for name in CONFIGS:
            if name.startswith("classifier"):
                main(["fit", *shortened(name)])
        yield folder


@pytest.mark.parametrize("name", RUN)
def test_config_fits_and_tests(workspace, monkeypatch, name):
    monkeypatch.chdir(workspace)
    if not name.startswith("classifier"):
        main(["fit", *shortened(name)])
    row = result(name.removesuffix(".yaml"))
    assert row["num_images"] == 6
    if name.startswith("unconditional"):
        assert row["shuffled_nce_nats"] is None
        assert row["class_agreement"] is None


@pytest.mark.parametrize("name", CONFIGS)
def test_header_gives_source_command_cost_and_expectation(name):
    lines = (ROOT / "configs" / name).read_text().splitlines()
    assert [line.split(":")[0] for line in lines[:4]] == ["# Source", "# Command", "# Cost", "# Expected"]
    assert lines[1].startswith(f"# Command: python cli.py fit --config {name}")
