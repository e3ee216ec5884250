"""Search for the state dict in a file's content: under a key, in a whole model, behind a prefix."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from detector.weights.restricted import Placeholder

# Keys under which programs keep a state dict, in order of preference.
_WRAPPERS = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "module",
    "ema_state_dict",
    "state_dict_ema",
    "model_ema",
    "ema",
    "teacher",
    "student",
    "net",
    "network",
    "weights",
    "params",
)
_OF_OPTIMIZERS = ("optimizer", "optim", "lr_scheduler", "scheduler", "scaler", "callbacks", "loops")
_AVERAGES = ("teacher", "ema", "average")  # preferred among two copies of a model
_MAX_DEPTH = 4


@dataclass(frozen=True)
class StoredState:
    """A state dict, the keys that lead to it, and the keys of other state dicts beside it."""

    state: dict[str, Tensor]
    keys: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


def find_state(content: object, *, depth: int = 0) -> StoredState | None:
    """Return the first state dict that `content` is or holds, with arrays as tensors; None without one."""
    if isinstance(content, Placeholder) and "_modules" in content:
        return _state_or_none(dict(_of_module(content)))
    if not isinstance(content, Mapping) or depth > _MAX_DEPTH:
        return None
    inside = {
        key: nested
        for key in _WRAPPERS
        if (nested := find_state(content.get(key), depth=depth + 1)) is not None
    }
    if inside:
        first, *others = inside
        return StoredState(inside[first].state, (first, *inside[first].keys), tuple(others))
    own = {k: t for k, v in content.items() if isinstance(k, str) and (t := _tensor(v)) is not None}
    return _state_or_none(own) or _largest(content, depth)


def _largest(content: Mapping[Any, Any], depth: int) -> StoredState | None:
    """Return the state dict with the most entries under any key except an optimizer's."""
    inside = {
        key: nested
        for key, value in content.items()
        if isinstance(key, str)
        and not key.startswith(_OF_OPTIMIZERS)
        and (nested := find_state(value, depth=depth + 1)) is not None
    }
    if not inside:
        return None
    key = max(inside, key=lambda k: len(inside[k].state))
    return StoredState(inside[key].state, (key, *inside[key].keys), tuple(k for k in inside if k != key))


def without_prefix(
    state: Mapping[str, Tensor], is_name: Callable[[str], bool]
) -> tuple[dict[str, Tensor], str]:
    """Strip the prefix before the most known names; return the entries that had it, and the prefix.

    Model wrappers prefix every name (`module.`, `model.`), and those that keep an average have two copies, of
    which the average is taken.
    """
    counts = Counter(prefix for name in state if (prefix := _prefix(name, is_name)) is not None)
    if not counts:
        return dict(state), ""
    prefix = max(counts, key=lambda p: (counts[p], any(word in p for word in _AVERAGES), -len(p)))
    kept = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    return kept, prefix


def _prefix(name: str, is_name: Callable[[str], bool]) -> str | None:
    """Return the prefix before the longest known suffix of `name`; None if none is known."""
    start = 0
    while True:
        if is_name(name[start:]):
            return name[:start]
        dot = name.find(".", start)
        if dot < 0:
            return None
        start = dot + 1


def _state_or_none(state: dict[str, Tensor]) -> StoredState | None:
    return StoredState(state) if state else None


def _tensor(value: object) -> Tensor | None:
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str):
        value = value[1]  # Paddle's tensors in other containers are pairs of name and array
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        return torch.from_numpy(np.array(value, order="C", dtype=value.dtype.newbyteorder("=")))
    return value if isinstance(value, Tensor) else None


def _of_module(module: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield the parameters and buffers of a saved torch.nn.Module, by their state dict names."""
    non_persistent = module.get("_non_persistent_buffers_set")
    for group in ("_parameters", "_buffers"):
        for name, value in _items(module.get(group)):
            tensor = _tensor(value)
            if tensor is not None and name not in (non_persistent if isinstance(non_persistent, set) else ()):
                yield f"{prefix}{name}", tensor.detach()
    for name, child in _items(module.get("_modules")):
        if isinstance(child, Placeholder):
            yield from _of_module(child, f"{prefix}{name}.")


def _items(value: object) -> list[tuple[str, Any]]:
    pairs = value.items() if isinstance(value, Mapping) else ()
    return [(key, item) for key, item in pairs if isinstance(key, str)]
