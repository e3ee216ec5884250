"""Build objects from a checked configuration."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, TypeVar

from omegaconf import DictConfig

from detector.config.check import check, is_node, nodes
from detector.config.errors import ConfigError
from detector.config.plain import leniently_resolved
from detector.config.signatures import schema_of
from detector.config.targets import SPECIAL_KEYS, locate
from detector.config.values import dataclass_in, element, fitted
from detector.factory import Factory

Options = TypeVar("Options")


def build_options(cfg: DictConfig | dict[str, Any], options: type[Options]) -> Options:
    """Check a whole configuration and build the dataclass `options` from it, with all parts inside.

    Raises:
        ConfigError: `cfg` has problems; lists all of them, before anything is built.
        ValueError: a constructor refuses its arguments.
    """
    return bind(check(cfg, options), options)


def build(node: DictConfig | dict[str, Any], **extra: object) -> Any:
    """Build the object that `node` describes, with the objects inside it.

    `extra` are arguments from the run, not from the configuration. With `_partial_: true` the result
    is a callable with the configured arguments bound; where these hold parts, each call builds them anew
    (`Factory`). Lists become tuples where the annotation says so, other containers stay plain.

    Raises:
        ConfigError: a `_target_`, here or inside, is not allowed (see `targets`); nothing is called.
        ValueError: a constructor refuses its arguments.

    >>> conv = build({"_target_": "torch.nn.Conv2d", "in_channels": 3, "out_channels": 8, "kernel_size": 1})
    """
    plain, problems = leniently_resolved(node)
    problems += [problem for _, inner in nodes(plain) if (problem := locate(inner)[1])]
    if problems:
        raise ConfigError(problems)
    return _built(plain, extra)


def _built(node: dict[str, Any], extra: Mapping[str, object]) -> Any:
    target, problem = locate(node)
    if problem:  # a factory may be called where less is allowed
        raise ConfigError([problem])
    plain = {key: value for key, value in node.items() if key not in SPECIAL_KEYS}
    if not node.get("_partial_", False):
        return target(**{**_arguments(plain, target=target), **extra})
    if any(_holds_parts(value) for value in plain.values()):
        factory = Factory(target, plain, partial(_arguments, target=target))
        return partial(factory, **extra) if extra else factory
    return partial(target, **{**_arguments(plain, target=target), **extra})


def _holds_parts(value: Any) -> bool:
    """Return whether building `value` creates objects, rather than callables that create them."""
    return any(not node.get("_partial_", False) for _, node in nodes(value))


def _arguments(plain: Mapping[str, Any], *, target: Any) -> dict[str, Any]:
    annotations = schema_of(target).annotations
    return {key: _argument(value, annotations.get(key, Any)) for key, value in plain.items()}


def _argument(value: Any, annotation: Any) -> Any:
    if is_node(value):
        return _built(value, {})
    if isinstance(value, dict):
        return {key: _argument(item, element(annotation, key)) for key, item in value.items()}
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return [_argument(item, element(annotation, i)) for i, item in enumerate(value)]
    return fitted(value, annotation)


def bind(plain: Mapping[str, Any], kind: type[Options]) -> Options:
    """Build a dataclass of options, and those inside it."""
    annotations = schema_of(kind).annotations
    return kind(**{key: _option(value, annotations.get(key, Any)) for key, value in plain.items()})


def _option(value: Any, annotation: Any) -> Any:
    if isinstance(value, dict) and not is_node(value) and (kind := dataclass_in(annotation)):
        return bind(value, kind)
    return _argument(value, annotation)
