"""The arguments of functions and classes, read from syntax trees: nothing is imported, which would take seconds."""

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NAMED = ("inverters", "datamodules")  # their classes may be named without a module
OURS = (*NAMED, "callbacks", "commands", "evaluations")
Place = tuple[str, str]  # a module, and a name in it
TRAINER: Place = ("pytorch_lightning.trainer.trainer", "Trainer")


@dataclass(frozen=True)
class Argument:
    """One argument, as it is written.

    Attributes:
        default: The class of what it is by default, where that is one of ours.
        takes_null: Whether None may be given.
    """

    default: Place | None
    takes_null: bool


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def _file(module: str) -> Path | None:
    """The file of a module of ours, or of Lightning; None for any other."""
    package, *rest = module.split(".")
    folder = ROOT / package
    if package not in OURS:
        spec = find_spec(package) if package == "pytorch_lightning" else None
        if spec is None or spec.origin is None:
            return None
        folder = Path(spec.origin).parent
    path = folder.joinpath(*rest)
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


@cache
def definition(place: Place) -> tuple[str, ast.ClassDef | ast.FunctionDef] | None:
    """Where a name is defined, which other modules may import, and how; None for what is not ours."""
    module, name = place
    path = _file(module)
    for node in _tree(path).body if path else ():
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return module, node
        if isinstance(node, ast.ImportFrom) and node.module:
            original = next((alias.name for alias in node.names if (alias.asname or alias.name) == name), None)
            if original:
                return definition((node.module, original))
    return None


@cache
def arguments(place: Place) -> Mapping[str, Argument]:
    """The arguments of a function, or of a class, with those that it hands on to its bases."""
    found = definition(place)
    if found is None:
        return {}
    module, node = found
    if isinstance(node, ast.FunctionDef):
        return _of_function(module, node)
    constructor = next((n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
    known: dict[str, Argument] = {}
    if constructor is None or constructor.args.kwarg:
        for base in node.bases:
            known |= arguments((module, base.id)) if isinstance(base, ast.Name) else {}
    if constructor:
        return known | _of_function(module, constructor)
    if node.decorator_list:  # a dataclass
        fields = [n for n in node.body if isinstance(n, ast.AnnAssign)]
        known |= {ast.unparse(field.target): _argument(module, field.annotation, field.value) for field in fields}
    return known


def method_arguments(place: Place, method: str) -> Mapping[str, Argument]:
    """Those of a class's method."""
    found = definition(place)
    if found is None:
        return {}
    methods = (n for n in found[1].body if isinstance(n, ast.FunctionDef) and n.name == method)
    return next((_of_function(found[0], n) for n in methods), {})


def _of_function(module: str, node: ast.FunctionDef) -> dict[str, Argument]:
    positional = [*node.args.posonlyargs, *node.args.args]
    defaults = [*[None] * (len(positional) - len(node.args.defaults)), *node.args.defaults, *node.args.kw_defaults]
    pairs = zip([*positional, *node.args.kwonlyargs], defaults, strict=True)
    return {arg.arg: _argument(module, arg.annotation, default) for arg, default in pairs if arg.arg != "self"}


def _argument(module: str, annotation: ast.expr | None, default: ast.expr | None) -> Argument:
    made = default.func if isinstance(default, ast.Call) else default
    place = (module, made.id) if isinstance(made, ast.Name) and definition((module, made.id)) else None
    written = ast.unparse(annotation) if annotation else "Any"
    is_null = isinstance(default, ast.Constant) and default.value is None
    return Argument(place, is_null or any(word in written for word in ("None", "Optional", "Any")))


@cache
def class_names() -> tuple[str, ...]:
    """Of all classes that may be named without a module."""
    imports = [n for package in NAMED for n in _tree(ROOT / package / "__init__.py").body]
    names = [alias.name for n in imports if isinstance(n, ast.ImportFrom) for alias in n.names]
    return tuple(name for name in names if name[0].isupper())  # a module is none


def place_of(class_path: str) -> Place | None:
    """Where a class of ours lies, by its name or its dotted path; None for any other."""
    module, _, name = class_path.rpartition(".")
    places = [(module, name)] if module else [(package, name) for package in NAMED]
    return next((place for place in places if place[0].split(".")[0] in OURS and definition(place)), None)


def summary(place: Place) -> str:
    """The first line of its docstring."""
    found = definition(place)
    return (ast.get_docstring(found[1]) or "").split("\n")[0] if found else ""
