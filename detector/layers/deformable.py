"""What all deformable layers have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

from torch import Tensor, nn


class Deformable(nn.Module, ABC):
    """A layer that learns where to sample: `offset`, its offset branch, predicts that.

    The branch has a learning rate of its own, and checkpoints of regular models lack its parameters, whose
    names are below `offset.`.
    """

    offset: nn.Module
    modulation: str

    @property
    @abstractmethod
    def summary(self) -> dict[str, str]:
        """For people: channels, backend, offset groups, modulation, kernel and stride."""


def replaced_convolutions(model: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    """Names of the deformable layers that stand where `state` has a convolution, whose weight they lack."""
    own = model.state_dict()
    layers = (name for name, module in model.named_modules() if isinstance(module, Deformable))
    return [name for name in layers if f"{name}.weight" in state and f"{name}.weight" not in own]
