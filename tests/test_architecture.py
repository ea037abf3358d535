"""The picture in CONTRIBUTING, enforced on the syntax trees: who may import whom, and who may know what."""

import ast
import re

import pytest
from small_runs import ROOT

BELOW = {"inverters", "datamodules", "evaluations"}
MAY_IMPORT = {
    "inverters": {"inverters", "runtime"},
    "datamodules": {"datamodules", "runtime"},
    "evaluations": {"evaluations", "runtime"},
    "runtime": {"runtime", *BELOW},
    "callbacks": {"callbacks", "runtime", *BELOW},
    "commands": {"commands", "callbacks", "runtime", *BELOW},
}
# What is imported upwards, in the bodies of `inverters.load` and `inverters.worlds`: runs and configs are known above.
UPWARDS = {"inverters/__init__.py": {"commands.from_python"}, "inverters/worlds.py": {"commands.worlds"}}
OURS = {*MAY_IMPORT, "benchmarks", "cli"}
FORBIDDEN = {  # by the beginning of a path
    "inverters/generators.py": {"pytorch_lightning"},
    "inverters/likelihoods.py": {"pytorch_lightning"},
    "inverters/mse_decoder.py": {"pytorch_lightning"},
    "inverters/pixelcnn/": {"pytorch_lightning"},
    "inverters/": {"wandb", "matplotlib", "pathlib", "yaml"},
    "evaluations/": {"pytorch_lightning", "wandb", "yaml"},
    "callbacks/": {"yaml", "argparse"},
}


def files(prefix):
    found = sorted(ROOT.glob(f"{prefix}**/*.py" if prefix.endswith("/") else prefix))
    assert found
    return found


SYNTAX = {path: list(ast.walk(ast.parse(path.read_text()))) for package in MAY_IMPORT for path in files(f"{package}/")}


def imported(path):
    """Every module that a file imports, by its whole name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def packages(path):
    return {name.split(".")[0] for name in imported(path)}


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_packages_import_only_what_the_picture_allows(package):
    for path in files(f"{package}/"):
        upwards = UPWARDS.get(path.relative_to(ROOT).as_posix(), set())
        ours = {name.split(".")[0] for name in set(imported(path)) - upwards} & OURS
        assert ours <= MAY_IMPORT[package], path
        if package in BELOW:
            assert {name for name in imported(path) if name.startswith("runtime")} <= {"runtime.files"}, path


def test_whole_files_are_written_by_one_file_that_imports_nothing_of_ours():
    assert not packages(ROOT / "runtime/files.py") & OURS


@pytest.mark.parametrize("prefix", FORBIDDEN)
def test_modules_do_not_know_what_is_not_theirs(prefix):
    for path in files(prefix):
        assert not packages(path) & FORBIDDEN[prefix], path


def test_callbacks_are_callbacks():
    kinds = {"Callback", "EarlyStopping", "ProgressBar", "WeightAveraging", "_Results"}
    for path in files("callbacks/"):
        classes = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)]
        assert path.name == "__init__.py" or classes, path
        assert all({base.id for base in c.bases} & kinds for c in classes), path


def test_only_configs_and_the_networks_themselves_know_the_name_of_a_layer():
    for path, nodes in SYNTAX.items():
        strings = [n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)]
        assert not [s for s in strings if re.fullmatch("conv[12]|fc[123]|logits", s)], path


def test_private_parts_of_lightning_are_used_in_one_file():
    """Of what is ours a file may use its own only."""
    for path, nodes in SYNTAX.items():
        own = {n.name for n in nodes if isinstance(n, ast.FunctionDef | ast.ClassDef)}
        own |= {n.attr for n in nodes if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)}
        used = {n.attr for n in nodes if isinstance(n, ast.Attribute) and n.attr.startswith("_")}
        private = {name for name in used - own if not name.startswith(("__", "_foreach_"))}  # torch's, of many tensors
        if path != ROOT / "runtime/lightning.py":
            # Of namedtuple, argparse, os, torch (torch.compile has its settings there) and W&B (lineage, offline).
            assert not private - {"_asdict", "_actions", "_exit", "_dynamo", "_weight_norm", "_log_artifact"}, path
