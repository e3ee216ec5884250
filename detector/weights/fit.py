"""Check that tensors can be the weights of a model: right type, finite; name entries in messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def unusable(state: Mapping[str, Tensor], own: Mapping[str, Tensor] | None = None) -> dict[str, str]:
    """Return why entries cannot be loaded into `own`, by name; without `own`, any finite entry can."""
    return {
        name: problem
        for name, value in state.items()
        if (own is None or name in own) and (problem := _problem(value, own[name] if own else None))
    }


def require_usable(state: Mapping[str, Tensor], own: Mapping[str, Tensor], *, source: str) -> None:
    """Raise ValueError, beginning with `source`, if an entry of `own` would get values it cannot hold."""
    if problems := unusable(state, own):
        raise ValueError(f"{source}: {describe_unusable(problems)}. Use other weights.")


def describe_unusable(problems: Mapping[str, str]) -> str:
    """Describe the problems: their number, and the first ones."""
    first = "; ".join(f"{name} {problem}" for name, problem in list(problems.items())[:3])
    entries = "1 entry cannot be used" if len(problems) == 1 else f"{len(problems)} entries cannot be used"
    return f"{entries}: {first}{'; ...' if len(problems) > 3 else ''}"


def first_names(names: Sequence[str]) -> str:
    """Return the first three names as a list for a message."""
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _problem(value: Tensor, own: Tensor | None) -> str | None:
    if value.device.type == "meta":
        return "has no values"
    if value.layout != torch.strided or value.is_quantized:
        return f"is of layout {value.layout}, expected a dense tensor"
    if own is not None and own.is_floating_point() and not value.is_floating_point():
        return f"holds {_name(value.dtype)}, expected {_name(own.dtype)}"
    if own is not None and value.is_complex():
        return f"holds {_name(value.dtype)}, expected {_name(own.dtype)}"
    if not value.is_floating_point() and not value.is_complex():
        return None
    cast = value if own is None else value.to(own.dtype)
    broken = int((~cast.isfinite()).sum()) if cast.itemsize > 1 else 0
    return f"has {broken} of {cast.numel()} values that are not finite" if broken else None


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
