"""Networks that know nothing of us: by name, with their weights and their preprocessing, from the command line."""

import re
from functools import partial
from pathlib import Path

import pytest
import torch
import torchvision
from small_runs import INVERTER, SHORT, failure, result
from torch import nn
from torchvision.transforms import v2

from cli import main
from commands.network_weights import check_source, take_weights
from commands.trained_inverter import with_weights
from inverters import Classifier, Inverter, LogisticMixture, Network, PixelCNN
from inverters.network_by_name import named
from inverters.networks import made_network
from inverters.preprocessing import Preprocess, Preprocessing
from runtime.checkpoints import load_checkpoint

GREY = (1, 28, 28)
TINY = partial(PixelCNN, num_filters=2, num_layers=1)
NETS = """
from beside import WIDTH
from torch import nn


class Holder:
    @staticmethod
    def make(width=WIDTH, classes=10):
        body = nn.Sequential(nn.Conv2d(1, width, 3, stride=4), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        return nn.ModuleDict({}) if width == 0 else nn.Sequential(body, nn.Flatten(), nn.Linear(49 * width, classes))


make_net = Holder.make
number = 3


def make_text():
    return "text"
"""


@pytest.fixture
def nets(tmp_path, monkeypatch):
    """A working folder with a file of networks in a folder of it, and one in a module."""
    monkeypatch.chdir(tmp_path)
    Path("own").mkdir()
    Path("own/nets.py").write_text(NETS)
    Path("own/beside.py").write_text("WIDTH = 4\n")
    Path("own/broken.py").write_text("x = 0\n1 / x\n")
    return tmp_path


def made(name, arguments=None):
    return Network(GREY, 10, name, arguments or {})


@pytest.mark.parametrize(("name", "arguments", "kind"), [
    ("torchvision:resnet18", {}, torchvision.models.ResNet),
    ("torchvision.models:resnet18", {"num_classes": "$num_classes"}, torchvision.models.ResNet),
    ("torch:nn.Linear", {"in_features": 2, "out_features": "$num_classes"}, nn.Linear),
    ("own/nets.py:make_net", {"width": 3}, nn.Sequential), ("own/nets.py:Holder.make", {}, nn.Sequential),
])  # fmt: skip
def test_a_network_is_what_its_name_says(nets, name, arguments, kind):
    network = made(name, arguments)
    assert type(network) is kind
    assert named(network).name == name
    assert "$num_classes" not in arguments.values() or network.state_dict().popitem()[1].shape == (10,)  # a bias


@pytest.mark.parametrize(("name", "arguments", "sentence"), [
    ("resnet18", {}, "no place before a colon; give torchvision:resnet18, timm:resnet18, package:function or path"),
    ("torchvision:resnet81", {}, "torchvision has no network 'resnet81'; did you mean resnet18"),
    ("torchvision:resnet18", {"weights": "DEFAULT"}, "have weights 'DEFAULT'; give --model.weights pretrained"),
    ("timm:resnet18", {"pretrained": True}, "have pretrained True; give --model.weights pretrained"),
    ("torchvision:resnet18", {"depth": 3}, r"torchvision:resnet18 cannot be made with depth=3 \(TypeError: .*'depth'"),
    ("absent.nets:x", {}, "no module absent in this folder, on PYTHONPATH or installed; install it, or give path"),
    ("own/absent.py:x", {}, "there is no file own/absent.py"),
    ("own/broken.py:x", {}, r"own/broken.py cannot be imported: ZeroDivisionError \(division by zero\) in line 2 of"),
    ("own/nets.py:make_nets", {}, "there is no make_nets; did you mean make_net"),
    ("own/nets.py:Holder.made", {}, "there is no made; did you mean make"),
    ("own/nets.py:make_text", {}, "gives a str; give what makes an nn.Module"),
    ("own/nets.py:number", {}, "gives a int; give what makes an nn.Module"),
    ("own/nets.py:make_net", {"with": 3}, r"cannot be made with with=3 .*its arguments are given as --model.network"),
])  # fmt: skip
def test_a_name_that_is_none_is_one_sentence(nets, name, arguments, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        made(name, arguments)
    assert "\n" not in str(caught.value)


def test_a_function_of_no_arguments_is_called_without_the_shape():
    inverter = Inverter("layer1", (1, 32, 32), 10, torchvision.models.resnet18, TINY, preprocessing=RGB)
    assert inverter.representation.shape((1, 32, 32)) == (64, 8, 8)
    assert inverter.network_name == "ResNet"


RGB = Preprocessing(rgb=True)


@pytest.mark.parametrize("side", [None, 17, 64])
def test_preprocessing_is_torchvisions_to_the_last_digit_of_a_float(side):
    image = torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8)
    preprocess = Preprocess(Preprocessing(side=side, mean="imagenet"), nn.Identity())
    steps = [v2.ToDtype(torch.float32, scale=True), *([v2.Resize((side, side), antialias=True)] if side else [])]
    expected = v2.Compose([*steps, v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))])(image)
    torch.testing.assert_close(preprocess(image, nn.Identity()), expected, rtol=1e-6, atol=1e-6)


def test_grey_is_three_equal_channels_and_numbers_are_of_each():
    image = torch.randint(256, (2, 1, 8, 8), dtype=torch.uint8)
    what = Preprocessing(mean=[0.1, 0.2, 0.3], std=[2.0], rgb=True)
    found = Preprocess(what, nn.Identity())(image, nn.Identity())
    for channel, mean in enumerate((0.1, 0.2, 0.3)):
        torch.testing.assert_close(found[:, channel], (image[:, 0] / 255 - mean) / 2)
    assert what.shape((1, 8, 8)) == (3, 8, 8)
    with pytest.raises(ValueError, match=r"are of 3 and 1 channels, and the images have 1; .*preprocessing.rgb true"):
        Preprocess(Preprocessing(mean=[0.1, 0.2, 0.3]), nn.Identity())(image, nn.Identity())


def test_statistics_of_a_network_are_its_own_or_refused():
    network = nn.Identity()
    with pytest.raises(ValueError, match=r"preprocessing.mean is timm, and the network, a Identity, has no statistics"):
        Preprocess(Preprocessing(mean="timm"), network)
    network.pretrained_cfg = {"mean": (0.5, 0.4, 0.3), "std": (0.1, 0.2, 0.3)}
    assert Preprocess(Preprocessing(mean="timm"), network).what.to_json() == {
        "side": None, "mean": [0.5, 0.4, 0.3], "std": [0.1, 0.2, 0.3], "rgb": False,
    }  # fmt: skip
    with pytest.raises(ValueError, match=r"preprocessing.mean is imagenet, which has an std too; leave"):
        Preprocessing(mean="imagenet", std=[0.5])
    with pytest.raises(ValueError, match=r"preprocessing.std is \[0.0\]; give numbers above 0"):
        Preprocessing(std=[0.0])


def test_the_default_preprocessing_is_what_it_was():
    image = torch.randint(256, (2, *GREY), dtype=torch.uint8)
    preprocess = Preprocess(Preprocessing(), nn.Identity())
    assert torch.equal(preprocess(image, nn.Identity()), image.float() / 255)
    assert not preprocess.state_dict()


def test_a_checkpoint_of_another_preprocessing_is_refused():
    network, other = partial(nn.Sequential, nn.Flatten()), Preprocessing(mean=[0.5])
    inverter = Inverter("0", GREY, 10, lambda *_: network(), TINY, preprocessing=other)
    checkpoint: dict = {}
    inverter.on_save_checkpoint(checkpoint)
    inverter.on_load_checkpoint(checkpoint)
    plain = Inverter("0", GREY, 10, lambda *_: network(), TINY)
    with pytest.raises(ValueError, match=r"with preprocessing.mean \[0.5\], not \[0.0\], which gives another"):
        plain.on_load_checkpoint(checkpoint)
    with pytest.raises(ValueError, match=r"was trained with preprocessing.mean \[0.0\], not \[0.5\]"):
        inverter.on_load_checkpoint({"layer": "0"})  # of 0.7, which had none


OWN = ["--model.network=own/nets.py:make_net", "--model.layer=0.0", "--classifier=null"]
FIT = ["fit", *SHORT, "--trainer.max_steps=1", *OWN]


def test_any_network_is_inverted_with_a_file_of_weights(nets, capsys):
    network = made("own/nets.py:make_net")
    torch.save({"state_dict": {f"module.{k}": v for k, v in network.state_dict().items()}}, "weights.pth")
    main([*FIT, "--model.weights=weights.pth", "--model.preprocessing.mean=[0.1]", "--model.preprocessing.std=[0.3]"])
    said = capsys.readouterr().out
    wanted = r"network: own/nets.py:make_net, which sees images at their own size, mean 0.1, std 0.3: .*% of 500 valid"
    assert re.search(wanted, said)
    row = result()
    assert (row["network"], row["classifier"], row["layer"]) == ("own/nets.py:make_net", "weights.pth", "0.0")
    assert row["class_agreement"] is not None
    (best,) = Path("runs", INVERTER).glob("*/checkpoints/best.ckpt")
    saved = load_checkpoint(best)["state_dict"]
    assert all(torch.equal(saved[f"representation.network.{k}"], v) for k, v in network.state_dict().items())
    Path("weights.pth").unlink()  # no other verb needs it
    main(["sample", *SHORT[:4], *OWN, "--model.weights=weights.pth", "--num_images=1", "--num_draws=1",
          "--model.preprocessing.mean=[0.1]", "--model.preprocessing.std=[0.3]", "--data.num_train=100"])  # fmt: skip


@pytest.mark.parametrize(("arguments", "sentence"), [
    ([], "the network has weights and none are given; set --classifier .* or --model.weights to a file, or"),
    (["--model.weights=absent.pth"], "absent.pth"),
    (["--model.weights=untrained", "--classifier=classifier_mnist5k"], "are both given; give one"),
    (["--model.weights=pretrained"], "weights is pretrained, which torchvision: and timm: have"),
    (["--classifier=weights.pth"], "--classifier weights.pth is a file of weights.* --model.weights w"),
    (["--classifier=w.safetensors"], "give --model.weights w.safetensors --classifier null"),
    (["--model.layer=0.7"], "no layer '0.7' in this Sequential; did you mean 0.2 or 0.1 or 0.0[?] .* lists all"),
    (["--model.network=own/nets.py:make_text"], "gives a str"),
    (["--model.network=torchvision.models.resnet18", "--model.layer=fc"],
     "cannot be used on images of 1x28x28: .*--model.preprocessing.rgb"),
    (["--model.network=timm.create_model", "--model.network.img_size=28"],
     "no key --model.network.img_size: create_model is a function, .* --model.network timm:NAME --model.network.arg"),
    (["--model.network=own.nets:absent"], "no module beside|there is no absent"),
])  # fmt: skip
def test_what_cannot_be_inverted_is_one_sentence_and_leaves_nothing(nets, capsys, arguments, sentence):
    assert re.search(sentence, failure(capsys, *FIT, *arguments))
    assert not list(Path().glob("runs/*/*/*"))


def test_a_refused_classifier_leaves_no_run(with_classifier, capsys):
    before = sorted(map(str, Path("runs").rglob("*")))
    (best,) = Path("runs/classifier_mnist5k").glob("*/checkpoints/best.ckpt")
    arguments = [*SHORT, f"--classifier={best}"]
    assert "where this config has" in failure(capsys, "fit", *arguments, "--model.network.activation=torch.nn.Tanh")
    sentence = failure(capsys, "fit", *arguments, "--model.preprocessing.mean=[0.5]")
    assert f"the classifier {best} was trained with preprocessing.mean [0.0], not [0.5]" in sentence
    after = [path for path in sorted(map(str, Path("runs").rglob("*"))) if "last_error" not in path]
    assert after == before


def test_a_classifier_may_be_any_network(nets, capsys):
    network = ["--model.network=own/nets.py:make_net", "--model.network.arguments={classes: $num_classes}"]
    short = ["--trainer.max_steps=1", "--trainer.val_check_interval=1", "--trainer.default_root_dir=own_runs"]
    main(["fit", "--config=classifier_mnist5k", *network, *short])
    main([*FIT[:-1], "--classifier=classifier_mnist5k", *network, *short])
    assert result(root="own_runs")["classifier"] == "classifier_mnist5k"
    with pytest.raises(
        ValueError, match=r"gives \[3, 7\] for 3 images; a classifier gives one score a class, \[3, 10\]"
    ):
        Classifier(GREY, 10, partial(Network, name="own/nets.py:make_net", arguments={"classes": 7}))


def test_layers_lists_every_layer_with_what_can_be_inverted(nets, capsys):
    main(["layers", f"--config={INVERTER}", *OWN[:1]])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in lines[2:-1]] == ["0.0", "0.1", "0.2", "0", "1", "2"]
    assert lines[2][:4] == ["0.0", "Conv2d", "4x7x7", "196"]
    flops = torch.tensor([4 * 49 * 9, 49 * 4 * 10])
    assert lines[2][4] == f"{flops[0] / flops.sum():.1%}"
    assert lines[-2][5] == "100.0%"
    assert not Path("runs").exists()


def test_layers_says_what_cannot_be(nets, capsys):
    rgb = ["--model.preprocessing.rgb=true", "--model.preprocessing.side=32"]
    main(["layers", "--config=inverter_mnist5k_fc3", "--model.network=torchvision:resnet18", "--model.layer=no", *rgb])
    said = capsys.readouterr().out
    assert re.search(r"layer1\.0\.relu +ReLU +64x8x8 +4096 .* run 2 times", said)
    assert re.search(r"layer2\.1 +BasicBlock +128x4x4 +2048 ", said)
    assert re.search(r"\n59 of 67 can be inverted as they are: --model.layer NAME\n", said)


class Alike(nn.Module):
    """Networks of the same weights that are not the same."""

    def __init__(self, scale=1.0, gradient=True):
        super().__init__()
        self.scale, self.gradient = scale, gradient
        self.position, self.body = nn.Parameter(torch.ones(784)), nn.Linear(784, 10)

    def forward(self, x):
        assert x.shape[2:] == (28, 28), "wrong height"
        with torch.set_grad_enabled(self.gradient and torch.is_grad_enabled()):
            return self.body(self.scale * x.flatten(1) + self.position)


def alike(**options):
    return Inverter("body", GREY, 10, lambda *_: Alike(**options), TINY, weights="untrained")


def test_a_network_of_the_same_weights_that_gives_something_else_is_refused():
    ours, other, checkpoint = alike(), alike(scale=2.0), {}
    ours.on_save_checkpoint(checkpoint)
    other.load_state_dict(ours.state_dict())
    ours.check_network(checkpoint, "best.ckpt")
    with pytest.raises(ValueError, match=r"something else with the weights of best.ckpt than"):
        other.check_network(checkpoint, "best.ckpt")
    other.check_network({}, "of 0.7")  # which had no fingerprint
    with pytest.raises(ValueError, match="gives something else"):
        ours.check_network({"fingerprint": "text"}, "best.ckpt")
    with torch.no_grad():
        ours.representation.network.position.fill_(torch.nan)
    with pytest.raises(ValueError, match="gives something else"):
        ours.check_network(checkpoint, "best.ckpt")
    classifier = Classifier(GREY, 10, lambda *_: Alike())
    classifier.on_save_checkpoint(checkpoint)
    changed = Classifier(GREY, 10, lambda *_: Alike(scale=3.0))
    changed.load_state_dict(classifier.state_dict())
    assert classifier.network.training
    with pytest.raises(ValueError, match="gives something else"):
        changed.check_network(checkpoint, "best.ckpt")


def test_weights_of_a_hub_that_belong_to_another_network_are_refused():
    inverter = alike()
    take_weights(inverter, Alike().eval())
    with pytest.raises(ValueError, match="with its weights the network gives something else of an image; give --model"):
        take_weights(inverter, Alike(scale=2.0).eval())
    with pytest.raises(ValueError, match=r"with its weights the network is made otherwise .Error.* in loading"):
        take_weights(inverter, nn.Linear(2, 2))


def test_what_h_needs_is_known_where_a_network_forbids_gradients():
    assert alike(gradient=False).representation.needed(GREY) == {"position", "body.weight", "body.bias"}


def test_a_network_keeps_its_own_precision():
    image = torch.randint(256, (3, *GREY), dtype=torch.uint8)
    for dtype in (torch.bfloat16, torch.float64):
        inverter = Inverter("body", GREY, 10, lambda *_, dtype=dtype: Alike().to(dtype), TINY)
        inverter.initialise([image], image)
        expected, checkpoint = inverter.eval().log_prob({"image": image}), {"state_dict": inverter.state_dict()}
        inverter.on_save_checkpoint(checkpoint)
        again = Inverter("body", GREY, 10, lambda *_, dtype=dtype: Alike().to(dtype), TINY)
        assert torch.equal(with_weights(again, checkpoint, Path("best.ckpt")).log_prob({"image": image}), expected)
        assert again.representation.network.body.weight.dtype == dtype


def test_a_network_of_a_hub_has_no_weights_of_its_own_and_fetches_none(monkeypatch):
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", lambda *_, **__: pytest.fail("it was fetched"))
    made("torchvision:lraspp_mobilenet_v3_large", {"num_classes": 2})  # whose backbone torchvision would fetch
    inverter = Inverter(
        "layer1", (3, 32, 32), 10, partial(Network, name="torchvision:resnet18"), COLOURS, weights="own"
    )
    with pytest.raises(ValueError, match="weights is own, and torchvision:resnet18 comes without any; give a file"):
        check_source(inverter, None)
    with pytest.raises(ValueError, match="have weights_backbone 'DEFAULT'"):
        made("torchvision:deeplabv3_resnet50", {"weights_backbone": "DEFAULT"})


RESNET = partial(Network, name="torchvision:resnet18")
COLOURS = partial(PixelCNN, num_filters=2, num_layers=1, likelihood=LogisticMixture())


def test_arguments_hold_the_number_of_classes_at_any_depth_and_no_null_of_a_command_line(nets):
    with pytest.raises(ValueError, match=r"\{'c': 10\}.*\[10\]"):
        made("own/nets.py:make_net", {"a": {"c": "$num_classes"}, "b": ["$num_classes"]})
    with pytest.raises(ValueError, match="hold None, as a command line makes of null; use a config"):
        made("own/nets.py:make_net", {"width": "None"})


def test_an_image_of_another_size_is_one_sentence_whatever_a_network_raises():
    with pytest.raises(ValueError, match=r"cannot be used on images of 1x32x32: wrong height.*preprocessing.side"):
        Inverter("body", (1, 32, 32), 10, lambda *_: Alike(), TINY)


def test_a_classifier_of_another_network_is_refused_before_it_is_trained(nets, capsys):
    network = ["--model.network=own/nets.py:make_net", "--model.layer=0.0"]
    sentence = failure(capsys, "fit", *SHORT, "--trainer.max_steps=1", *network)
    assert (
        "the classifier classifier_mnist5k is another network than own/nets.py:make_net; give --classifier null"
        in sentence
    )
    assert not list(Path().glob("runs/*/*/*"))


def test_the_name_of_a_network_in_a_config_is_told_how_it_stands_there(nets, capsys):
    Path("mine.yaml").write_text(
        "model: {class_path: Inverter, init_args: {layer: fc, network: 'torchvision:resnet18'}}"
    )
    sentence = failure(capsys, "fit", "--config=mine.yaml")
    assert "in a config it stands as class_path: Network, init_args: {name: torchvision:resnet18}" in sentence


def test_a_division_by_zero_in_a_network_is_a_sentence():
    with pytest.raises(ValueError, match="can be made \\(ZeroDivisionError: "):
        made_network(lambda: 1 // 0, (1, 28, 28), 10)
