"""Weights from a file: found under any prefix, whole and finite, or one sentence; nothing in the file is executed."""

import argparse
import json
import pickle
import struct
import sys
import zipfile
from collections import Counter, OrderedDict
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn
from torchvision.models import resnet18

from inverters.weights import fitted, weights_of_file


class Net(nn.Sequential):
    """A block, and a head that lies after the layer."""

    def __init__(self, num_classes=3):
        block = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4))
        super().__init__(OrderedDict(block=block, pool=nn.Flatten(), fc=nn.Linear(4, num_classes)))


NEEDED = [f"block.{name}" for name in Net().block.state_dict()]


def under(prefix, network):
    return {f"{prefix}{name}": value for name, value in network.state_dict().items()}


def loaded(place, network, needed=NEEDED):
    return fitted(weights_of_file(str(place)), network, needed, str(place))


def is_equal(found, network):
    own = network.state_dict()
    return found.keys() == own.keys() and all(torch.equal(value, own[name]) for name, value in found.items())


def wrapped(network):
    return nn.Sequential(OrderedDict(encoder=network))


FILES = {
    "flat": lambda net: net.state_dict(),
    "module": lambda net: under("module.", net),
    "backbone": lambda net: {"state_dict": under("backbone.", net)},
    "compiled": lambda net: {"model": under("_orig_mod.", net)},
    "compiled in the middle": lambda net: {
        n.replace("block.", "block._orig_mod."): v for n, v in under("", net).items()
    },
    "encoder of MoCo": lambda net: {"epoch": 3, "arch": "net", "state_dict": under("module.encoder_q.", net)},
    "lists": lambda net: [{"net": net.state_dict()}, "text", None, 1.5],
    "parameters": lambda net: dict(net.named_parameters()) | dict(net.named_buffers()),
    "with its training": lambda net: {
        "model": net.state_dict(),
        "args": argparse.Namespace(lr=0.1, out="runs"),
        "optimizer": torch.optim.Adam(net.parameters()).state_dict(),
        "lr_scheduler": {"milestones": Counter([3, 5])},
        "of": {"types": (torch.float32, torch.Size([3]), torch.device("cpu"), {1})},
    },
    "twice the same": lambda net: {"model": net.state_dict(), "ema": net.state_dict()},
    "double": lambda net: net.double().state_dict(),
}


@pytest.mark.parametrize("ending", ["pth", "pt", "ckpt", "bin", "pth.tar", "legacy.pth"])
@pytest.mark.parametrize("name", FILES)
def test_weights_are_found_under_every_prefix_and_in_every_nesting(tmp_path, name, ending):
    net, path = Net(), tmp_path / f"weights.{ending}"
    torch.save(FILES[name](net), path, _use_new_zipfile_serialization=not ending.startswith("legacy"))
    assert is_equal(loaded(path, Net()), net.float())


@pytest.mark.parametrize("prefix", ["", "module.", "network.module.", "a.b.c."])
def test_safetensors_are_found_under_every_prefix(tmp_path, prefix):
    net = Net()
    safetensors.torch.save_file(under(prefix, net), tmp_path / "weights.safetensors", {"format": "pt"})
    assert is_equal(loaded(tmp_path / "weights.safetensors", Net()), net)


def test_a_wrapper_takes_the_weights_of_the_network_in_it(tmp_path):
    net = Net()
    torch.save(net.state_dict(), tmp_path / "weights.pth")
    needed = [f"encoder.{name}" for name in NEEDED]
    assert is_equal(loaded(tmp_path / "weights.pth", wrapped(Net()), needed), wrapped(net))


def test_half_weights_become_the_type_of_the_network(tmp_path):
    torch.save(Net().half().state_dict(), tmp_path / "weights.pth")
    found = loaded(tmp_path / "weights.pth", Net())
    assert {value.dtype for name, value in found.items() if "num_batches" not in name} == {torch.float32}


def test_what_lies_after_the_layer_is_left_as_it_is_where_it_does_not_fit(tmp_path):
    torch.save(Net(num_classes=1000).state_dict(), tmp_path / "weights.pth")
    assert set(loaded(tmp_path / "weights.pth", Net())) == set(NEEDED)
    with pytest.raises(ValueError, match=r"fc.weight is \[1000, 4\] where \[3, 4\] is needed"):
        loaded(tmp_path / "weights.pth", Net(), list(Net().state_dict()))


def test_a_count_of_batches_may_be_missing(tmp_path):
    weights = {name: value for name, value in Net().state_dict().items() if "num_batches" not in name}
    torch.save(weights, tmp_path / "weights.pth")
    assert loaded(tmp_path / "weights.pth", Net()).keys() == weights.keys()


@pytest.mark.parametrize("names", [("module.encoder_q", "module.encoder_k"), ("state_dict", "state_dict_ema")])
def test_of_two_networks_one_is_chosen_by_the_user_alone(tmp_path, names):
    path, nets = tmp_path / "weights.pth", (Net(), Net())
    torch.save(under(f"{names[0]}.", nets[0]) | under(f"{names[1]}.", nets[1]), path)
    with pytest.raises(ValueError, match=rf"several networks that fit, .*weights.pth#{names[0]} or .*#{names[1]}"):
        loaded(path, Net())
    for name, net in zip(names, nets, strict=True):
        assert is_equal(loaded(f"{path}#{name}", Net()), net)
        assert is_equal(loaded(f"{path}#{name.rpartition('.')[2]}", Net()), net)
    with pytest.raises(ValueError, match=r"weights.pth#teacher has none of this network's weights"):
        loaded(f"{path}#teacher", Net())


def test_the_network_at_the_top_of_a_file_can_be_chosen(tmp_path):
    path, nets = tmp_path / "weights.pth", (Net(), Net())
    torch.save(nets[0].state_dict() | under("ema.", nets[1]), path)
    with pytest.raises(ValueError, match=r"choose one by giving .*weights.pth# or .*weights.pth#ema"):
        loaded(path, Net())
    assert is_equal(loaded(f"{path}#", Net()), nets[0])


def test_a_layer_elsewhere_in_the_network_is_not_taken_for_another_one(tmp_path):
    """A ResNet has weights of one shape and end of name many times."""
    network = resnet18()
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    needed = [name for name in network.state_dict() if name.startswith(("conv1.", "bn1."))]
    assert is_equal(loaded(tmp_path / "weights.pth", resnet18(), needed), network)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_no_finite_numbers_are_refused(tmp_path, value):
    net = Net()
    net.block[0].bias.data[1] = value
    torch.save({"model": net.state_dict()}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"model.block.0.bias of .*weights.pth has NaN or infinity"):
        loaded(tmp_path / "weights.pth", Net())


MISFITS = {
    "block.0.weight is missing": lambda w: w.pop("block.0.weight"),
    r"block.0.weight is [4, 3, 3, 3] where [4, 1, 3, 3] is needed": lambda w: w.update(
        {"block.0.weight": torch.zeros(4, 3, 3, 3)}
    ),
    r"block.0.bias is [4] torch.int8 where [4] torch.float32 is needed": lambda w: w.update(
        {"block.0.bias": torch.zeros(4, dtype=torch.int8)}
    ),
    "block.0.weight is missing, block.0.bias is missing, block.1.weight is missing and 1 more": lambda w: [
        w.pop(name) for name in ("block.0.weight", "block.0.bias", "block.1.weight", "block.1.bias")
    ],
}


@pytest.mark.parametrize("expected", MISFITS)
def test_what_does_not_fit_is_named_with_its_numbers(tmp_path, expected):
    weights = dict(Net().state_dict())
    MISFITS[expected](weights)
    torch.save({"state_dict": {f"module.{name}": value for name, value in weights.items()}}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"weights.pth does not fit this network: ") as caught:
        loaded(tmp_path / "weights.pth", Net())
    assert expected in str(caught.value).replace("state_dict.module.", "")


def test_the_weights_of_another_network_are_refused(tmp_path):
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"none of this network's weights: needed are block.0.weight, .* it has weig"):
        loaded(tmp_path / "weights.pth", Net())


def test_a_file_in_an_installed_package_is_read_without_importing_it(tmp_path, monkeypatch):
    folder = tmp_path / "package_of_weights" / "inside"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("raise SystemExit('imported')")
    net = Net()
    torch.save(net.state_dict(), folder / "net.pth")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert is_equal(loaded("package_of_weights:inside/net.pth", Net()), net)
    assert is_equal(loaded("package_of_weights.inside:net.pth", Net()), net)
    monkeypatch.chdir(tmp_path)
    other = Net()
    torch.save(other.state_dict(), "package_of_weights:a#b.pth")  # a file of that name comes first
    assert is_equal(loaded("package_of_weights:a#b.pth", Net()), other)
    assert "package_of_weights" not in sys.modules
    for place in ("package_of_weights:other.pth", "no_such_package:net.pth", "https://host/net.pth", "__main__:x.pth"):
        with pytest.raises(FileNotFoundError, match=f"no file .*{place.rpartition('/')[2].rpartition(':')[2]}"):
            weights_of_file(place)


class Code:
    """Makes a file where it is unpickled."""

    def __reduce__(self):
        return Path.touch, (Path("executed"),)


def scripted(path):
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), path)


def compressed(path):
    torch.save({"a": torch.zeros(2**20)}, "plain.pth")
    with zipfile.ZipFile("plain.pth") as plain, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name in plain.namelist():
            made.writestr(name, plain.read(name))


def flipped(path):
    torch.save({"a": torch.ones(2**10)}, path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncated(path, **how):
    torch.save(Net().state_dict(), path, **how)
    path.write_bytes(path.read_bytes()[:-700])


class Rebuilt:
    """A tensor of one number, said to have more."""

    def __reduce__(self):
        return torch._utils._rebuild_tensor_v2, (torch.zeros(1).storage(), 0, (2**31,), (0,), False, {})


class Zeros:
    def __reduce__(self):
        return bytearray, (2**31,)


REFUSED = {
    "code": (lambda path: torch.save({"a": torch.zeros(1), "b": Code()}, path), "more than tensors"),
    "code in the old format": (
        lambda path: torch.save({"b": Code()}, path, _use_new_zipfile_serialization=False),
        "more than tensors",
    ),
    "a pickle": (lambda path: path.write_bytes(pickle.dumps(Code())), "more than tensors"),
    "a pickle of the first protocol": (lambda path: path.write_bytes(pickle.dumps(Code(), 2)), "more than tensors"),
    "a network": (lambda path: torch.save(Net(), path), r"it asks for \S*test_weights.Net; .*state_dict\(\)"),
    "TorchScript": (scripted, "it is a TorchScript archive"),
    "many zeros": (lambda path: torch.save([Zeros()], path), "it asks for __builtin__.bytearray"),
    "compressed": (compressed, "it is compressed"),
    "a flipped bit": (flipped, "checksum of"),
    "half a file": (truncated, "not a whole file of weights"),
    "half an old file": (lambda path: truncated(path, _use_new_zipfile_serialization=False), "not a whole file"),
    "more than the file": (lambda path: torch.save({"a": Rebuilt()}, path), "more numbers than the file"),
    "no pickle": (lambda path: path.write_bytes(b"\x93NUMPY\x01\x00"), "not a whole file of weights"),
    "empty": (lambda path: path.write_bytes(b""), "not a whole file of weights"),
    "no tensors": (lambda path: torch.save({"epoch": 3}, path), "no tensors with names"),
    "one tensor": (lambda path: torch.save(torch.zeros(3), path), "no tensors with names"),
    "a folder": (lambda path: path.mkdir(), "a folder; give a file"),
}


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated", "ignore:`torch.jit")
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_file_of_plain_weights_is_refused_in_one_sentence_and_not_executed(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write, expected = REFUSED[name]
    write(tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=rf"^weights.pth .*{expected}") as caught:
        weights_of_file("weights.pth")
    assert "\n" not in str(caught.value)
    assert not Path("executed").exists()


def test_lists_in_lists_without_an_end_are_refused(tmp_path):
    inner = []
    inner.append(inner)
    deep = torch.zeros(1)
    for _ in range(30):
        deep = [deep]
    torch.save({"a": inner, "b": torch.zeros(1)}, tmp_path / "itself.pth")
    assert set(weights_of_file(str(tmp_path / "itself.pth"))) == {"b"}
    torch.save(deep, tmp_path / "deep.pth")
    with pytest.raises(ValueError, match="in each other without an end"):
        weights_of_file(str(tmp_path / "deep.pth"))


@pytest.mark.parametrize("content", [b"", b"\x00" * 7, b"\xff" * 64, b"{}"])
def test_broken_safetensors_are_refused(tmp_path, content):
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"a.safetensors is not a whole file of weights"):
        weights_of_file(str(tmp_path / "a.safetensors"))


def test_safetensors_that_are_said_to_be_larger_than_their_file_are_refused(tmp_path):
    header = json.dumps({"a": {"dtype": "F32", "shape": [2**30], "data_offsets": [0, 2**32]}}).encode()
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(64))
    with pytest.raises(ValueError, match=r"a.safetensors is not a whole file of weights"):
        weights_of_file(str(tmp_path / "a.safetensors"))


def test_files_of_other_kinds_and_files_that_are_not_there_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("net.onnx").touch()
    with pytest.raises(ValueError, match=r"net.onnx ends in none of .safetensors, .pth, .pt, .ckpt, .bin"):
        weights_of_file("net.onnx")
    with pytest.raises(FileNotFoundError, match=r"no file of weights net.pth; give one that is here .*untrained"):
        weights_of_file("net.pth")
