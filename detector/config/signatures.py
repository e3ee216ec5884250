"""The parameters of a class or function, as the schema of its configuration."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, get_type_hints


@dataclass(frozen=True)
class Schema:
    """`annotations` of what can be given by name, and `defaults`; `open` takes any other name."""

    annotations: dict[str, Any]
    defaults: dict[str, Any]
    open: bool
    positional: frozenset[str] = frozenset()  # what can also be given without its name

    @property
    def required(self) -> frozenset[str]:
        return frozenset(self.annotations.keys() - self.defaults.keys())


def schema_of(target: Callable[..., Any]) -> Schema:
    """What `target` can be called with. A parameter whose annotation is absent or cannot be read is Any."""
    parameters = inspect.signature(target).parameters.values()
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    namespaces = list(_namespaces(target))
    return Schema(
        annotations={p.name: _evaluated(p.annotation, namespaces) for p in named},
        defaults={p.name: p.default for p in named if p.default is not p.empty},
        open=any(p.kind is p.VAR_KEYWORD for p in parameters),
        positional=frozenset(p.name for p in named if p.kind is p.POSITIONAL_OR_KEYWORD),
    )


def _namespaces(target: Callable[..., Any]) -> Iterator[dict[str, Any]]:
    """Where the names in the annotations of `target` may be defined, the likeliest first."""
    # A decorator (the shape checks of the tests are one) hides the function that knows its module's names.
    function = inspect.unwrap(target.__init__ if inspect.isclass(target) else target)
    yield getattr(function, "__globals__", {})
    for kind in getattr(target, "__mro__", (target,)):
        yield vars(sys.modules[kind.__module__])


def _evaluated(annotation: Any, namespaces: list[dict[str, Any]]) -> Any:
    if annotation is inspect.Parameter.empty:
        return Any
    for namespace in namespaces:
        holder: Any = type("holder", (), {"__annotations__": {"it": annotation}})
        try:
            return get_type_hints(holder, globalns=namespace, include_extras=True)["it"]
        except (NameError, TypeError, AttributeError):
            continue
    return Any
