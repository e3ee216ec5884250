"""The interface of every detection head."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

from jaxtyping import Float, Int64
from torch import Tensor, nn

from detector.option_types import TaskName
from detector.structures import Candidates, Detections, Targets

Outputs = TypeVar("Outputs")


class Head(nn.Module, ABC, Generic[Outputs]):
    """A head turns pyramid features into outputs of its own type, and these into losses or detections.

    The same outputs serve both, so that validation reports the losses and detections of one pass.
    """

    num_classes: int

    @property
    def tasks(self) -> tuple[TaskName, ...]:
        """The tasks that detections answer; the data must have the targets of each."""
        return ("bbox",)

    @abstractmethod
    def forward(
        self, features: list[Float[Tensor, "B _C _H _W"]], image_sizes: Int64[Tensor, "B 2"]
    ) -> Outputs:
        """Return raw outputs of all levels, finest first; `image_sizes` are (height, width) in pixels."""

    @abstractmethod
    def loss(self, outputs: Outputs, targets: Targets) -> dict[str, Float[Tensor, ""]]:
        """Return the losses by log name ("loss_..."); training minimizes their sum."""

    @abstractmethod
    def predict(self, outputs: Outputs) -> list[Detections]:
        """Return the detections of each image, best first, clipped to its size, without gradients."""

    @abstractmethod
    def candidates(self, outputs: Outputs) -> Candidates:
        """Return the boxes before suppression, clipped to their images, which export records."""

    def add_to(self, outputs: Outputs, detections: Detections, image: Int64[Tensor, "N"]) -> Detections:
        """Return boxes after suppression with what the head predicts of them beyond class and score.

        `detections` are those of the whole batch; `image` holds the positions of their images in it.
        """
        return detections
