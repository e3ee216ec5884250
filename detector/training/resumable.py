"""Checks that a checkpoint has all that resuming a training needs, and that it fits the training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from detector.checkpoint_entries import listed, shown

_ENTRIES: dict[str, tuple[type, type | None, str]] = {  # type, type of its items, and both in words
    "epoch": (int, None, "an integer"),
    "global_step": (int, None, "an integer"),
    "pytorch-lightning_version": (str, None, "a text"),
    "state_dict": (dict, None, "tensors by name"),
    "loops": (dict, dict, "a dict of dicts"),
    "callbacks": (dict, dict, "a dict of dicts"),
    "optimizer_states": (list, dict, "a list of dicts"),
    "lr_schedulers": (list, dict, "a list of dicts"),
}


def require_entries(content: Mapping[str, Any], *, source: str) -> None:
    """Raise ValueError if an entry that resuming needs is missing or has another type."""
    if "optimizer_states" not in content and "state_dict" in content:
        raise ValueError(
            f"{source}: holds weights alone, as best.ckpt does. A training goes on from last.ckpt; to start "
            "a new one from these weights: model.weights=<file>."
        )
    problems = []
    for name, (kind, kind_of_items, expected) in _ENTRIES.items():
        value = content.get(name)
        items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        if not _is_kind(value, kind) or (
            kind_of_items and not all(_is_kind(i, kind_of_items) for i in items)
        ):
            actual = shown(value) if name in content else "missing"
            problems.append(f"{name} is {actual}, expected {expected}")
    _require_no_problems(problems, source=source)


def require_fitting(
    content: Mapping[str, Any],
    *,
    module: nn.Module,
    optimizer: Optimizer,
    scheduler: Mapping[str, Any],
    loops: Mapping[str, Any],
) -> None:
    """Raise ValueError if the entries checked by `require_entries` do not fit this training."""
    problems = _weight_problems(content["state_dict"], module.state_dict())
    problems += _optimizer_problems(content["optimizer_states"], optimizer)
    if len(content["lr_schedulers"]) == 1:
        problems += _other_kinds(content["lr_schedulers"][0], scheduler, "lr_schedulers[0]")
    else:
        problems.append(f"lr_schedulers has {len(content['lr_schedulers'])} entries, expected 1")
    problems += _other_kinds(content["loops"], loops, "loops")
    if "fit_loop" not in content["loops"]:
        problems.append("loops.fit_loop is missing")
    _require_no_problems(problems, source="training.resume")


def _require_no_problems(problems: list[str], *, source: str) -> None:
    if problems:
        raise ValueError(
            f"{source}: training cannot resume from it: {listed(problems)}. Use another checkpoint, or take "
            "its weights alone: model.weights=<file>."
        )


def _is_kind(value: object, kind: type) -> bool:
    return isinstance(value, kind) and not (kind is int and isinstance(value, bool))


def _weight_problems(state: Mapping[str, Any], own: Mapping[str, Any]) -> list[str]:
    problems = [f"state_dict: {name} is missing" for name in own if name not in state]
    problems += [f"state_dict: {name} is unknown" for name in state if name not in own]
    for name in own.keys() & state.keys():
        value, mine = state[name], own[name]
        if isinstance(mine, Tensor) and not (isinstance(value, Tensor) and value.shape == mine.shape):
            actual = f"of shape {tuple(value.shape)}" if isinstance(value, Tensor) else shown(value)
            problems.append(f"state_dict: {name} is {actual}, expected a tensor of shape {tuple(mine.shape)}")
        elif not isinstance(mine, Tensor):
            problems += _other_kinds(value, mine, f"state_dict: {name}")
    return problems


def _optimizer_problems(states: list[dict[str, Any]], optimizer: Optimizer) -> list[str]:
    if len(states) != 1 or not isinstance(states[0].get("param_groups"), list):
        return [f"optimizer_states has {len(states)} entries, expected 1 with param_groups and state"]
    groups, state = states[0]["param_groups"], states[0].get("state")
    sizes = [len(group["params"]) for group in optimizer.param_groups]
    counts = [
        len(group["params"]) if isinstance(group, dict) and isinstance(group.get("params"), list) else None
        for group in groups
    ]
    if counts != sizes or not isinstance(state, dict):
        return [f"optimizer_states[0].param_groups are of {counts} parameters, expected {sizes}"]
    problems = []
    for number, (group, own) in enumerate(zip(groups, optimizer.param_groups, strict=True)):
        options = {name: value for name, value in own.items() if name != "params"}
        problems += _other_kinds(group, options, f"optimizer_states[0].param_groups[{number}]")
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for key, values in state.items():
        if type(key) is not int or not 0 <= key < len(parameters) or not isinstance(values, dict):
            problems.append(f"optimizer_states[0].state has {shown(key)}: {shown(values)}")
            continue
        shape = parameters[key].shape
        problems += [
            f"optimizer_states[0].state[{key}].{name} is of shape {[*value.shape]}, expected {[*shape]}"
            for name, value in values.items()
            if isinstance(value, Tensor) and value.ndim and value.shape != shape
        ]
    return problems


def _other_kinds(value: Any, like: Any, path: str) -> list[str]:
    """Return where the types of `value` differ from those of `like`.

    Keys that only one of them has are ignored: they belong to another version.
    """
    if isinstance(like, Mapping):
        if not isinstance(value, Mapping):
            return [f"{path} is {shown(value)}, expected a dict"]
        both = [key for key in like if key in value]
        return [problem for key in both for problem in _other_kinds(value[key], like[key], f"{path}.{key}")]
    if isinstance(like, list | tuple) and not isinstance(value, list | tuple):
        return [f"{path} is {shown(value)}, expected a list"]
    if isinstance(like, list | tuple) and like and len(like) == len(value):
        pairs = enumerate(zip(value, like, strict=True))
        return [problem for i, (a, b) in pairs for problem in _other_kinds(a, b, f"{path}[{i}]")]
    numbers = isinstance(like, int | float) and not isinstance(like, bool)
    if numbers and not (isinstance(value, int | float | Tensor) and not isinstance(value, bool)):
        return [f"{path} is {shown(value)}, expected a number"]
    if isinstance(like, bool | str) and not isinstance(value, type(like)):
        return [
            f"{path} is {shown(value)}, expected {'a text' if isinstance(like, str) else 'true or false'}"
        ]
    return []
