"""What is said of a GPU that fails, and that no checkpoint is blamed for it."""

import pytest
import torch
from small_runs import SHORT, failure
from torch.distributed import DistBackendError

from cli import main
from commands.sentences import of_a_peer, of_error, of_the_device
from inverters import Inverter
from runtime.cost import Cost

FULL = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.11 GiB of which 1.2 GiB is free."
)
ILLEGAL = (
    "CUDA error: an illegal memory access was encountered\nSearch for `cudaErrorIllegalAddress' in "
    "https://docs.nvidia.com for more information.\nCUDA kernel errors might be asynchronously reported\n"
)
ERRORS = [
    (torch.OutOfMemoryError(FULL), "the GPU's memory is full (CUDA out of memory. Tried to allocate 2.00 GiB); lower"),
    (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"), "the GPU's memory is full"),
    (
        torch.AcceleratorError(ILLEGAL),
        "driver has failed (CUDA error: an illegal memory access was encountered);",
    ),
    (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), "or its driver has failed (cuDNN error"),
    (DistBackendError("NCCL error in: ProcessGroupNCCL.cpp:2272"), "another process of this run has ended; if it does"),
    (RuntimeError("[Rank 1] Watchdog caught collective operation timeout"), "another process of this run has ended"),
]


@pytest.mark.parametrize(("error", "expected"), ERRORS)
def test_an_error_of_a_gpu_has_a_remedy(error, expected):
    said = of_error(error)
    assert expected in said
    assert "should not happen" not in said
    assert "Search for" not in said


def test_no_checkpoint_is_blamed_for_a_gpu_or_a_peer(with_inverter, capsys, monkeypatch):
    assert all(of_the_device(error) or of_a_peer(error) for error, _ in ERRORS)
    for error in (ERRORS[2][0], ERRORS[4][0]):
        monkeypatch.setattr(Inverter, "training_step", lambda *_, error=error: throw(error))
        message = failure(capsys, "fit", *SHORT, "--trainer.max_steps=3", "--ckpt_path=last", "--trainer.logger=false")
        assert "of another version" not in message


@pytest.mark.parametrize(("good", "blamed"), [(0, True), (1, False)])
def test_a_checkpoint_is_blamed_up_to_the_first_step_only(with_inverter, capsys, monkeypatch, good, blamed):
    step, steps = Inverter.training_step, iter(range(9))

    def training_step(self, *batch):
        return step(self, *batch) if next(steps) < good else throw(RuntimeError("of ours"))

    monkeypatch.setattr(Inverter, "training_step", training_step)
    monkeypatch.setattr("callbacks.cost_estimate.measured_cost", lambda *_: Cost(1, 1, 1, 1, 1))
    with pytest.raises(SystemExit):
        main(["fit", *SHORT, "--trainer.max_steps=9", "--ckpt_path=last", "--trainer.logger=false"])
    assert ("of another version" in capsys.readouterr().err) == blamed


def throw(error):
    raise error
