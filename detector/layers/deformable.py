"""What all deformable layers have in common."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

_log = logging.getLogger(__name__)


class Deformable(nn.Module, ABC):
    """A layer that learns where to sample: `offset`, its offset branch, predicts that, once a pass.

    The branch has a learning rate of its own, and checkpoints of regular models lack its parameters, whose
    names are below `offset.`.
    """

    offset: nn.Module
    modulation: str
    max_offset_px: float | None = None

    @property
    @abstractmethod
    def summary(self) -> dict[str, str]:
        """For people: channels, backend, offset groups, modulation, kernel and stride."""

    @abstractmethod
    def statistics(self, inputs: tuple[Any, ...], predicted: Tensor) -> dict[str, Tensor]:
        """What offsets and modulation did in a pass: numbers on the device, as `sampling_statistics` says.

        `inputs` are the layer's, and `predicted` is what its branch `offset` made of them, not empty.
        """

    @property
    @abstractmethod
    def reach_px(self) -> float:
        """How far from its centre the regular layer looks, in pixels of its input."""


def replaced_convolutions(model: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    """Names of the deformable layers that stand where `state` has a convolution, whose weight they lack."""
    own = model.state_dict()
    layers = (name for name, module in model.named_modules() if isinstance(module, Deformable))
    return [name for name in layers if f"{name}.weight" in state and f"{name}.weight" not in own]


def warn_of_unused(options: Mapping[str, object], *, option: str, why: str) -> None:
    """Where a part has no deformable layer, tells of the options that were chosen for them, if any.

    No error: a sweep over where they go may have a point without any.
    """
    if options:
        chosen = ", ".join(f"{name}={value}" for name, value in options.items())
        _log.warning("model.%s: %s changes nothing, for %s.", option, chosen, why)
