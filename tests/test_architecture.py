"""The picture in CONTRIBUTING, enforced: who may import whom."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = {"inverters", "datamodules", "callbacks", "evaluations", "benchmarks", "cli"}
MAY_IMPORT = {
    "inverters": {"inverters"},
    "datamodules": {"datamodules"},
    "evaluations": {"evaluations"},
    "callbacks": {"callbacks", "inverters", "evaluations"},
}
FORBIDDEN = {
    "inverters/densities.py": {"pytorch_lightning", "wandb", "matplotlib"},
    "inverters/likelihoods.py": {"pytorch_lightning", "wandb", "matplotlib"},
    "inverters/pixelcnn.py": {"pytorch_lightning", "wandb", "matplotlib"},
    "inverters/inverter.py": {"wandb", "matplotlib", "pathlib"},
}
FORBIDDEN |= {
    f"evaluations/{path.name}": {"pytorch_lightning", "wandb", "yaml"} for path in (ROOT / "evaluations").glob("*.py")
}


def imported_packages(path: Path) -> set[str]:
    packages = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            packages |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            packages.add(node.module.split(".")[0])
    return packages


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_packages_import_only_what_the_picture_allows(package):
    files = list((ROOT / package).glob("*.py"))
    assert len(files) > 1
    for path in files:
        assert imported_packages(path) & OURS <= MAY_IMPORT[package], path.name


@pytest.mark.parametrize("file", FORBIDDEN)
def test_modules_do_not_know_what_is_not_theirs(file):
    assert not imported_packages(ROOT / file) & FORBIDDEN[file]
