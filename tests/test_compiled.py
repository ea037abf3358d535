from functools import partial

import pytest
import torch
from small_runs import SMALL, checkpoint_of, failure, result

from cli import main
from inverters import Categorical, Inverter, LogisticMixture, MSEDecoder, PixelCNN
from runtime.cost import measured_cost

SHAPE = (1, 28, 28)
small_density = partial(PixelCNN, num_filters=2, num_layers=1, dropout=0.0)


@pytest.fixture
def graphs():
    """What is compiled, a graph each; a break in one, or another size, would be one more."""
    torch._dynamo.reset()  # its limit of compilations is one process's
    yield (found := [])
    assert all(len(graph.graph.nodes) > 10 for graph in found)
    torch._dynamo.reset()


def compiled_by(graphs):
    """A backend that keeps the graphs, and runs them as they are."""

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    return backend


@pytest.mark.parametrize(
    ("layer", "shape", "density"),
    [
        ("fc3", SHAPE, partial(small_density, likelihood=Categorical())),
        ("conv2", (3, 32, 32), partial(small_density, likelihood=LogisticMixture(2))),
        (None, SHAPE, partial(small_density, likelihood=LogisticMixture(2))),
        ("fc3", SHAPE, MSEDecoder),
    ],
)
def test_training_and_validation_are_a_graph_each_whatever_the_number_of_images(graphs, layer, shape, density):
    plain, compiled = (Inverter(layer, shape, 10, density=density) for _ in range(2))
    compiled.load_state_dict(plain.state_dict())
    compiled.compile_steps("cpu", compiled_by(graphs))
    image = torch.randint(256, (5, *shape), dtype=torch.uint8)
    for size in (5, 2):
        batch = {"image": image[:size]}
        losses = [inverter.training_step(batch, 0)["loss"] for inverter in (plain, compiled)]
        torch.testing.assert_close(*losses)
        for loss in losses:
            loss.backward()
        found = [inverter.validation_step(batch, 0) for inverter in (plain, compiled)]
        torch.testing.assert_close(*found, rtol=1e-5, atol=1e-4)
    for a, b in zip(plain.density.parameters(), compiled.density.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-4)
    assert len(graphs) == 2


# 100 images in batches of 8, and 70 in parts of 32: the last of each has fewer.
SHORT = [
    *SMALL, "--data.batch_size=8", "--data.eval_batch_size=70", "--trainer.max_steps=14", "--compile=true",
    "--trainer.val_check_interval=7", "--trainer.limit_val_batches=1", "--trainer.limit_test_batches=1",
]  # fmt: skip


def test_a_run_and_its_estimate_compile_training_and_validation_once(graphs, with_classifier, monkeypatch):
    monkeypatch.setattr("callbacks.cost_estimate.measured_cost", measured_cost)
    monkeypatch.setattr(Inverter.compile_steps, "__defaults__", (compiled_by(graphs),))
    main(["fit", *SHORT])
    assert len(graphs) == 2
    assert result()["num_images"] == 70


def test_without_a_compiler_a_run_says_so(graphs, with_classifier, monkeypatch, capsys):
    def no_compiler(graph, inputs):
        raise RuntimeError("No working C++ compiler found")

    monkeypatch.setattr(Inverter.compile_steps, "__defaults__", (no_compiler,))
    said = failure(capsys, "fit", *SHORT)
    assert "cannot be compiled here" in said
    assert "see that a C++ compiler such as g++ is there" in said
    assert "or leave out --compile" in said


@pytest.mark.slow  # minutes, and a C++ compiler
@pytest.mark.filterwarnings("ignore")  # of the compiler's own
def test_a_run_with_the_preset_gives_the_numbers_of_an_eager_one(graphs, with_classifier, monkeypatch):
    monkeypatch.setattr("callbacks.cost_estimate.measured_cost", measured_cost)
    torch._dynamo.utils.counters.clear()
    preset = ["--config=presets/gpu.yaml", "--model.density.dropout=0"]
    main(["fit", *SHORT, *preset])
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2
    main(["fit", *SHORT, *preset, "--compile=false", "--trainer.default_root_dir=eager",
          f"--classifier={checkpoint_of('classifier_mnist5k', 'best')}"])  # fmt: skip
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2
    assert result()["nce_nats"] == pytest.approx(result(root="eager")["nce_nats"], rel=2e-3)
