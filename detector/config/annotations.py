"""Annotations of options, read from source code: the packages of a detector take seconds to import."""

from __future__ import annotations

import ast
import builtins
import importlib.util
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

# Modules that may be imported.
_LIGHT = ("typing", "collections.abc", "pathlib", "annotated_types", "detector.option_types")


@cache
def annotations_of(name: str) -> dict[str, Any]:
    """Return the annotations that `schema_of` returns for a class or function of ours, without importing it.

    A class in them is a stand-in of the same name, whose `source` is its dotted name. Parameters of other
    packages, and annotations that are not understood, are missing.
    """
    definition = _definition(name)
    if definition is None:
        return {}
    return {name: _Names(origin).evaluated(text) for name, text, origin in _parameters(*definition)}


def source_of(annotation: Any) -> str | None:
    """Return the dotted name of the class that a stand-in stands for; None for other annotations."""
    return getattr(annotation, "source", None) if isinstance(annotation, type) else None


def _definition(name: str) -> tuple[str, ast.stmt] | None:
    """Return the module that defines a name, and the statement there; names of packages are followed."""
    module, _, attribute = name.rpartition(".")
    if not module.startswith("detector."):
        return None
    statement = _statements(module).get(attribute)
    if isinstance(statement, ast.ImportFrom):
        original = next(a.name for a in statement.names if (a.asname or a.name) == attribute)
        return _definition(f"{statement.module}.{original}")
    if statement is None:
        table = _statements(module).get("_MODULES")  # of a package that imports its names late
        places = ast.literal_eval(table.value) if isinstance(table, ast.Assign) else {}
        return _definition(f"{places[attribute]}.{attribute}") if attribute in places else None
    return module, statement


@cache
def _statements(module: str) -> dict[str, ast.stmt]:
    """Return what defines each name of a module: a class, function, assignment or import."""
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:  # of a package that does not exist, as a user's file may name it
        spec = None
    if spec is None or spec.origin is None:
        return {}
    statements: dict[str, ast.stmt] = {}
    for node in ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            statements[node.name] = node
        elif isinstance(node, ast.Assign):
            statements |= {target.id: node for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.ImportFrom):
            statements |= {alias.asname or alias.name: node for alias in node.names}
    return statements


def _parameters(module: str, node: ast.stmt) -> Iterator[tuple[str, ast.expr, str]]:
    """Yield the parameters of a function, of a constructor, or the fields of a dataclass and its bases.

    Each has its name, its annotation, and the module whose names the annotation uses.
    """
    if isinstance(node, ast.FunctionDef):
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        yield from ((a.arg, a.annotation, module) for a in arguments if a.annotation is not None)
    elif isinstance(node, ast.ClassDef):
        inits = [n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"]
        if inits:
            yield from _parameters(module, inits[0])
            return
        for base in node.bases:
            if isinstance(base, ast.Name) and (definition := _definition(f"{module}.{base.id}")):
                yield from _parameters(*definition)
        for statement in node.body:
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                yield statement.target.id, statement.annotation, module


class _Names(dict[str, Any]):
    """The names of a module, as far as annotations need them."""

    def __init__(self, module: str) -> None:
        super().__init__()
        self._module = module

    def evaluated(self, annotation: ast.expr) -> Any:
        try:
            return eval(ast.unparse(annotation), {"__builtins__": {}}, self)
        except (AttributeError, NameError, TypeError):
            return Any

    def __missing__(self, name: str) -> Any:
        if hasattr(builtins, name):
            return getattr(builtins, name)
        statement = _statements(self._module).get(name)
        if isinstance(statement, ast.ImportFrom) and statement.module in _LIGHT:
            return getattr(import_module(statement.module), name)
        definition = _definition(f"{self._module}.{name}")
        if definition is None:  # of another package
            return type(name, (), {})
        module, node = definition
        if isinstance(node, ast.Assign):
            return _Names(module).evaluated(node.value)
        return type(name, (), {"source": f"{module}.{name}"})
