"""Checkpoints, results and caches that are not what they should be, each in a process of its own with limits.

INVERTERS_FUZZ=N does N times as many.
"""

import io
import json
import os
import random
import resource
import time
import traceback
import warnings
import zipfile
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import torch
from digests import tensors
from small_runs import checkpoint_of
from test_fuzz import INVERTER, TIMES, mutated
from test_report import all_runs  # noqa: F401 - a fixture

from cli import main
from evaluations.report import sections
from evaluations.report.page import page
from evaluations.report.tested_runs import runs_under
from inverters.networks import ConvNet
from inverters.representation import Representation
from runtime.activations import cached_activations
from runtime.checkpoints import load_checkpoint


def in_child(work, seconds=60, memory=2**31):
    """What `work` gives as text, or refuses with a sentence: "refused: ...", in a process of its own with limits.

    Raises:
        AssertionError: It died, ran out of time or memory, or raised another error than those of a user.
    """
    read, write = os.pipe()
    process = os.fork()
    if process == 0:
        space = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (space + memory, space + memory))
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        warnings.simplefilter("ignore")
        try:
            text = str(work())
        except (OSError, ValueError) as error:
            text = f"refused: {error}"
        except BaseException:
            text = f"failed: {traceback.format_exc()}"
        os.write(write, text.encode(errors="replace")[-60_000:])
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as file:
        text = file.read().decode(errors="replace")
    _, status = os.waitpid(process, 0)
    assert status == 0, f"died with status {os.waitstatus_to_exitcode(status)}"
    assert not text.startswith("failed: "), text
    return text


def command(*arguments):
    """What a command said, in the order of its streams, and after it its exit status."""
    said = io.StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        try:
            main(list(arguments))
            status = 0
        except SystemExit as caught:
            status = caught.code or 0
    return f"{said.getvalue()}\n{status}"


def refusal(said):
    """The one sentence of a command that failed; None of one that came to its end."""
    text, _, status = said.rpartition("\n")
    if status == "0":
        return None
    errors = [line for line in text.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, text
    assert "Traceback" not in text, text
    assert "should not happen" not in text, text
    return errors[0]


def test_a_mutated_checkpoint_file_is_refused_or_the_same(with_inverter):
    content, expected = checkpoint_of().read_bytes(), load_checkpoint(checkpoint_of())["state_dict"]
    generator, refused = random.Random(0), 0

    def same():
        found = load_checkpoint("mutated.ckpt")["state_dict"]
        return all(torch.equal(found[name], value) for name, value in expected.items())

    for _ in range(300 * TIMES):
        Path("mutated.ckpt").write_bytes(mutated(content, generator))
        said = in_child(same)
        assert said == "True" or (said.startswith("refused: ") and "mutated.ckpt" in said), said
        refused += said != "True"
    assert refused > 200 * TIMES


def test_a_mutated_pickle_in_a_whole_file_is_refused_or_loaded(with_inverter):
    """With checksums that fit, as one has who writes it by hand."""
    checkpoint = load_checkpoint(checkpoint_of())
    torch.save({key: checkpoint[key] for key in ("state_dict", "optimizer_states", "loops", "callbacks")}, "small.ckpt")
    generator, refused = random.Random(6), 0
    with zipfile.ZipFile("small.ckpt") as archive:
        files = {file.filename: archive.read(file) for file in archive.infolist()}
    for _ in range(200 * TIMES):
        with zipfile.ZipFile("mutated.ckpt", "w") as archive:
            for name, content in files.items():
                archive.writestr(name, mutated(content, generator) if name.endswith("data.pkl") else content)
        said = in_child(lambda: len(load_checkpoint("mutated.ckpt")))
        assert not said.startswith("refused: ") or "mutated.ckpt" in said, said
        refused += said.startswith("refused: ")
    assert refused > 100 * TIMES


def mutate_value(place, generator, values):
    """Replace or take away something inside a nesting of dictionaries and lists; what was done."""
    path = []
    while True:
        keys = list(place.keys() if isinstance(place, dict) else range(len(place)))
        key = generator.choice(keys)
        path.append(str(key))
        inner = place[key]
        if isinstance(inner, dict | list) and inner and generator.random() < 0.8:
            place = inner
            continue
        if generator.random() < 0.4:
            del place[key]
            return f"without {'/'.join(path)}"
        place[key] = generator.choice(values)
        return f"{'/'.join(path)} is {place[key]!r}"


IN_CHECKPOINTS = (
    None, -1, 2**70, "text", [], {}, float("nan"), float("inf"), 1e30, torch.zeros(2), torch.zeros(()),
    torch.tensor(torch.nan), torch.zeros(2, 3, 4), torch.zeros(1).expand(10**10), torch.zeros(1, device="meta"), True,
)  # fmt: skip


def weights(path):
    """All tensors that a training depends on, by name."""
    saved = torch.load(path, weights_only=True)
    kept = {key: saved[key] for key in ("state_dict", "current_model_state", "averaging_state", "optimizer_states")}
    return {name: value for name, value in tensors(kept) if isinstance(value, torch.Tensor)}


def test_a_checkpoint_with_other_contents_is_refused_or_trains_the_same(with_inverter):
    """Or says that the command line has changed what it asks for."""
    generator = random.Random(1)
    resume = ["fit", *INVERTER, "--trainer.max_steps=3", "--test_after_fit=false", "--ckpt_path=mutated.ckpt"]
    checkpoint = torch.load(checkpoint_of(), weights_only=True)
    torch.save(checkpoint, "mutated.ckpt")

    def trained(verb):
        root = f"--trainer.default_root_dir=again_{time.monotonic_ns()}"
        said = command(*(resume if verb == "fit" else ["test", *INVERTER, "--ckpt_path=mutated.ckpt"]), root)
        (Path("said.txt")).write_text(said)
        return root.partition("=")[2]

    (whole,) = Path(in_child(lambda: trained("fit"))).glob("*/*/checkpoints/last.ckpt")
    expected = weights(whole)
    for _ in range(30 * TIMES):
        checkpoint = torch.load(checkpoint_of(), weights_only=True)
        place = generator.choice((checkpoint, checkpoint["optimizer_states"], checkpoint["callbacks"]))
        change = mutate_value(place, generator, IN_CHECKPOINTS)
        torch.save(checkpoint, "mutated.ckpt")
        verb = generator.choice(("fit", "fit", "test"))
        root = in_child(lambda verb=verb: trained(verb))
        said = Path("said.txt").read_text()
        if refusal(said) is None and verb == "fit":
            (last,) = Path(root).glob("*/*/checkpoints/last.ckpt")
            found = weights(last)
            same = found.keys() == expected.keys() and all(torch.equal(found[k], expected[k]) for k in expected)
            assert same or "as before" in said or "dropout will differ" in said, change


IN_RESULTS = (None, -1, 10**400, "text", [], [[[]]], {}, {"a": 1}, 1e308, True, "$x^$", "\\udc80", "<b>")
ARRAYS = (
    np.zeros(0), np.zeros((2, 2, 2, 2)), np.array("text"), np.array([None]), np.full(3, np.nan), np.zeros(3, "c16"),
    np.arange(20)[::-1], np.zeros(2, [("a", "f8")]), np.zeros((20, 8, 8), "f2"), np.array([2**63], "u8"),
)  # fmt: skip


def mutate_results(path, generator):
    """Something else in a file of results, of the same form."""
    if path.suffix == ".json":
        found = [json.loads(path.read_text())]
        mutate_value(found, generator, IN_RESULTS)
        path.write_text(json.dumps(found[0] if found else None))
    elif path.suffix == ".npy":
        np.save(path, generator.choice(ARRAYS))
    else:
        arrays = dict(np.load(path))
        arrays[generator.choice([*arrays])] = generator.choice(ARRAYS)
        np.savez(path, **arrays)


def test_results_with_other_contents_are_answered(all_runs):  # noqa: F811 - the fixture
    """In a report, which reads all of them."""
    files = sorted(path for path in all_runs.rglob("*") if path.suffix in (".json", ".npy", ".npz"))
    generator = random.Random(7)
    for _ in range(20 * TIMES):
        path = generator.choice(files)
        content = path.read_bytes()
        mutate_results(path, generator)
        try:
            in_child(lambda: page("a title", sections(runs_under([all_runs]), [])))
        except AssertionError as error:
            raise AssertionError(f"{path.name}: {path.read_bytes()[:2000]!r}") from error
        finally:
            path.write_bytes(content)


def test_a_mutated_cache_is_made_again(tmp_path):
    representation = Representation(ConvNet((1, 16, 16), 10, filters=(3, 4), num_hidden=6), "fc3")
    images = torch.randint(256, (9, 1, 16, 16), dtype=torch.uint8)
    expected = np.array(cached_activations(representation, images, "train", tmp_path))
    (path,) = tmp_path.glob("*.npy")
    generator = random.Random(8)
    for _ in range(50 * TIMES):
        path.write_bytes(mutated(path.read_bytes(), generator))
        made = in_child(lambda: (cached_activations(representation, images, "train", tmp_path) == expected).all())
        assert made == "True"
