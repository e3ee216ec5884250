"""The interface of second-stage branches, which predict more of an object than its class and box."""

# B images, G ground-truth boxes, R regions of all images, N detections of all images

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float, Int64
from torch import Tensor, nn

from detector.option_types import TaskName
from detector.structures import Detections, Record, Targets


@dataclass(frozen=True)
class Regions(Record):
    """Sampled regions of the batch, concatenated, with target class (-1: background) and target box.

    `image` is the position of a region's image in the batch, `matched` the position of its object among the
    targets of the image, below 0 for background.
    """

    boxes: Float[Tensor, "R 4"]
    image: Int64[Tensor, "R"]
    labels: Int64[Tensor, "R"]
    targets: Float[Tensor, "R 4"]
    matched: Int64[Tensor, "R"]


class RoIBranch(nn.Module, ABC):
    """A part of `RoIHead` that predicts more of each object, such as a mask or keypoints.

    It does its own pooling from the `features` (B, C, H, W) of the levels that it was built for. All its
    parameters must take part in each loss, even without any foreground: several devices wait for their
    gradients. `task` is the one that it predicts for, which the data must have targets of; None is another.
    """

    task: ClassVar[TaskName | None] = None

    @abstractmethod
    def loss(
        self, features: Sequence[Tensor], foreground: Regions, targets: Targets
    ) -> dict[str, Float[Tensor, ""]]:
        """Return losses by log name ("loss_..."), which no other part of the head may use.

        The masks of `foreground`, for example, are `targets.masks` at [foreground.image, foreground.matched].
        """

    @abstractmethod
    def add_to(
        self, features: Sequence[Tensor], detections: Detections, image: Int64[Tensor, "N"]
    ) -> Detections:
        """Return the detections, in the same order, with the field that this branch predicts.

        `detections` are those of the whole batch after suppression; `image` holds the positions of their
        images in the batch.
        """


# takes the levels, the number of classes and, if it has such a parameter, `num_keypoints`
BranchFactory = Callable[..., RoIBranch]
