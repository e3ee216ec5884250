"""The interface of all deformable layers."""

from __future__ import annotations

import logging
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

_log = logging.getLogger(__name__)

_BLOCK = re.compile(r"backbone\.layer(\d)\.(\d+)\.conv\d")  # torchvision's names: layer1 is stage C2


class Deformable(nn.Module, ABC):
    """A layer with learned sampling positions, predicted by its offset branch `offset` once per pass.

    The branch has its own learning rate. Checkpoints of regular models lack its parameters, whose names start
    with `offset.`.
    """

    offset: nn.Module
    modulation: str
    max_offset_px: float | None = None

    @property
    @abstractmethod
    def summary(self) -> dict[str, str]:
        """A description to print: channels, backend, offset groups, modulation, kernel and stride."""

    @abstractmethod
    def statistics(self, inputs: tuple[Any, ...], predicted: Tensor) -> dict[str, Tensor]:
        """Return statistics of offsets and modulation in a pass, on the device (see `sampling_statistics`).

        `inputs` are the layer's, `predicted` is the non-empty output of its branch `offset` for them.
        """

    @property
    @abstractmethod
    def reach_px(self) -> float:
        """The distance from its center that the regular layer covers, in pixels of its input."""


def deformable_layers(model: nn.Module) -> dict[str, Deformable]:
    """Return the deformable layers of a model as papers name them: `C4.1` for block 1, from 0, of stage C4.

    Layers of other parts than the backbone have their dotted names, and so have several in one block.
    """
    layers = {name: module for name, module in model.named_modules() if isinstance(module, Deformable)}
    in_papers = {name: _BLOCK.sub(lambda m: f"C{int(m[1]) + 1}.{m[2]}", name) for name in layers}
    count = Counter(in_papers.values())
    return {name if count[in_papers[name]] > 1 else in_papers[name]: layer for name, layer in layers.items()}


def offset_parameters(module: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of all branches that predict offsets, for an optimizer's group of their own."""
    layers = (layer for layer in module.modules() if isinstance(layer, Deformable))
    return [*dict.fromkeys(parameter for layer in layers for parameter in layer.offset.parameters())]


def replaced_convolutions(model: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    """Return the names of deformable layers that lack the weight of the convolution `state` has there."""
    own = model.state_dict()
    layers = (name for name, module in model.named_modules() if isinstance(module, Deformable))
    return [name for name in layers if f"{name}.weight" in state and f"{name}.weight" not in own]


def warn_of_unused(options: Mapping[str, object], *, option: str, why: str) -> None:
    """Warn of options chosen for deformable layers, if any, for a part without such layers.

    This is no error: a sweep over their placement may include a point without any.
    """
    if options:
        chosen = ", ".join(f"{name}={value}" for name, value in options.items())
        _log.warning("model.%s: %s changes nothing, for %s.", option, chosen, why)
