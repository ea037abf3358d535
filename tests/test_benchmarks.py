"""The benchmarks run, at a tiny size, and write what they measured."""

import json
import statistics
import sys

import pytest
import torch

from benchmarks import cache, cost, sampling, scaling, training
from benchmarks.measure import gemm_rate, interleaved, ratio


def run(benchmark, monkeypatch, tmp_path, *arguments):
    path = tmp_path / "figures.json"
    monkeypatch.setattr(sys, "argv", ["benchmark", "--repeats=2", "--device=cpu", f"--json={path}", *arguments])
    benchmark.main()
    return json.loads(path.read_text())


def test_sampling(monkeypatch, tmp_path, capsys):
    figures = run(sampling, monkeypatch, tmp_path, "--sizes", "tiny")
    assert "| size | images |" in " ".join(capsys.readouterr().out.split())
    assert figures["machine"]["torch"] == torch.__version__
    (row,) = figures["rows"]
    assert 0 < row["ratio"]["low"] <= row["ratio"]["median"] <= row["ratio"]["high"]
    # What is computed once a pixel instead of once a pixel and pass.
    assert row["GFLOP, full pass a pixel"] > 10 * row["incremental GFLOP"]


def test_grid(monkeypatch, tmp_path):
    (row,) = run(sampling, monkeypatch, tmp_path, "--grid", "inverter_mnist5k_fc3.yaml")["rows"]
    assert row["grid / steps between"]["median"] == pytest.approx(
        row["grid, s"] / row["step, s"] / row["steps between grids"], rel=0.5
    )


def test_training(monkeypatch, tmp_path):
    (row,) = run(training, monkeypatch, tmp_path, "--sizes", "tiny", "--threads", "1")["rows"]
    assert row["ours, images/s"] > 1
    assert row["ours, MiB"] >= 0


def test_scaling(monkeypatch, tmp_path):
    (row,) = run(scaling, monkeypatch, tmp_path)["rows"]
    assert row["processes"] == 2
    assert 0.05 < row["efficiency"]["median"] < 2


def test_a_missing_peer_is_named(monkeypatch, tmp_path):
    with pytest.raises(FileNotFoundError, match="--peer takes a checkout"):
        run(training, monkeypatch, tmp_path, "--sizes", "tiny", "--threads", "1", f"--peer={tmp_path}")


def test_cost_at_a_given_rate(monkeypatch, tmp_path):
    arguments = ["--config", "inverter_mnist5k_fc3.yaml", "--flop_rate", "1e9"]
    (row,) = run(cost, monkeypatch, tmp_path, *arguments)["rows"]
    assert (row["steps"], row["batch"]) == (1500, 16)
    hours = 1500 * 16 * row["GFLOP an image"] / 3600
    assert row["training at 1e+09 FLOP/s"] == f"{hours:.1f} h"


def test_cost_of_a_classifier_is_refused(monkeypatch, tmp_path):
    with pytest.raises(SystemExit, match="this takes an inverter's config"):
        run(cost, monkeypatch, tmp_path, "--config", "classifier_mnist5k.yaml")


def test_times_are_interleaved_and_ratios_paired():
    calls = []
    times = interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3, torch.device("cpu"))
    assert calls == ["a", "b"] * 4
    assert [len(measured) for measured in times.values()] == [3, 3]
    assert ratio([2, 9, 4], [1, 3, 1], scale=10) == {"median": 30, "low": 20, "high": 40}


def test_gemm_rate_is_that_of_a_product():
    torch.set_num_threads(1)
    rates = [gemm_rate(torch.device("cpu"), size=256) for _ in range(3)]
    assert 1e9 < statistics.median(rates) < 1e13


def test_cache(monkeypatch, tmp_path):
    (row,) = run(cache, monkeypatch, tmp_path, "--config", "inverter_mnist5k_logits.yaml", "--num_images=100")["rows"]
    assert row["h"] == "10"
    assert 0 < row["network / step"]["median"] < 1
    assert 0 < row["float32 / step"]["median"] < 1


def test_nce_with_h_in_float16(monkeypatch, tmp_path):
    config = "mse_mnist5k_logits.yaml"
    torch.save(
        {"state_dict": cost.configured(config, torch.device("cpu"))[0].model.state_dict()}, tmp_path / "any.ckpt"
    )
    (row,) = run(cache, monkeypatch, tmp_path, "--config", config, "--nce", str(tmp_path / "any.ckpt"))["rows"]
    assert row["test images"] == 500
    assert row["NCE, float16"] == pytest.approx(row["NCE, float32"], rel=1e-3)
