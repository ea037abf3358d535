"""Checkpoints and results of version 0.4, kept in a zip, serve every verb."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_runs import result, run_with_results

from cli import main
from runtime.checkpoints import load_checkpoint

# As they were trained.
NETWORK = [
    "--model.network=ConvNet", "--model.network.filters=[2,2]", "--model.network.num_hidden=4",
    "--trainer.accelerator=cpu",
]  # fmt: skip
OF_0_4 = ["decoder_filters=0", "level_features=0", "palette=false"]
INVERTER = [
    "--config=inverter_mnist5k_fc3.yaml",
    *NETWORK,
    *(f"--model.density.{key}" for key in ["num_filters=2", *OF_0_4]),
]
SMALL = ["--data.eval_batch_size=10", "--num_agreement=3", "--sample_grid.num_images=2", "--sample_grid.num_draws=1"]


@pytest.fixture
def old_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile(Path(__file__).parent / "version_0_4.zip") as archive:
        archive.extractall()
    return tmp_path / "runs"


def test_a_test_gives_the_same_numbers(old_runs):
    folder = old_runs / "inverter_mnist5k_fc3"
    before, arrays = (folder / "results.json").read_text(), {p.name: np.load(p) for p in folder.glob("*.npy")}
    main(["test", *INVERTER, *SMALL, "--trainer.limit_test_batches=2"])
    run = run_with_results()
    row = json.loads((run / "results.json").read_text())
    for key, value in json.loads(before).items():
        if key not in ("commit", "checkpoint"):
            # It rounded log p of nearly certain pixels up, by less than this.
            assert row[key] == (pytest.approx(value, rel=2e-6) if isinstance(value, float) else value), key
    for name, array in arrays.items():
        np.testing.assert_allclose(np.load(run / name), array, rtol=2e-6, atol=1e-5, err_msg=name)
    assert (folder / "results.json").read_text() == before


def assert_same(ours, theirs):
    """JSON of another processor, whose last digits are others."""
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        ours, theirs = list(ours.values()), [theirs[key] for key in ours]
    if isinstance(ours, list):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert_same(one, other)
    else:
        assert ours == (pytest.approx(theirs, rel=1e-5) if isinstance(theirs, float) else theirs)


def test_distances_and_estimators_are_the_same_and_the_others_run(old_runs):
    folder = old_runs / "inverter_mnist5k_fc3"
    before = {name: json.loads((folder / name).read_text()) for name in ("distances.json", "estimators.json")}
    arrays = dict(np.load(folder / "nearest.npz"))
    main(["distances", *INVERTER, "--num_images=4", "--num_samples=2", "--num_queries=1", "--num_candidates=8"])
    main(["estimators", *INVERTER, "--num_images=50"])
    (run,) = (path.parent for path in folder.glob("*/distances.json"))
    after = {name: json.loads((run / name).read_text()) for name in before}
    assert after["distances.json"].pop("files").keys() == {"distances.npz", "nearest.npz"}
    # All but what is of draws, which version 0.7 makes from other noise.
    of_draws = {name for name in before["distances.json"] if name.startswith(("im_", "class_agreement"))}
    assert len(of_draws) == 10
    for name in before["distances.json"].keys() - of_draws:
        assert_same(after["distances.json"][name], before["distances.json"][name])
    assert_same(after["estimators.json"], before["estimators.json"])
    found = np.load(run / "nearest.npz")
    for name in ("inputs", "training"):
        assert np.array_equal(found[name], arrays[name])
    np.testing.assert_allclose(found["training_distances"], arrays["training_distances"], rtol=1e-5)

    main(["sample", *INVERTER, "--num_images=2", "--num_draws=1"])
    (drawn,) = folder.glob("*/draws.npy")
    main(["test", *INVERTER, *SMALL, "--trainer.limit_test_batches=1"])
    (grid,) = folder.glob("*/samples.npz")
    assert np.array_equal(np.load(drawn), np.load(grid)["draws"])
    Image.fromarray(np.load(drawn)[0, 0, 0]).save("a.png")
    main(["score", *INVERTER, "--images=[a.png]"])
    (scores,) = folder.glob("*/scores.csv")
    assert float(scores.read_text().split(",")[-1]) < 0
    main(["validate", *INVERTER, *SMALL, "--trainer.limit_val_batches=1"])
    main(["predict", *INVERTER, "--data.eval_batch_size=10", "--trainer.limit_predict_batches=1"])


def test_its_classifier_is_inverted(old_runs):
    short = ["--trainer.max_steps=1", "--trainer.limit_val_batches=1", "--trainer.limit_test_batches=1"]
    main(["fit", *INVERTER, *SMALL, *short, "--data.batch_size=4", "--trainer.logger=false"])
    row = result()
    assert (row["classifier"], row["classifier_updates"], row["course"]) == ("classifier_mnist5k", 3, None)


def test_the_report_has_its_rows(old_runs, capsys):
    main(["report"])
    page = Path("runs/report.html").read_text().replace("\N{MINUS SIGN}", "-")
    for folder, digits in (("inverter_mnist5k_fc3", 2), ("world_bit_drop", 3)):
        assert f"{json.loads((old_runs / folder / 'results.json').read_text())['nce_nats']:.{digits}f}" in page
    assert "older version" not in page


def test_a_fit_goes_on_from_it(old_runs):
    small = [*SMALL, "--data.batch_size=4", "--trainer.limit_val_batches=1", "--test_after_fit=false"]
    # Up to version 0.8 the config said Adam alone.
    adam = ["--model.muon=null", "--model.cooldown=0", "--model.lr=0.003", "--model.lr_decay=0.9999"]
    main(["fit", *INVERTER, *small, *adam, "--ckpt_path=best", "--trainer.max_steps=3", "--trainer.logger=false"])
    (last,) = (old_runs / "inverter_mnist5k_fc3").glob("*/checkpoints/last.ckpt")
    assert load_checkpoint(last)["global_step"] == 3
