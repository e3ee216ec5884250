"""The signature of a class or function as the schema of its configuration."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, get_type_hints


@dataclass(frozen=True)
class Schema:
    """The `annotations` and `defaults` of named parameters; if `open`, other names are accepted too."""

    annotations: dict[str, Any]
    defaults: dict[str, Any]
    open: bool
    positional: frozenset[str] = frozenset()  # parameters that also accept a positional argument

    @property
    def required(self) -> frozenset[str]:
        return frozenset(self.annotations.keys() - self.defaults.keys())


def schema_of(target: Callable[..., Any]) -> Schema:
    """Return the parameters of `target`. An annotation that is absent or cannot be evaluated is Any."""
    parameters = inspect.signature(target).parameters.values()
    accepted = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    namespaces = list(_namespaces(target))
    return Schema(
        annotations={p.name: _evaluated(p.annotation, namespaces) for p in accepted},
        defaults={p.name: p.default for p in accepted if p.default is not p.empty},
        open=any(p.kind is p.VAR_KEYWORD for p in parameters),
        positional=frozenset(p.name for p in accepted if p.kind is p.POSITIONAL_OR_KEYWORD),
    )


def _namespaces(target: Callable[..., Any]) -> Iterator[dict[str, Any]]:
    """Yield the namespaces that may define names in the annotations of `target`, most likely first."""
    # A decorator (such as the tests' shape checks) hides the function with its module's globals.
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
