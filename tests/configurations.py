"""Configurations as the commands compose them, and their options."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import cache
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict

from detector.config.check import SPECIAL_KEYS
from detector.config.paths import config_dir
from detector.config.plain import leniently_resolved


def composed(verb: str, *overrides: str) -> DictConfig:
    """The configuration of a verb as its command gets it."""
    cfg = copy.deepcopy(_composed_once(verb, overrides))
    HydraConfig.instance().set_config(cfg)
    with open_dict(cfg):
        del cfg["hydra"]
    return cfg


@cache  # each composition takes a quarter of a second
def _composed_once(verb: str, overrides: tuple[str, ...]) -> DictConfig:
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        return compose(verb, overrides=list(overrides), return_hydra_config=True)


def plain(verb: str, *overrides: str) -> dict[str, Any]:
    values, problems = leniently_resolved(composed(verb, *overrides))
    assert not problems
    return values


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from leaves(item, (*path, key))
    elif path[-1] not in SPECIAL_KEYS:
        yield path


def misspelled(key: str) -> str:
    return key[:-1] + key[-1] * 2
