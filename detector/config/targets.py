"""The classes and functions that a configuration may name.

Hydra imports and calls whatever `_target_` names, even a shell command, and its blocklist has gaps. Here only
names on the list below are allowed, and they must be defined there: `detector.x.os.system` is not.
"""

from __future__ import annotations

import importlib
import inspect
import os
import shlex
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from detector.config.errors import did_you_mean

# Prefixes of our parts: classes, and one function.
_OURS = (
    "detector.backbones.",
    "detector.data.",
    "detector.evaluation.",
    "detector.heads.",
    "detector.layers.",
    "detector.models.",
    "detector.necks.",
    "detector.ops.",
    "detector.structures.",
    "detector.training.",
)
# The modules that define them: some names of a package come from a lower one.
_DEFINED_IN = (
    *(prefix for prefix in _OURS if prefix != "detector.ops."),
    "detector.coco.images.",
    "detector.coco.layouts.",
    "detector.ops.losses.",
)
_OUR_FUNCTIONS = ("detector.models.build_detector",)
# Prefixes of other packages from which classes, and only classes, may be named.
_CLASSES = (
    "albumentations.",
    "lightning.pytorch.callbacks.",
    "lightning.pytorch.loggers.",
    "lightning.pytorch.plugins.",
    "lightning.pytorch.profilers.",
    "lightning.pytorch.strategies.",
    "torch.nn.",
    "torch.optim.",
)
_added: ContextVar[tuple[str, ...]] = ContextVar("_added", default=())

SPECIAL_KEYS = ("_target_", "_partial_")


@contextmanager
def allowing(targets: Iterable[str]) -> Iterator[None]:
    """Within this context, also allow the dotted names `targets`. A final dot allows all names below it.

    The command line enters it with the user's own `allow_targets`, never with those of an untrusted file such
    as a checkpoint.
    """
    token = _added.set((*_added.get(), *targets))
    try:
        yield
    finally:
        _added.reset(token)


def locate(node: dict[str, Any]) -> tuple[Any, str | None]:
    """Return the class or function that `node["_target_"]` names, or None and the reason."""
    name = node["_target_"]
    if not isinstance(name, str):
        return None, f"_target_ = {name!r}: expected the dotted name of a class or function"
    if not _listed(name):
        return None, (
            f"_target_ = {name}: not allowed. A configuration may name classes of "
            f"{', '.join(prefix + '*' for prefix in (*_OURS, *_CLASSES))}; allow more with "
            f"{shlex.quote(f'+allow_targets=[{name}]')}"
        )
    target, problem = _import(name)
    if problem:
        return None, problem
    if not _defined_where_allowed(name, target):
        return None, f"_target_ = {name}: not a class or function that its package defines"
    return target, None


def _listed(name: str) -> bool:
    return name.startswith((*_OURS, *_CLASSES)) or _added_by_user(name)


def is_among(name: str, allowed: Iterable[str]) -> bool:
    """Return whether `allowed` has the dotted name, or a prefix of it that ends in a dot."""
    return any(name == added or (added.endswith(".") and name.startswith(added)) for added in allowed)


def _added_by_user(name: str) -> bool:
    return is_among(name, _added.get())


def _defined_where_allowed(name: str, target: Any) -> bool:
    if _added_by_user(name):
        return callable(target)
    module = getattr(target, "__module__", None) or ""
    if name.startswith(_OURS):
        is_public = not name.rpartition(".")[2].startswith("_")
        is_part = inspect.isclass(target) or name in _OUR_FUNCTIONS
        return is_public and is_part and f"{module}.".startswith(_DEFINED_IN)
    return inspect.isclass(target) and module.split(".")[0] == name.split(".")[0]


def _import(name: str) -> tuple[Any, str | None]:
    if name.startswith("albumentations."):
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else its import accesses the network
    module_name, _, attribute = name.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        hint = ". Is its folder in PYTHONPATH?" if _added_by_user(name) else ""
        return None, f"_target_ = {name}: there is no module {error.name}{hint}"
    if not hasattr(module, attribute):
        public = [n for n in getattr(module, "__all__", dir(module)) if not n.startswith("_")]
        hint = did_you_mean(attribute, public, prefix=f"{module_name}.")
        return None, f"_target_ = {name}: {module_name} has no {attribute}.{hint}"
    return getattr(module, attribute), None
