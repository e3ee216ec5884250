"""What every detection head can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

from jaxtyping import Float, Int64
from torch import Tensor, nn

from detector.structures import Candidates, Detections, Targets

Outputs = TypeVar("Outputs")


class Head(nn.Module, ABC, Generic[Outputs]):
    """Turns pyramid features into outputs of its own kind, and those into losses or detections.

    The outputs are made once and can serve both, so that validation reports losses and detections of one
    pass.
    """

    num_classes: int

    @abstractmethod
    def forward(
        self, features: list[Float[Tensor, "B _C _H _W"]], image_sizes: Int64[Tensor, "B 2"]
    ) -> Outputs:
        """Raw outputs over all levels, finest first; sizes (height, width) in pixels of the batch."""

    @abstractmethod
    def loss(self, outputs: Outputs, targets: Targets) -> dict[str, Float[Tensor, ""]]:
        """Losses by log name ("loss_..."); their sum is minimised."""

    @abstractmethod
    def predict(self, outputs: Outputs) -> list[Detections]:
        """Detections of each image, best first, clipped to its size, without gradients."""

    @abstractmethod
    def candidates(self, outputs: Outputs) -> Candidates:
        """Return what may become a detection, clipped to its image, before suppression: export records it."""
