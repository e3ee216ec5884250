"""Configured parts that are built when they are called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from inspect import Signature, signature
from typing import Any


@dataclass(frozen=True)
class Factory:
    """A class or function whose arguments contain parts of their own; each call builds all of them anew.

    `build_arguments` turns the plain `arguments` of the configuration into objects. A call may add arguments
    that the configuration does not know, such as the number of classes.
    """

    target: Callable[..., Any]
    arguments: Mapping[str, Any]
    build_arguments: Callable[[Mapping[str, Any]], dict[str, Any]]

    def __call__(self, *positional: Any, **named: Any) -> Any:
        return self.target(*positional, **{**self.build_arguments(self.arguments), **named})

    @property
    def __signature__(self) -> Signature:
        return signature(self.target)

    def without(self, key: str) -> Factory:
        """Return the same factory with None for every option `key`, those of inner parts included."""
        return replace(self, arguments=_without(self.arguments, key))


def _without(value: Any, key: str) -> Any:
    if isinstance(value, Mapping):
        return {name: None if name == key else _without(item, key) for name, item in value.items()}
    return [_without(item, key) for item in value] if isinstance(value, list) else value
