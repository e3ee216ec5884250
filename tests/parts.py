"""Classes and functions for the tests of configurations to name."""

from __future__ import annotations

import os  # noqa: F401 (a target that must be refused)
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import albumentations
from torch import Tensor, nn

from detector.option_types import Fraction, NonNegativeFloat, PositiveInt

calls: list[str] = []


@dataclass(frozen=True)
class Size:
    height: PositiveInt
    width: PositiveInt

    def __post_init__(self) -> None:
        if self.height > 1000:
            raise ValueError("higher than 1000")


class Part:
    """Takes every kind of annotation that a configuration meets."""

    def __init__(  # type: ignore[no-untyped-def]  # an option without an annotation is one of the kinds
        self,
        depth: Literal[18, 50],
        *,
        norm: Literal["batch", "group"] = "batch",
        stages: tuple[Literal[2, 3, 4, 5], ...] = (),
        blocks: Literal["all", "last"] | tuple[int, ...] = "all",
        epochs: PositiveInt = 1,
        rate: NonNegativeFloat = 0.1,
        share: Fraction = 0.5,
        limit: PositiveInt | Fraction | None = None,
        betas: tuple[float, float] = (0.9, 0.999),
        name: str | None = None,
        flag: bool = False,
        size: Size | None = None,
        inner: Part | None = None,
        parts: Sequence[Part] = (),
        table: Mapping[str, Any] | None = None,
        factory: Callable[..., Part] | None = None,
        weight: Tensor | None = None,
        anything=None,
    ) -> None:
        calls.append("Part")
        self.arguments = {key: value for key, value in locals().items() if key != "self"}


@dataclass(frozen=True)
class Data:
    root: str | None = None


@dataclass(frozen=True)
class Options:
    """The top-level keys of a command."""

    seed: PositiveInt
    data: Data
    part: Part


def make(depth: int, *, scale: float = 1.0) -> Part:
    calls.append("make")
    return Part(18, share=scale)


class Loose(nn.Module):
    def __init__(self, known: int = 0, **others: object) -> None:
        super().__init__()


class OwnAugmentation(albumentations.NoOp):
    """A transform of the user's own package."""
