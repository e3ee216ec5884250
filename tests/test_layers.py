"""Dependencies point down only, and each heavy package has its places: read from the imports."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "detector"

# A layer may import those before it, not its siblings on the same line nor those after.
LAYERS = [
    {"version", "lazy", "factory", "option_types", "exceptions", "quoting", "processes"},
    {"files", "environment", "earlier"},
    {"coco", "run_folder"},
    {"pasting"},
    {"drawings"},
    {"conversions"},
    {"structures"},
    {"ops"},
    {"layers"},
    {"weights"},
    {"backbones", "necks", "heads", "checkpoint_entries"},
    {"checkpoint_schemas"},
    {"models", "data", "evaluation", "checkpoint"},
    {"profiling", "training", "exporting"},
    {"reports"},
    {"config"},
    {"predictor"},
    {"runs"},
    {"comparing"},
    {"commands"},
    {"cli"},
    {"api"},
    {"__main__"},
]
# Who may import a package; the others of the table of dependencies are free.
PLACES = {
    "hydra": {"config", "runs", "comparing", "cli"},
    "omegaconf": {"config", "runs", "comparing", "commands", "cli"},
    "lightning": {"data", "training", "commands", "runs"},
    "albumentations": {"data"},
    "pycocotools": {"evaluation"},
    "hotcoco": {"evaluation"},
    "triton": {"ops"},
    "pydantic": {"config"},
    "rich": {"coco", "data", "training", "reports", "commands", "comparing", "runs", "cli"},
    "tensorboard": {"training"},
    "submitit": {"comparing"},
    "onnx": {"commands", "exporting"},
    "onnxscript": {"commands", "exporting"},
    "onnxruntime": {"commands", "exporting"},
}
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
BROUGHT_BY_TORCH = {"triton"}  # on Linux, where it has CUDA
IMPORT_NAMES = {
    "hydra-core": "hydra",
    "opencv-python-headless": "cv2",
    "pillow": "PIL",
    "pyyaml": "yaml",
    "annotated-types": "annotated_types",
    "hydra-submitit-launcher": "hydra_plugins",
}
MODULES = sorted(PACKAGE.rglob("*.py"))


def layer(module: Path) -> str:
    """The first part below the package: detector/heads/fcos.py and detector/heads are "heads"."""
    return module.relative_to(PACKAGE).parts[0].removesuffix(".py")


@cache
def tree(module: Path) -> ast.Module:
    return ast.parse(module.read_text(encoding="utf-8"))


@cache
def imports(module: Path, root: Path = PACKAGE) -> tuple[str, ...]:
    return tuple(_imports(module, root))


def _imports(module: Path, root: Path) -> Iterator[str]:
    """Dotted names of the modules that `module` imports, wherever in it, relative ones made absolute."""
    package = (root.name, *module.relative_to(root).parts[:-1])
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            name = ".".join([*base, *filter(None, [node.module])])
            yield name
            if name in ("detector", "detector.ops.cpu"):  # from detector import heads
                yield from (f"{name}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("module", MODULES, ids=lambda m: str(m.relative_to(PACKAGE)))
def test_module_imports_only_lower_layers(module: Path) -> None:
    if module == PACKAGE / "__init__.py":
        body = tree(module).body
        statements = [ast.unparse(x) for x in body if isinstance(x, ast.Import | ast.ImportFrom)]
        assert statements == [
            "from typing import TYPE_CHECKING",
            "from detector.version import __version__",
        ], "it stays instant"
        return
    mine = layer(module)
    for name in imports(module):
        top, _, rest = name.partition(".")
        imported = rest.partition(".")[0]
        if top == "detector" and imported in RANK and imported != mine:
            assert RANK[imported] < RANK[mine], f"{mine} must not import {name}"


@pytest.mark.parametrize("package", PLACES)
def test_package_is_imported_in_its_places_only(package: str) -> None:
    importers = {layer(m) for m in MODULES if any(n.partition(".")[0] == package for n in imports(m))}
    assert importers <= PLACES[package]


def test_the_kernels_for_a_cpu_have_one_face() -> None:
    """Whoever uses them could take torch's instead; which algorithm computes is their own matter."""
    room = PACKAGE / "ops" / "cpu"
    for module in sorted({*MODULES} - {*room.iterdir()}):
        assert not {f"detector.ops.cpu.{inner.stem}" for inner in room.iterdir()} & {*imports(module)}, module


def test_every_folder_has_its_layer() -> None:
    layers = {layer(module) for module in MODULES} - {"__init__"}
    assert layers <= set(RANK)


def test_nobody_imports_scripts_or_tests() -> None:
    for module in MODULES:
        assert not {"scripts", "tests"} & {name.partition(".")[0] for name in imports(module)}, module


def test_every_imported_package_is_a_declared_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["slurm"], *extras["export"], *extras["supervision"]]
    names = [re.split(r"[<>=\[]", requirement)[0] for requirement in wanted]
    declared = {IMPORT_NAMES.get(name, name) for name in names} | {"detector"}
    for module in MODULES:
        used = {name.partition(".")[0] for name in imports(module)} - set(sys.stdlib_module_names)
        missing = used - declared - BROUGHT_BY_TORCH
        assert not missing, f"{module}: {missing} not in pyproject.toml"


def test_rule_sees_a_wrong_import(tmp_path: Path) -> None:
    """The reader of imports must find each form, or the rules above prove nothing."""
    module = tmp_path / "detector" / "ops" / "bad.py"
    module.parent.mkdir(parents=True)
    module.write_text(
        "import torch.nn\nfrom ..heads import fcos\nfrom . import boxes\nfrom detector import models\n"
        "def f():\n    from detector.heads.fcos import FCOSHead\n"
    )
    assert {"torch.nn", "detector.heads", "detector.ops", "detector.models", "detector.heads.fcos"} <= set(
        imports(module, tmp_path / "detector")
    )


@pytest.mark.parametrize(
    "file", sorted(PACKAGE.rglob("*.py")), ids=lambda f: f.relative_to(PACKAGE).as_posix()
)
def test_files_and_functions_fit_their_size(file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 400
    functions = [node for node in ast.walk(tree(file)) if isinstance(node, ast.FunctionDef)]
    assert not [f.name for f in functions if (f.end_lineno or 0) - f.lineno >= 60]


def test_what_tests_share_lies_in_no_test_module() -> None:
    """A test module can then be split, moved and deleted alone."""
    imports = re.compile(r"^\s*from tests(\.\w+)*\.test_\w+ import", re.MULTILINE)
    files = sorted((ROOT / "tests").rglob("*.py"))
    assert not [str(f.relative_to(ROOT)) for f in files if imports.search(f.read_text(encoding="utf-8"))]


def test_no_files_import_each_other_in_a_circle() -> None:
    names = {
        ".".join(m.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): m for m in MODULES
    }
    graph = {name: {*imported_modules(file, names)} - {name} for name, file in names.items()}
    while leaves := {name for name, others in graph.items() if not others & graph.keys()}:
        graph = {name: others for name, others in graph.items() if name not in leaves}
    assert not graph, f"circles among {sorted(graph)}"


def imported_modules(module: Path, names: Mapping[str, Path]) -> Iterator[str]:
    """The files that `module` imports from, at its top, in functions and for type checkers."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.ImportFrom) and node.module:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from [name for name in inner if name in names] or {node.module} & names.keys()
        elif isinstance(node, ast.Import):
            yield from {alias.name for alias in node.names} & names.keys()
