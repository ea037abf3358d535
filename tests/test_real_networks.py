"""Networks of others, by the command line: none of our files knows them."""

import copy
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
import torchvision
from small_runs import failure, result
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

from cli import main
from inverters.preprocessing import Preprocessing
from inverters.representation import Representation

IMAGE = torch.randint(256, (3, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
RGB = Preprocessing(side=64, mean="imagenet", rgb=True)
TINY = [
    "--config=inverter_mnist5k_fc3.yaml", "--classifier=null", "--data.batch_size=4", "--data.eval_batch_size=5",
    "--model.density.num_filters=4", "--trainer.max_steps=2", "--trainer.val_check_interval=1", "--data.num_train=100",
    "--trainer.limit_val_batches=1", "--trainer.limit_test_batches=1", "--num_agreement=3", "--trainer.accelerator=cpu",
    "--sample_grid.num_images=2", "--sample_grid.num_draws=1", "--trainer.default_root_dir=runs",
]  # fmt: skip
NETS = """
from torch import nn


class Body(nn.Module):
    def __init__(self, num_units):
        super().__init__()
        self.conv = nn.Conv2d(1, num_units, 4, stride=4)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x):
        h = self.act(self.conv(x))
        return {"maps": (h, -h), "mean": h.mean(dim=(2, 3))}


class Home(nn.Module):
    def __init__(self, num_units):
        super().__init__()
        self.body = Body(num_units)
        self.head = nn.Linear(num_units, 10)

    def forward(self, x):
        return self.head(self.body(x)["mean"])


def make_net(num_units=6):
    return Home(num_units)
"""


@pytest.fixture
def resnet():
    torch.manual_seed(0)
    return torchvision.models.resnet18(num_classes=10).eval()


@pytest.mark.parametrize(
    "layer",
    ["conv1", "maxpool", "layer1.0.conv2", "layer1", "layer2.0", "layer2.1", "layer3.0.downsample", "avgpool", "fc"],
)
def test_h_through_the_hook_is_that_of_torchvisions_feature_extractor(resnet, layer):
    inverted = Representation(resnet, layer, RGB)
    h = inverted(IMAGE)
    x = inverted.preprocess(IMAGE, resnet)
    expected = create_feature_extractor(copy.deepcopy(resnet), {layer: "h"})(x)["h"]
    assert torch.equal(h, expected.detach())


def test_an_activation_in_place_after_the_layer_does_not_change_h(resnet):
    inverted = Representation(resnet, "layer1.0.bn1", RGB)
    plain = copy.deepcopy(resnet)
    for module in plain.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    expected = create_feature_extractor(plain, {"layer1.0.bn1": "h"})(inverted.preprocess(IMAGE, plain))["h"]
    assert (expected < 0).any()
    assert torch.equal(inverted(IMAGE), expected)


def given_by(net, name, x):
    """What a module gives."""
    found = []
    handle = net.get_submodule(name).register_forward_hook(lambda module, inputs, output: found.append(output.clone()))
    net(x)
    handle.remove()
    return found[0].detach()


def test_the_maps_of_a_swin_transformer_are_turned():
    """Its channels come last."""
    net = timm.create_model("swin_tiny_patch4_window7_224", img_size=64, window_size=2, embed_dim=12).eval()
    inverted = Representation(net, "layers.1", RGB)
    raw = given_by(net, "layers.1", inverted.preprocess(IMAGE, net))
    assert raw.shape == (3, 8, 8, 24)
    assert torch.equal(inverted(IMAGE), raw.permute(0, 3, 1, 2))


TRANSFORMERS = {
    "vit_tiny_patch16_224": {"patch_size": 8, "img_size": 64, "embed_dim": 24, "depth": 2},
    "deit_tiny_distilled_patch16_224": {"patch_size": 8, "img_size": 64, "embed_dim": 24, "depth": 2},
    "vit_small_patch14_reg4_dinov2": {"patch_size": 8, "img_size": 64, "embed_dim": 24, "depth": 2},
    "vit_base_patch16_siglip_224": {"patch_size": 8, "img_size": 64, "embed_dim": 24, "depth": 2, "num_heads": 3},
}


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_tokens_of_transformers_lose_nothing(name):
    """Class, distillation and register tokens lie behind the channels of the patches, the same at every place."""
    net = timm.create_model(name, **TRANSFORMERS[name]).eval()
    P = net.num_prefix_tokens
    inverted = {tokens: Representation(net, "blocks.1", RGB, tokens) for tokens in ("all", "map", "mean")}
    raw = given_by(net, "blocks.1", inverted["all"].preprocess(IMAGE, net))
    h = inverted["all"](IMAGE)
    assert h.shape == (3, 24 * (1 + P), 8, 8)
    parts = h.unflatten(1, (1 + P, 24))  # [B, 1 + P, C, 8, 8]
    assert torch.equal(parts[:, 0].flatten(2).transpose(1, 2), raw[:, P:])
    assert torch.equal(parts[:, 1:], raw[:, :P, :, None, None].expand_as(parts[:, 1:]))
    assert torch.equal(inverted["map"](IMAGE), h[:, :24])
    torch.testing.assert_close(inverted["mean"](IMAGE), raw[:, P:].mean(dim=1))
    if P:
        assert torch.equal(Representation(net, "blocks.1", RGB, "prefix")(IMAGE), raw[:, :P].flatten(1))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def is_loaded(network):
    """Whether the inverter that was trained has a network's weights."""
    (path,) = Path("runs").glob("inverter_mnist5k_fc3/*/checkpoints/last.ckpt")
    saved = torch.load(path, weights_only=True)["state_dict"]
    own = network.state_dict()
    return all(torch.equal(saved[f"representation.network.{name}"], value) for name, value in own.items())


def test_a_network_of_torchvision_is_inverted_by_the_command_line(folder, resnet):
    safetensors.torch.save_file(resnet.state_dict(), "weights.safetensors")
    main(
        [
            "fit", *TINY, "--model.network=torchvision:resnet18", "--model.network.arguments={num_classes: 10}",
            "--model.layer=layer2.0", "--model.preprocessing.rgb=true", "--model.weights=weights.safetensors",
        ]
    )  # fmt: skip
    assert is_loaded(resnet)
    assert result()["class_agreement"] is not None


def test_a_network_of_timm_is_inverted_by_the_command_line(folder):
    arguments = {"img_size": 28, "patch_size": 7, "in_chans": 1, "embed_dim": 12, "depth": 2, "num_heads": 3}
    net = timm.create_model("vit_tiny_patch16_224", **arguments, num_classes=0)
    torch.save({"epoch": 3, "model": {f"module.backbone.{n}": v for n, v in net.state_dict().items()}}, "weights.pth")
    main(
        [
            "fit", *TINY, "--model.network=timm:vit_tiny_patch16_224", f"--model.network.arguments={arguments}",
            "--model.network.arguments.num_classes=0", "--model.layer=blocks.0", "--model.weights=weights.pth",
        ]
    )  # fmt: skip
    assert is_loaded(net)
    assert result()["class_agreement"] is None


@pytest.mark.parametrize("layer", ["body.conv", 'body["maps"][1]', "body[mean]", "head"])
def test_a_network_made_at_home_with_its_weights_is_inverted_by_the_command_line(folder, monkeypatch, layer):
    (folder / "mine").mkdir()
    Path("mine/nets.py").write_text(NETS)
    namespace = {}
    exec(NETS, namespace)
    net = namespace["make_net"](5)
    torch.save({"model_state_dict": net.state_dict(), "optimizer": {}}, "weights.pt")
    arguments = ["--model.network=mine/nets.py:make_net", "--model.network.arguments={num_units: 5}"]
    main(["fit", *TINY, *arguments, f"--model.layer={layer}", "--model.weights=weights.pt"])
    assert is_loaded(net)
    assert result()["class_agreement"] is not None


def test_a_head_without_weights_gives_no_class_agreement(folder, resnet, capsys):
    """A network of ImageNet has 1000 classes, and the data 10."""
    torch.save({n: v for n, v in resnet.state_dict().items() if not n.startswith("fc.")}, "weights.pth")
    more = ["--model.network=torchvision:resnet18", "--model.network.arguments={num_classes: $num_classes}"]
    more += ["--model.layer=layer1", "--model.preprocessing.rgb=true", "--model.weights=weights.pth"]
    main(["fit", *TINY, *more])
    assert "has no weights for its scores where the data has 10 classes: no accuracy" in capsys.readouterr().out
    assert result()["class_agreement"] is None
    main(["test", *TINY, *more])
    assert result()["class_agreement"] is None


STAGES = """
from torch import nn
from inverters import ConvNet


class OfStages(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2, self.fc3, self.logits = ConvNet((1, 28, 28), 10)

    def forward(self, x):
        return self.logits(self.fc3(self.conv2(self.conv1(x))))
"""


def test_the_same_network_as_stages_and_as_a_module_gives_the_same_nce(with_classifier):
    Path("nets.py").write_text(STAGES)
    (path,) = Path("runs").glob("classifier_mnist5k/*/checkpoints/best.ckpt")
    numbers = []
    for root, network in (("stages", []), ("module", ["--model.network=nets.py:OfStages"])):
        main(["fit", *TINY, *network, f"--model.weights={path}", f"--trainer.default_root_dir={root}"])
        numbers.append(result(root=root)["nce_nats"])
    assert numbers[0] == numbers[1]


def test_weights_of_another_network_leave_no_run(folder, capsys):
    torch.save(nn.Linear(3, 3).state_dict(), "weights.pth")
    said = failure(
        capsys, "fit", *TINY, "--model.network=torchvision:resnet18", "--model.layer=layer1",
        "--model.preprocessing.rgb=true", "--model.weights=weights.pth",
    )  # fmt: skip
    assert "weights.pth has none of this network's weights: needed are conv1.weight" in said
    assert not list(Path("runs").glob("*/*"))
