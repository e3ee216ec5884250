"""Configured parts that are built when they are called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
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

    def __call__(self, *positional: Any, **keywords: Any) -> Any:
        return self.target(*positional, **{**self.build_arguments(self.arguments), **keywords})

    @property
    def __signature__(self) -> Signature:
        return signature(self.target)


def target_and_arguments(make: Callable[..., Any]) -> tuple[Callable[..., Any], Mapping[str, Any]]:
    """Return the class or function behind a factory or a `partial`, and the arguments that are set."""
    if isinstance(make, Factory):
        return make.target, make.arguments
    return (make.func, make.keywords) if isinstance(make, partial) else (make, {})


def accepted(make: Callable[..., Any], **keywords: Any) -> dict[str, Any]:
    """Return those of `keywords` that `make` has parameters for, as a user's own part may have none."""
    parameters = signature(make).parameters
    return {name: value for name, value in keywords.items() if name in parameters}


def weights_in(value: Any) -> list[str]:
    """Return the files and names of pretrained weights in the plain configuration of a model."""
    if isinstance(value, Mapping):
        own = [value["weights"]] if isinstance(value.get("weights"), str) else []
        return own + [weights for part in value.values() for weights in weights_in(part)]
    return [weights for part in value for weights in weights_in(part)] if isinstance(value, list) else []


def without_weights(make: Callable[..., Any]) -> Callable[..., Any]:
    """Return the same constructor of a model with None for every file or name of pretrained weights in it."""
    if isinstance(make, Factory):
        return replace(make, arguments=_without_weights(make.arguments))
    if isinstance(make, partial):
        return partial(make.func, *make.args, **_without_weights(make.keywords))
    return make


def _without_weights(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {
            name: None if name == "weights" and isinstance(item, str) else _without_weights(item)
            for name, item in value.items()
        }
    return [_without_weights(item) for item in value] if isinstance(value, list) else value
