"""From a checked configuration to objects. The only caller of Hydra's instantiate."""

from __future__ import annotations

from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig

from detector.config.check import nodes
from detector.config.errors import ConfigError
from detector.config.plain import leniently_resolved
from detector.config.targets import locate


def build(node: DictConfig | dict[str, Any], **given: object) -> Any:
    """The object that `node` describes, with the objects inside it.

    `given` are arguments that the run knows and the configuration does not. With `_partial_: true` the result
    is the callable with the configured arguments bound. Lists and mappings arrive as plain Python.
    A `_target_` outside the allow-list (see `targets`), here or inside, raises ConfigError, nothing called.

    >>> conv = build({"_target_": "torch.nn.Conv2d", "in_channels": 3, "out_channels": 8, "kernel_size": 1})
    """
    plain, problems = leniently_resolved(node)
    problems += [problem for _, inner in nodes(plain) if (problem := locate(inner)[1])]
    if problems:
        raise ConfigError(problems)
    return instantiate(plain, _convert_="all", **given)
