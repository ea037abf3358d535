"""The README's benchmarks run, at a tiny size, and write what they measured."""

import importlib
import json
import statistics
import sys
from functools import partial

import pytest
import torch
from test_configs import CONFIGS
from test_readme import LINES

from benchmarks import cost, gpu_check, gpu_time
from benchmarks.launches import launches, parts_of_step
from benchmarks.measure import gemm_rate, interleaved, ratio
from benchmarks.sizes import SIZES

COMMANDS = {line[2]: line[3:] for line in LINES if line[:2] == ["python", "-m"]}
TINY = ["--sizes=tiny", "--threads=1"]


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """The figures of a benchmark that is called as in the README, but for its size."""

    def figures(name, *sizes):
        path = tmp_path / "figures.json"
        argv = [name, *COMMANDS[f"benchmarks.{name}"], "--repeats=2", "--device=cpu", f"--json={path}", *sizes]
        monkeypatch.setattr(sys, "argv", argv)
        importlib.import_module(f"benchmarks.{name}").main()
        assert "| ---" in capsys.readouterr().out
        return json.loads(path.read_text())

    return figures


def test_all_are_in_the_readme():
    names = (
        "cache", "cost", "coverage", "gpu_check", "gpu_time", "launches", "nearest", "sampling", "scaling", "threads",
        "training", "worlds",
    )  # fmt: skip
    assert COMMANDS.keys() == {f"benchmarks.{name}" for name in names}
    assert {word for command in COMMANDS.values() for word in command if word.endswith(".yaml")} <= set(CONFIGS)


def test_sampling(run):
    figures = run("sampling", *TINY)
    assert figures["machine"]["torch"] == torch.__version__
    (row,) = figures["rows"]
    assert 0 < row["ratio"]["low"] <= row["ratio"]["median"] <= row["ratio"]["high"]
    # What is computed once a pixel instead of once a pixel and pass.
    assert row["GFLOP, full pass a pixel"] > 10 * row["incremental GFLOP"]


def test_grid(run):
    (row,) = run("sampling", "--grid", "inverter_mnist5k_fc3.yaml")["rows"]
    assert row["grid / steps between"]["median"] == pytest.approx(
        row["grid, s"] / row["step, s"] / row["steps between grids"], rel=0.5
    )


def test_training(run):
    (row,) = run("training", *TINY)["rows"]
    assert row["ours, images/s"] > 1
    assert row["ours, MiB"] >= 0


def test_scaling(run):
    (row,) = run("scaling")["rows"]
    assert row["processes"] == 2
    assert 0.05 < row["efficiency"]["median"] < 2


def test_a_missing_peer_is_named(run, tmp_path):
    with pytest.raises(FileNotFoundError, match="--peer takes a checkout"):
        run("training", *TINY, f"--peer={tmp_path}")


def test_cost_at_a_given_rate(run):
    (row,) = run("cost", "--config", "inverter_mnist5k_fc3.yaml", "--flop_rate=1e9")["rows"]
    assert (row["steps"], row["batch"]) == (2500, 8)
    hours = 2500 * 8 * row["GFLOP an image"] / 3600
    assert row["training at 1e+09 FLOP/s"] == f"{hours:.1f} h"


def test_a_batch_without_pairs_is_refused(run):
    with pytest.raises(SystemExit, match="--batch is 1; give at least 2"):
        run("worlds", "--batch=1")


def test_cost_of_a_classifier_is_refused(run):
    with pytest.raises(SystemExit, match="this takes an inverter's config"):
        run("cost", "--config", "classifier_mnist5k.yaml")


def test_coverage_trains_what_is_missing_and_scores_it(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sizes = ["--weights=1", "--seeds=3", "--steps=1", "--draws=2", f"--figure={tmp_path / 'figure.png'}"]
    rows = run("coverage", *sizes)["rows"]
    assert [row["method"] for row in rows] == ["likelihood", "MSE decoder", "stacked GAN"]
    assert all(row["places covered"] == row["draws valid"] == 0 for row in rows)  # of networks that know nothing yet
    assert (tmp_path / "figure.png").is_file()
    kept = sorted(tmp_path.glob("runs/coverage/*/*/checkpoints/last.ckpt"))
    assert [path.parts[-3] for path in kept] == ["stacked-GAN-1-3", "MSE-decoder-0", "likelihood-0"]
    before = [path.stat().st_mtime_ns for path in kept]
    assert run("coverage", *sizes)["rows"] == rows
    assert [path.stat().st_mtime_ns for path in kept] == before


def test_nearest(run):
    (row,) = run("nearest", "--num_queries=4", "--num_rows=300", "--num_units=8")["rows"]
    assert row["torch.cdist / nearest"]["median"] > 0
    assert 0 <= row["MiB"] < 1000


def test_times_are_interleaved_and_ratios_paired():
    calls = []
    times = interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3, torch.device("cpu"))
    assert calls == ["a", "b"] * 4
    assert [len(measured) for measured in times.values()] == [3, 3]
    assert ratio([2, 9, 4], [1, 3, 1], scale=10) == {"median": 30, "low": 20, "high": 40}


def test_gemm_rate_is_that_of_a_product():
    rates = [gemm_rate(torch.device("cpu"), size=256) for _ in range(3)]
    assert 1e9 < statistics.median(rates) < 1e13


def test_cache(run):
    (row,) = run("cache", "--config", "inverter_mnist5k_logits.yaml", "--num_images=100")["rows"]
    assert row["h"] == "10"
    assert 0 < row["network / step"]["median"] < 1
    assert 0 < row["float32 / step"]["median"] < 1


def test_nce_with_h_in_float16(run, tmp_path):
    config, path = "mse_mnist5k_logits.yaml", tmp_path / "any.ckpt"
    torch.save({"state_dict": cost.configured(config, torch.device("cpu"))[0].model.state_dict()}, path)
    (row,) = run("cache", "--config", config, "--nce", str(path))["rows"]
    assert row["test images"] == 500
    assert row["NCE, float16"] == pytest.approx(row["NCE, float32"], rel=1e-3)


def test_a_launch_computes_and_is_no_view():
    x = torch.ones(2, 3)
    assert launches(lambda: torch.empty(6).copy_(x.T.reshape(6)).view(2, 3).add_(1)) == {
        "clone": 1,
        "copy_": 1,
        "add_": 1,
    }
    with torch.autocast("cpu", torch.bfloat16):
        assert launches(lambda: x @ x.T) == {"_to_copy": 2, "mm": 1}


@pytest.mark.parametrize(("size", "most"), [("mnist", 1299), ("cifar", 1390)])
def test_a_step_in_bf16_launches_no_more_than_it_did(size, most):
    parts = parts_of_step(SIZES[size], torch.device("cpu"), bf16=True)
    assert sum(sum(part.values()) for part in parts.values()) <= most


def test_all_that_must_hold_on_a_gpu_holds_on_a_cpu(run):
    rows = run("gpu_check", *TINY)["rows"]
    assert {row["holds"] for row in rows} == {"yes", "reported"}
    assert {row["size"] for row in rows} == {"tiny", ""}


def test_what_does_not_hold_is_named_and_the_exit_status(monkeypatch):
    monkeypatch.setattr(gpu_check, "rows", lambda *_: iter([gpu_check.row("", "1 = 0", lambda: 1 / 0)]))
    monkeypatch.setattr(sys, "argv", ["gpu_check", "--device=cpu"])
    with pytest.raises(SystemExit, match="1 do not hold: 1 = 0"):
        gpu_check.main()


def test_an_error_of_one_measurement_is_its_row(run, monkeypatch):
    no_such = partial(gpu_time.by_inductor, **{"no such option": True})
    variants = {"bf16": (True, None), "of no kind": (False, no_such)}
    monkeypatch.setattr(gpu_time, "VARIANTS", variants)
    rows = {row["what"]: row for row in run("gpu_time", *TINY, "--compile")["rows"]}
    assert "no such option" in rows["step, of no kind"]["error"]
    assert rows["step, bf16"]["ms"] > 0
    assert rows["draws"]["noise, ms"] < rows["draws"]["ms"]
    assert rows["step of fit"]["ms"] > 0


def test_threads_beside_a_busy_program(run):
    (row,) = run("threads", "--threads=1", "--busy=1", "--repeats=1")["rows"]
    assert row["busy programs"] == 1
    assert float(row["1 thread"].split()[0]) > 0
