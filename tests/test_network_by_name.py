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
from inverters import Classifier, Inverter, Network, PixelCNN
from inverters.network_by_name import named
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
