"""Check of a configuration: each `_target_` node against the signature of its target."""

from __future__ import annotations

import collections.abc
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, cast, get_origin

from omegaconf import DictConfig

from detector.config.errors import ConfigError, did_you_mean
from detector.config.plain import MISSING, leniently_resolved
from detector.config.signatures import Schema, schema_of
from detector.config.targets import SPECIAL_KEYS, locate
from detector.config.values import dataclass_in, element, holds, is_plain, members, misfit, show

ALLOW_TARGETS = "allow_targets"


def check(cfg: DictConfig | dict[str, Any], options: Callable[..., Any] | None = None) -> dict[str, Any]:
    """Return `cfg` as plain containers, or raise one ConfigError with all its problems.

    Nothing is built and no data is read.
    Every key of a `_target_` node must be a parameter of its target and every value must fit the annotation.
    `options` is a class or function whose parameters are the top-level keys; without it they are not checked.
    """
    plain, problems = leniently_resolved(cfg)
    if reason := misfit(plain.pop(ALLOW_TARGETS, None), list[str] | None, ALLOW_TARGETS):
        problems.append(f"{ALLOW_TARGETS}: {reason}")
    if options is None:
        problems += _container_problems(plain, Any, "")
    else:
        problems += _binding_problems(plain, schema_of(options), "", owner=None, partial=False)
    if problems:
        raise ConfigError(_without_consequences(problems))
    return cast(dict[str, Any], plain)


def _without_consequences(problems: list[str]) -> list[str]:
    """Drop the problem that an option has no value if its interpolation failed."""
    failed = {problem.partition(":")[0] for problem in problems if ": its interpolation fails: " in problem}
    return [p for p in problems if not (p.partition(":")[0] in failed and ": has no value yet. " in p)]


def nodes(plain: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the dotted path of every mapping with a `_target_`, and the mapping, outermost first."""
    if is_node(plain):
        yield path, plain
    for _, value, inner in _items(plain, path):
        yield from nodes(value, inner)


def is_node(value: Any) -> bool:
    return isinstance(value, dict) and "_target_" in value


def _items(value: Any, path: str) -> Iterator[tuple[str | int, Any, str]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield key, item, f"{path}.{key}" if path else str(key)
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield i, item, f"{path}[{i}]"


def _node_problems(node: dict[str, Any], annotation: Any, path: str) -> list[str]:
    target, problem = locate(node)
    if problem:
        return [f"{path}.{problem}"]
    partial = node.get("_partial_", False)
    problems = []
    if not isinstance(partial, bool):
        problems.append(f"{path}._partial_ = {show(partial)}: expected true or false")
    if not partial and not _is_kind_of(target, annotation):
        kinds = " or ".join(m.__name__ for m in members(annotation) if m is not type(None))
        problems.append(f"{path}: expected a {kinds}, got {node['_target_']}")
    values = {key: value for key, value in node.items() if key not in SPECIAL_KEYS}
    return problems + _binding_problems(
        values, schema_of(target), path, owner=node["_target_"], partial=bool(partial)
    )


def _is_kind_of(target: Any, annotation: Any) -> bool:
    """Return whether an instance of `target` can fit; True if the classes alone do not decide it."""
    kinds = [m for m in members(annotation) if m is not type(None)]
    nominal = all(inspect.isclass(k) and get_origin(k) is None and not _is_structural(k) for k in kinds)
    if not inspect.isclass(target) or not kinds or not nominal:
        return True
    return any(issubclass(target, k) for k in kinds)


def _is_structural(kind: type) -> bool:
    return kind in (Any, object, type, collections.abc.Callable) or Protocol in kind.__mro__


def _binding_problems(
    values: dict[str, Any], schema: Schema, path: str, *, owner: str | None, partial: bool
) -> list[str]:
    """Return the problems of keys and values for parameters of the target `owner` (None: a command)."""
    problems = []
    run_arguments = _run_arguments(schema, owner) if partial else set()
    is_complete = not partial or "num_classes" in run_arguments  # the caller may add arguments to other parts
    missing = set(schema.required) - set(values) - run_arguments if is_complete else set()
    for key, value, inner in _items(values, path):
        if key in run_arguments:
            source = (
                "the number of classes comes from the data" if key == "num_classes" else "the run gives it"
            )
            problems.append(f"{inner}: {source}, not the configuration. Leave it out.")
        elif key in schema.annotations:
            problems += _value_problems(value, schema.annotations[str(key)], inner, built=owner is not None)
        elif not schema.open:
            unused = [name for name in schema.annotations if name not in values]
            hint = did_you_mean(str(key), unused or list(schema.annotations), prefix=path and f"{path}.")
            missing = {name for name in missing if not hint.endswith((f" {name}?", f".{name}?"))}
            problems.append(f"{inner}: {owner or 'this command'} has no option {key}.{hint}")
    for option in (f"{path}.{name}" if path else name for name in schema.annotations if name in missing):
        problems.append(
            f"{option}: {owner or 'this command'} needs it and it is not given. Add +{option}=..."
        )
    return problems


def _run_arguments(schema: Schema, owner: str | None) -> set[str]:
    """Return the arguments that the run adds to a part of ours with `_partial_`.

    They are the required positional ones, whose object the run passes, and the number of classes, which comes
    from the data.
    """
    if owner is None or not owner.startswith("detector."):
        return set()
    return (set(schema.required) & schema.positional) | ({"num_classes"} & set(schema.required))


def plain_problems(value: Any, annotation: Any, path: str) -> list[str]:
    """Return the problems of a value if its annotation has plain types only, which need no import."""
    return _value_problems(value, annotation, path) if is_plain(annotation) else []


def _value_problems(value: Any, annotation: Any, path: str, *, built: bool = True) -> list[str]:
    """Return the problems of a value.

    If `built`, the value becomes an argument, so a mapping for a dataclass must be a node.
    """
    if value == MISSING:
        return [f"{path}: has no value yet. Give it one: {path}=..."]
    if is_node(value):
        return _node_problems(value, annotation, path)
    if isinstance(value, dict) and (kind := dataclass_in(annotation)):
        if built:
            return [f"{path}: lacks its _target_: {kind.__module__}.{kind.__qualname__}"]
        return _binding_problems(value, schema_of(kind), path, owner=None, partial=False)
    has_parts = isinstance(value, dict) or (isinstance(value, list) and next(_unplain(value), None))
    if has_parts and holds(annotation, value):
        return _container_problems(value, annotation, path)
    if isinstance(value, str) and value.startswith("~") and not Path(value).exists():
        return [f"{path} = {value}: ~ is not expanded here. Write the home folder out, as $HOME in a shell"]
    reason = misfit(value, annotation, path)
    return [f"{path} = {show(value)}: {reason}"] if reason else []


def _container_problems(value: dict[str, Any] | list[Any], annotation: Any, path: str) -> list[str]:
    return [
        problem
        for key, item, inner in _items(value, path)
        for problem in _value_problems(item, element(annotation, key), inner)
    ]


def _unplain(value: Any) -> Iterator[Any]:
    """Yield the items inside `value` that need their own check: nodes and values that are not set."""
    for _, item, _ in _items(value, ""):
        if item == MISSING or is_node(item):
            yield item
        yield from _unplain(item)
