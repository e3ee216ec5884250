"""Advice on a word that is no option: the option that was probably meant, with the same value."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from omegaconf import DictConfig, OmegaConf

from detector.config.errors import closest
from detector.config.foreign_words import answer
from detector.config.words import IMAGE_SIZE


def advice(key: str, value: str, cfg: DictConfig, groups: Mapping[str, Sequence[str]]) -> str | None:
    """Return what was probably meant by a word that is no option, with its value; None if it is unclear."""

    def has(name: str) -> bool:
        return name in groups or (has_key(cfg, name) and (name == IMAGE_SIZE or not is_mapping(cfg, name)))

    key = key.replace("-", "_")
    if text := answer(key, value, whole=True, has=has):
        return f"{text}."
    if re.match(r"data\.augmentations?\.", key):
        return f"{answer('augmentation', value, whole=True, has=has)}."
    known = [*_known_keys(cfg), *(group for group in groups if not group.startswith("hydra"))]
    end = key.lower().rpartition(".")[2]
    same_end = any(name.rpartition(".")[2] == end for name in known)
    if not same_end and (text := answer(key, value, whole=False, has=has)):
        return f"{text}."
    option = key.lower() if has(key.lower()) else _suggest(key.lower() if same_end else key, known)
    return f"Did you mean {option}={value or '...'}?" if option else None


def _suggest(key: str, known: Sequence[str]) -> str | None:
    """Return the key probably meant: the same last part, else similar as a whole or in its last part."""
    ends: dict[str, str] = {}
    for name in known:
        ends.setdefault(name.rpartition(".")[2], name)
    last = key.rpartition(".")[2]
    same_end = [name for name in known if name.rpartition(".")[2] == last]
    if same_end:
        return closest(key, same_end) or same_end[0]
    if match := closest(key, known):
        return match
    return ends[end] if (end := closest(last, ends)) else None


def _known_keys(cfg: DictConfig) -> list[str]:
    return [key for key in _flat(cfg) if not key.startswith("hydra.")]


def _flat(cfg: DictConfig, prefix: str = "") -> Iterator[str]:
    for key in map(str, cfg):
        yield prefix + key
        if not OmegaConf.is_missing(cfg, key) and not OmegaConf.is_interpolation(cfg, key):
            value = cfg[key]
            if isinstance(value, DictConfig):
                yield from _flat(value, f"{prefix}{key}.")


def is_mapping(cfg: DictConfig, key: str) -> bool:
    """Return whether the value of a key is a mapping."""
    return isinstance(OmegaConf.select(cfg, key, throw_on_resolution_failure=False), DictConfig)


def has_key(cfg: DictConfig, key: str) -> bool:
    """Return whether a configuration has a dotted key, whatever its value."""
    head, _, rest = key.partition(".")
    if not isinstance(cfg, DictConfig) or head not in list(cfg):
        return False
    return not rest or has_key(cfg._get_node(head), rest)  # type: ignore[arg-type]  # _get_node resolves nothing
