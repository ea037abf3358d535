"""Every config runs through the command line."""

import json
from pathlib import Path

import pytest
from mnist_files import write_mnist

from cli import main

CONFIGS = sorted(path.name for path in (Path(__file__).parents[1] / "configs").glob("*.yaml"))
SHORT = [
    "--trainer.max_steps=1", "--trainer.limit_val_batches=2", "--trainer.limit_test_batches=2",
    "--data.batch_size=2", "--data.eval_batch_size=3",
]  # fmt: skip
INVERTER = [
    "--model.density.num_filters=4", "--num_agreement=2", "--sample_grid.num_images=2", "--sample_grid.num_draws=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("configs")
    write_mnist(folder / "data", num_train=40, num_test=10)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in ("classifier_mnist5k.yaml", "classifier_mnist.yaml"):
            main(["fit", "--config", name, *SHORT, *(["--data.val_split=10"] if "5k" not in name else [])])
    return folder


@pytest.mark.parametrize("name", CONFIGS)
def test_config_fits_and_tests(workspace, monkeypatch, name):
    monkeypatch.chdir(workspace)
    extra = [] if "5k" in name else ["--data.val_split=10"]
    main(["fit", "--config", name, *SHORT, *extra, *([] if name.startswith("classifier") else INVERTER)])
    row = json.loads(Path("runs", name.removesuffix(".yaml"), "results.json").read_text())
    assert row["num_images"] == 6
    if name.startswith("unconditional"):
        assert row["shuffled_nce_nats"] is None
        assert row["class_agreement"] is None
