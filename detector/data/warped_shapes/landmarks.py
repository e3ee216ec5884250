"""The landmarks of the classes of `WarpedShapes`: corners and tips, as points of the outlines.

As such they are bent, turned and moved with the outline. Left and right, upper and lower are those of the
image in which the shape is drawn without rotation, with y downwards. A pair of left and right is one that
mirroring swaps: the tip of an arrow, which points to the right, is its tip in the mirrored image, too.
"""

# K landmarks of a class, N points of an outline, as (x, y)

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detector.data.warped_shapes.shapes import CLASS_NAMES, outline


@dataclass(frozen=True)
class Landmarks:
    """The `names` (K) of the landmarks of a class, their `places` (K) among the points of its outline (N).

    `skeleton` holds pairs of names that a drawing connects.
    """

    names: tuple[str, ...]
    places: NDArray[np.intp]
    skeleton: tuple[tuple[str, str], ...]

    def skeleton_numbers(self) -> list[list[int]]:
        """Return the skeleton as COCO writes it: pairs of numbers of keypoints, which count from 1."""
        return [[self.names.index(name) + 1 for name in pair] for pair in self.skeleton]


# About where the landmarks lie in the canonical outlines: each is the nearest of the outline's points.
_POSITIONS: dict[str, dict[str, tuple[float, float]]] = {
    "disc": {},
    "triangle": {"tip": (0.66, 0.0), "lower_corner": (-0.66, 0.76), "upper_corner": (-0.66, -0.76)},
    "square": {
        "right_corner": (0.71, 0.0),
        "bottom_corner": (0.0, 0.71),
        "left_corner": (-0.71, 0.0),
        "top_corner": (0.0, -0.71),
    },
    "star": {
        "tip": (0.81, 0.0),
        "lower_arm": (0.19, 0.86),
        "lower_leg": (-0.81, 0.53),
        "upper_leg": (-0.81, -0.53),
        "upper_arm": (0.19, -0.86),
    },
    "cross": {
        "right_arm": (0.70, 0.0),
        "bottom_arm": (0.0, 0.70),
        "left_arm": (-0.70, 0.0),
        "top_arm": (0.0, -0.70),
    },
    "crescent": {"lower_horn": (0.66, 0.75), "upper_horn": (0.66, -0.75)},
    "heart": {
        "tip": (0.0, -0.61),
        "left_lobe": (-0.33, 0.61),
        "notch": (0.0, 0.32),
        "right_lobe": (0.33, 0.61),
    },
    "arrow": {
        "tip": (0.92, 0.0),
        "lower_barb": (0.09, 0.66),
        "tail": (-0.92, 0.0),
        "upper_barb": (0.09, -0.66),
    },
}
_SKELETONS: dict[str, tuple[tuple[str, str], ...]] = {
    "star": (
        ("tip", "lower_leg"),
        ("lower_leg", "upper_arm"),
        ("upper_arm", "lower_arm"),
        ("lower_arm", "upper_leg"),
        ("upper_leg", "tip"),
    ),
    "cross": (("left_arm", "right_arm"), ("top_arm", "bottom_arm")),
    "crescent": (("lower_horn", "upper_horn"),),
    "arrow": (("tail", "tip"), ("tip", "lower_barb"), ("tip", "upper_barb")),
}


def _landmarks(class_name: str) -> Landmarks:
    positions = _POSITIONS[class_name]
    names = tuple(positions)
    distances = np.array([np.linalg.norm(outline(class_name) - xy, axis=1) for xy in positions.values()])
    places = distances.reshape(len(names), -1).argmin(axis=1) if names else np.zeros(0, dtype=np.intp)
    around = tuple(zip(names, (*names[1:], *names[:1]), strict=True))
    return Landmarks(names, places, _SKELETONS.get(class_name, around))


LANDMARKS = tuple(map(_landmarks, CLASS_NAMES))  # by label
