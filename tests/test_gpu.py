"""What must hold on a GPU: pytest -m gpu, on a machine that has one."""

from functools import partial
from pathlib import Path

import pytest
import torch
from dataset_files import write_data_sets
from digests import run_digests
from small_runs import result, the_run
from test_compiled import SHORT
from test_configs import shortened
from test_resume import FIT, signal_at, stopped

from cli import main
from inverters import Categorical, Inverter, LogisticMixture, PixelCNN, UniformQuantiser
from inverters.compressed_file import compressed, received
from inverters.generators import draw_generator

pytestmark = pytest.mark.gpu
GPU = "--trainer.accelerator=gpu"
SHAPE = (1, 28, 28)
density = partial(PixelCNN, num_filters=8, num_layers=1)


@pytest.fixture(autouse=True)
def _a_gpu():
    """Without one these tests fail; they are not passed over in silence."""
    assert torch.cuda.is_available(), "no GPU is seen; give -m gpu, on a machine that has one"


def on_both(layer="fc3", shape=SHAPE, **arguments):
    """An initialised inverter on the CPU, the same on the GPU, and images."""
    inverters = [Inverter(layer, shape, 10, density=partial(density, **arguments)).eval() for _ in range(2)]
    image = torch.randint(256, (8, *shape), dtype=torch.uint8)
    inverters[0].initialise([image], image)
    inverters[1].load_state_dict(inverters[0].state_dict())
    return inverters[0], inverters[1].to("cuda"), image


def test_h_and_the_test_are_the_cpus_whatever_is_on_around_them():
    here, there, image = on_both()
    torch.backends.cudnn.allow_tf32 = True
    with torch.autocast("cuda", torch.bfloat16):
        h, found = there.context(image.cuda()), there.test_step({"image": image.cuda()}, 0)
    torch.testing.assert_close(h.cpu(), here.context(image), rtol=1e-5, atol=1e-5)
    expected = here.test_step({"image": image}, 0)
    assert (found["log_prob"].cpu() - expected["log_prob"]).abs().mean() < 1e-4  # nats an image


@pytest.mark.parametrize(
    ("layer", "shape", "arguments"),
    [
        (None, SHAPE, {"likelihood": Categorical()}),
        (None, (3, 16, 16), {"likelihood": LogisticMixture(2)}),
        ("fc3", SHAPE, {"palette": True, "level_features": 4, "decoder_filters": 8}),
    ],
)
@pytest.mark.parametrize("sampler", ["incremental", "fixed_point"])
def test_draws_are_the_cpus(layer, shape, arguments, sampler):
    """In float64, which has no ties; fixed-point iteration is made of full passes."""
    here, there, image = on_both(layer, shape, **arguments)
    for inverter in (here.double(), there.double()):
        inverter.density.sampler = sampler
    generators = [[draw_generator(i, 0, 0) for i in range(4)] for _ in range(2)]
    with torch.no_grad():
        context = here.context(image[:4])
        drawn = there.density.sample(context.cuda(), generators[0]).cpu()
        assert torch.equal(drawn, here.density.sample(context, generators[1]))


def test_a_file_of_what_arrives_is_the_cpus():
    channel = partial(UniformQuantiser, bits=[1, 2])
    here, there = (Inverter("fc3", SHAPE, 10, density=density, channel=channel).eval() for _ in range(2))
    image = torch.randint(256, (8, *SHAPE), dtype=torch.uint8)
    here.initialise([image], image)
    there.load_state_dict(here.state_dict())
    h = received(here, here.representation(image))
    assert compressed(there.to("cuda"), image, h) == compressed(here, image, h)
    assert received(there, here.representation(image)).device.type == "cpu"


@pytest.mark.filterwarnings("ignore")  # of the compiler's own
def test_a_compiled_step_gives_the_numbers_of_an_eager_one():
    """Replayed by a CUDA graph from the third call on, which must not overwrite what earlier ones gave."""
    torch._dynamo.reset()
    _, eager, _ = on_both(dropout=0.0)
    compiled = on_both(dropout=0.0)[1]
    compiled.load_state_dict(eager.state_dict())
    compiled.compile_steps("cuda")
    batches = [{"image": torch.randint(256, (size, *SHAPE), dtype=torch.uint8).cuda()} for size in (8, 8, 8, 8, 3)]
    for step in ("training_step", "validation_step"):
        found = [getattr(compiled, step)(batch, 0)["log_prob"] for batch in batches]
        for log_prob, batch in zip(found, batches, strict=True):
            torch.testing.assert_close(log_prob, getattr(eager, step)(batch, 0)["log_prob"], rtol=1e-3, atol=0)


@pytest.mark.filterwarnings("ignore")  # of the compiler's own
def test_the_preset_compiles_training_and_validation_once_into_cuda_graphs(with_classifier):
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    main(["fit", *SHORT, "--config=presets/gpu.yaml", GPU])
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2
    assert torch._dynamo.utils.counters["inductor"]["cudagraph_skips"] == 0
    assert torch._dynamo.utils.counters["inductor"]["cudagraph_recorded_non_static_inputs"] > 0
    assert result()["num_images"] == 70


@pytest.mark.parametrize("name", ["affnist_pool", "affnist_conv"])
def test_every_layer_has_a_deterministic_backward(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write_data_sets(tmp_path, monkeypatch)
    main(["fit", *shortened(f"classifier_{name}.yaml"), GPU, "--trainer.deterministic=true"])
    main(["fit", *shortened(f"inverter_{name}_fc3.yaml"), GPU, "--trainer.deterministic=true"])
    assert result(f"inverter_{name}_fc3")["num_images"] == 6


@pytest.mark.parametrize("more", [[], ["--trainer.precision=bf16-mixed"]])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(trained_runs, tmp_path, monkeypatch, more):
    digests = []
    for name in ("whole", "stopped"):
        (tmp_path / name / "runs").mkdir(parents=True)
        monkeypatch.chdir(tmp_path / name)
        Path("runs/classifier_mnist5k").symlink_to(trained_runs / "classifier_mnist5k")
        fit = [*FIT, GPU, "--trainer.deterministic=true", *more]
        if name == "stopped":
            stopped([*fit, signal_at(3)])
        main([*fit, *(["--ckpt_path=last"] if name == "stopped" else [])])
        digests.append(run_digests(the_run(Path())))
    assert digests[0] == digests[1]
