"""From a checked configuration to objects."""

from __future__ import annotations

from functools import partial
from typing import Any

from omegaconf import DictConfig

from detector.config.check import is_node, nodes
from detector.config.errors import ConfigError
from detector.config.plain import leniently_resolved
from detector.config.signatures import schema_of
from detector.config.targets import SPECIAL_KEYS, locate
from detector.config.values import element, fitted


def build(node: DictConfig | dict[str, Any], **given: object) -> Any:
    """The object that `node` describes, with the objects inside it.

    `given` are arguments that the run knows and the configuration does not. With `_partial_: true` the result
    is the callable with the configured arguments bound. Lists become tuples where the annotation says so,
    other containers stay plain. What a constructor raises is raised as it is: a ValueError reaches the user.
    A `_target_` outside the allow-list (see `targets`), here or inside, raises ConfigError, nothing called.

    >>> conv = build({"_target_": "torch.nn.Conv2d", "in_channels": 3, "out_channels": 8, "kernel_size": 1})
    """
    plain, problems = leniently_resolved(node)
    problems += [problem for _, inner in nodes(plain) if (problem := locate(inner)[1])]
    if problems:
        raise ConfigError(problems)
    return _made(plain, given)


def _made(node: dict[str, Any], given: dict[str, object]) -> Any:
    target, _ = locate(node)
    annotations = schema_of(target).annotations
    arguments = {
        key: _argument(value, annotations.get(key, Any))
        for key, value in node.items()
        if key not in SPECIAL_KEYS
    }
    call = partial(target, **{**arguments, **given})
    return call if node.get("_partial_", False) else call()


def _argument(value: Any, annotation: Any) -> Any:
    if is_node(value):
        return _made(value, {})
    if isinstance(value, dict):
        return {key: _argument(item, element(annotation, key)) for key, item in value.items()}
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return [_argument(item, element(annotation, i)) for i, item in enumerate(value)]
    return fitted(value, annotation)
