"""The parameters of a class or function, as the schema of its configuration."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_type_hints


@dataclass(frozen=True)
class Schema:
    """`annotations` of what can be given by name. `required` have no default; `open` takes any other name."""

    annotations: dict[str, Any]
    required: frozenset[str]
    open: bool


def schema_of(target: Callable[..., Any]) -> Schema:
    """What `target` can be called with. A parameter whose annotation is absent or cannot be read is Any."""
    parameters = inspect.signature(target).parameters.values()
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    hints = _hints(target)
    return Schema(
        annotations={p.name: hints.get(p.name, Any) for p in named},
        required=frozenset(p.name for p in named if p.default is p.empty),
        open=any(p.kind is p.VAR_KEYWORD for p in parameters),
    )


def _hints(target: Callable[..., Any]) -> dict[str, Any]:
    # A decorator (the shape checks of the tests are one) hides the function that knows its module's names.
    function = inspect.unwrap(target.__init__ if inspect.isclass(target) else target)
    try:
        return get_type_hints(function, include_extras=True)
    except (NameError, TypeError, AttributeError):
        return _hints_one_by_one(function)


def _hints_one_by_one(function: Any) -> dict[str, Any]:
    namespace = vars(sys.modules.get(function.__module__, sys))
    hints = {}
    for name, annotation in getattr(function, "__annotations__", {}).items():
        probe: Any = type("probe", (), {"__annotations__": {name: annotation}})
        try:
            hints[name] = get_type_hints(probe, globalns=dict(namespace), include_extras=True)[name]
        except (NameError, TypeError, AttributeError):
            hints[name] = Any
    return hints
