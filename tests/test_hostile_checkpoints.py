"""A checkpoint that was changed, or made to do harm: one sentence, within seconds and bounded memory."""

import zipfile
from pathlib import Path

import pytest
import torch
from small_runs import SHORT, failure, the_run

from callbacks.exact_resume import check_random_states, random_states
from runtime.checkpoints import LONGEST_PICKLE, load_checkpoint
from runtime.optimizer_state import Configured


def archive(path, pickle=None, compression=zipfile.ZIP_STORED, more=0):
    """A small checkpoint, with another pickle, compressed, or with more bytes in a file of its own."""
    torch.save({"state_dict": {"weight": torch.arange(4.0)}}, "plain.ckpt")
    with zipfile.ZipFile("plain.ckpt") as plain, zipfile.ZipFile(path, "w", compression) as made:
        for file in plain.infolist():
            is_pickle = file.filename.endswith("data.pkl")
            made.writestr(file.filename, pickle if pickle and is_pickle else plain.read(file))
        if more:
            made.writestr("plain/data/more", bytes(more))


def pickle_of(value):
    """{"state_dict": {}, "a": value}, of which the value is written by hand."""
    return b"\x80\x02}(X\x0a\0\0\0state_dict}X\x01\0\0\0a" + value + b"u."


# A list of lists, each of ten times the one before it.
LAUGHS = b"](]q\0" + b"".join(b"]" + bytes([113, i + 1]) + b"(" + bytes([104, i]) * 10 + b"e" for i in range(20)) + b"e"
HOSTILE = {
    "itself": (pickle_of(b"]q\0h\0a"), "holds parts again and again"),
    "twenty lists of ten": (pickle_of(LAUGHS), "holds parts again and again"),
    "lists in lists": (pickle_of(b"]" * 1000 + b"a" * 999), "in each other without an end"),
    "much text": (pickle_of(b"X" + (LONGEST_PICKLE + 1).to_bytes(4, "little") + bytes(LONGEST_PICKLE + 1)), "beside"),
    "zeros": (pickle_of(b"c__builtin__\nbytearray\nM\xff\xff\x85R"), "objects other than tensors and numbers"),
    "a number of gigabytes": (pickle_of(b"\x8b\xff\xff\xff\x7f"), "not a whole checkpoint"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_pickle_that_fills_the_memory_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    pickle, expected = HOSTILE[name]
    archive("hostile.ckpt", pickle)
    with pytest.raises(ValueError, match=rf"hostile\.ckpt .*{expected}"):
        load_checkpoint("hostile.ckpt")


def test_a_compressed_checkpoint_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    archive("bomb.ckpt", compression=zipfile.ZIP_DEFLATED, more=2**26)
    assert Path("bomb.ckpt").stat().st_size < 2**18
    with pytest.raises(ValueError, match=r"bomb\.ckpt is not a whole checkpoint \(it is compressed\)"):
        load_checkpoint("bomb.ckpt")


class Rebuilt:
    """A tensor of one number, said to have another size."""

    def __init__(self, *size_and_stride):
        self.size_and_stride = size_and_stride

    def __reduce__(self):
        return torch._utils._rebuild_tensor_v2, (torch.zeros(1).storage(), 0, *self.size_and_stride, False, {})


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated", "ignore:.*torch.quantize_per_tensor")
@pytest.mark.parametrize(
    "made",
    [
        lambda: torch.zeros(3, device="meta"),
        lambda: torch.eye(3).to_sparse(),
        lambda: torch.quantize_per_tensor(torch.zeros(3), 1.0, 0, torch.quint8),
        lambda: torch.zeros(1).expand(2**31),
        lambda: Rebuilt((2**31,), (0,)),
        lambda: Rebuilt((2**31,), (1,)),
        lambda: Rebuilt((-1,), (1,)),
        lambda: Rebuilt((2,), (-1,)),
    ],
)
def test_a_tensor_without_all_of_its_numbers_is_refused(tmp_path, monkeypatch, made):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {"weight": made()}}, "odd.ckpt")
    with pytest.raises(ValueError, match=r"odd\.ckpt is no"):
        load_checkpoint("odd.ckpt")


def test_every_kind_of_number_is_loaded(tmp_path):
    kinds = (torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.uint16, torch.bool, torch.complex64)
    saved = {str(kind): torch.ones(3, kind.is_complex + 1).to(kind).t() for kind in kinds}
    torch.save({"state_dict": saved}, tmp_path / "kinds.ckpt")
    loaded = load_checkpoint(tmp_path / "kinds.ckpt")["state_dict"]
    assert all(torch.equal(loaded[name], value) for name, value in saved.items())


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("exp_avg", torch.zeros(1), "weight is [1] where [3, 2] is needed"),
        ("exp_avg_sq", torch.zeros(3, 2, dtype=torch.int64), "[3, 2] torch.int64 where [3, 2] is needed"),
        ("exp_avg_sq", torch.full((3, 2), torch.nan), "exp_avg_sq of weight is NaN or infinite"),
        ("step", torch.zeros(2), "step of weight is [2] where [] is needed"),
        ("step", None, "step of weight is missing where [] is needed"),
    ],
)
def test_a_state_that_does_not_fit_its_parameter_is_refused(key, value, expected):
    module = torch.nn.Linear(2, 3)
    optimizer = torch.optim.Adam(module.parameters(), fused=True)
    configured = Configured(optimizer, [])
    module(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    names = {parameter: name for name, parameter in module.named_parameters()}
    configured.check(names)
    optimizer.state[module.weight][key] = value
    with pytest.raises(ValueError, match=expected.replace("[", r"\[")):
        configured.check(names)


def test_random_states_that_read_elsewhere_are_refused():
    check_random_states(random_states(torch.device("cpu")))
    for key, value in (
        ("numpy", ["MT19937", [0] * 624, 10**6, 0, 0.0]),
        ("python", [3, [0] * 9, None]),
        ("torch", torch.zeros(9)),
    ):
        with pytest.raises(ValueError, match="the checkpoint's random states are not whole"):
            check_random_states(random_states(torch.device("cpu")) | {key: value})


def without_a_state(checkpoint):
    del checkpoint["optimizer_states"][0]["state"][3]


def without_weights_in_training(checkpoint):
    del checkpoint["current_model_state"]


def with_another_shape(checkpoint):
    state = checkpoint["optimizer_states"][0]["state"]
    state[0]["exp_avg"] = torch.zeros(1)


CHANGES = {
    without_a_state: "changed.ckpt cannot be resumed: its optimiser knows nothing of density.",
    without_weights_in_training: "changed.ckpt cannot be resumed: it has only the averaged weights; test it",
    with_another_shape: "changed.ckpt cannot be resumed: its optimiser's exp_avg of density.",
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_checkpoint_does_not_train_on(with_inverter, capsys, change):
    checkpoint = torch.load(the_run(Path()) / "checkpoints" / "last.ckpt", weights_only=True)
    change(checkpoint)
    torch.save(checkpoint, "changed.ckpt")
    more = ["--trainer.max_steps=3", "--trainer.logger=false", "--ckpt_path=changed.ckpt"]
    assert CHANGES[change] in failure(capsys, "fit", *SHORT, *more)
