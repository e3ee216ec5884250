"""What all deformable layers have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import nn


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
