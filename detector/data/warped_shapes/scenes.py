"""The scene of one image of `WarpedShapes`: objects and clutter in depth order, and their visible parts."""

# S pixels a side; masks are uint8 {0, 1} of (4S, 4S), four samples per pixel and axis

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from detector.data.warped_shapes import shapes, textures
from detector.data.warped_shapes.landmarks import LANDMARKS
from detector.data.warped_shapes.shapes import CLASS_NAMES, Points
from detector.data.warped_shapes.textures import Pixels

Mask = NDArray[np.uint8]

_SAMPLES = 4  # per pixel and axis: gives anti-aliased edges, and polygons exact to a quarter pixel
_PLACEMENT_TRIES = 12
_CENTER_MARGIN = 0.35  # least, in object sizes from the border: at most 15 % of width and height is cut off
_SLIVER_PX = 3.0  # visible parts smaller than this many square pixels do not stretch a box


@runtime_checkable
class SceneOptions(Protocol):
    """The options of `WarpedShapes` that `draw_scene` reads."""

    @property
    def strength(self) -> float: ...
    @property
    def rotation(self) -> float: ...
    @property
    def affine(self) -> float: ...
    @property
    def image_size(self) -> int: ...
    @property
    def objects(self) -> tuple[int, int]: ...
    @property
    def scale(self) -> tuple[float, float]: ...
    @property
    def clutter(self) -> int: ...
    @property
    def min_visible(self) -> float: ...
    @property
    def color_distance(self) -> float: ...


@dataclass(frozen=True)
class Layer:
    """The region that a layer covers: a mask cut to its extents, whose first sample lies at (top, left)."""

    top: int
    left: int
    mask: Mask

    @property
    def window(self) -> tuple[slice, slice]:
        """The slices of the mask in an array of the whole image's samples."""
        height, width = self.mask.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)

    def covers(self, points: Points) -> NDArray[np.bool_]:
        """Return whether each point (N, 2), in pixels, lies in the region (N,)."""
        column, row = (np.floor(points * _SAMPLES).astype(np.int64) - [self.left, self.top]).T
        height, width = self.mask.shape
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        covered = np.zeros(len(points), dtype=bool)
        covered[inside] = self.mask[row[inside], column[inside]] > 0
        return covered


@dataclass
class SceneObject:
    """An object in a scene, with a mask of the whole image.

    Later layers remove what they cover from `visible`; `full_area` counts the samples of the whole object.
    `landmarks` (K, 2) are in pixels and may lie outside the image; `hidden` (K) are those that a later layer
    covers.
    """

    label: int
    full_area: float
    visible: Mask
    landmarks: Points = field(default_factory=lambda: np.zeros((0, 2)))

    def __post_init__(self) -> None:
        self.hidden = np.zeros(len(self.landmarks), dtype=bool)

    def fraction_left(self, under: Layer | None = None) -> float:
        """Return the fraction of the whole object that is visible, or would be under one more layer."""
        hidden = 0 if under is None else cv2.countNonZero(self.visible[under.window] & under.mask)
        return (cv2.countNonZero(self.visible) - hidden) / self.full_area

    def cover(self, layer: Layer) -> None:
        self.visible[layer.window] &= 1 - layer.mask
        self.hidden |= layer.covers(self.landmarks)

    def visibility(self) -> NDArray[np.int64]:
        """Return 2 for each visible landmark, 1 for a hidden one and 0 for one outside the image (K)."""
        size = len(self.visible) // _SAMPLES
        inside = ((self.landmarks >= 0) & (self.landmarks < size)).all(axis=1)
        return np.where(inside, np.where(self.hidden, 1, 2), 0)

    def has_holes(self) -> bool:
        """Return whether the visible part encloses a region of another layer, slivers aside."""
        outside = np.pad(1 - _layer(self.visible).mask, 1, constant_values=1)
        count, _, stats, _ = cv2.connectedComponentsWithStats(outside, connectivity=4)
        sizes = [stats[i, cv2.CC_STAT_AREA] for i in range(1, count) if stats[i, cv2.CC_STAT_LEFT] > 0]
        return bool(max(sizes, default=0) >= _SLIVER_PX * _SAMPLES**2)

    def pixels(self) -> Mask:
        """Return the mask of the pixels of which more than half is visible (S, S)."""
        size = len(self.visible) // _SAMPLES
        covered = self.visible.reshape(size, _SAMPLES, size, _SAMPLES).sum(axis=(1, 3))
        return (covered > _SAMPLES**2 // 2).astype(np.uint8)

    def polygons(self) -> list[Points]:
        """Return the outlines of the visible parts in pixels, largest first, without slivers.

        Holes are filled, as COCO polygons have none: see `has_holes`.
        """
        part = _layer(self.visible)
        # Contours run through sample centers: spread each sample to its four corners for exact extents.
        corners = cv2.dilate(np.pad(part.mask, (0, 1)), np.ones((2, 2), np.uint8), anchor=(1, 1))
        contours, _ = cv2.findContours(
            corners, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE, offset=(part.left, part.top)
        )
        parts = sorted((_simplified(c) / _SAMPLES for c in contours), key=shapes.area, reverse=True)
        return [p for i, p in enumerate(parts) if i == 0 or shapes.area(p) >= _SLIVER_PX]


def _simplified(contour: NDArray[Any]) -> Points:
    """Simplify a contour to within one sample; a speck that would lose its area stays as it is."""
    few = cv2.approxPolyDP(contour, 1.0, closed=True)
    return (few if len(few) >= 3 else contour)[:, 0].astype(np.float64)


def _layer(mask: Mask) -> Layer:
    """Cut a mask of the whole image to its extents, rounded outwards to whole pixels."""
    x, y, width, height = cv2.boundingRect(mask)
    left, top = x // _SAMPLES * _SAMPLES, y // _SAMPLES * _SAMPLES
    right, bottom = -(-(x + width) // _SAMPLES) * _SAMPLES, -(-(y + height) // _SAMPLES) * _SAMPLES
    return Layer(top, left, mask[top:bottom, left:right])


def draw_scene(options: SceneOptions, *, key: tuple[int, ...]) -> tuple[NDArray[np.uint8], list[SceneObject]]:
    """Draw the scene of `key`, always the same: a (S, S, 3) BGR image and its objects, back to front.

    Every layer has its own random numbers, so scenes that differ in `strength` alone have the same background
    and try the same objects, most of them at the same places.
    """
    rng = np.random.default_rng(key)
    size = options.image_size
    canvas = textures.random_texture(size, size, color=textures.random_color(rng), contrast=90.0, rng=rng)
    textures.add_soft_blobs(canvas, count=int(rng.integers(0, options.clutter + 1)), rng=rng)
    num_objects = rng.integers(options.objects[0], options.objects[1] + 1)
    num_strokes = rng.integers(0, options.clutter + 1)
    layers = rng.permutation(num_objects + num_strokes) < num_objects
    placed: list[SceneObject] = []
    for is_object, layer_rng in zip(layers, rng.spawn(len(layers)), strict=True):
        add = _add_object if is_object else _add_stroke
        add(canvas, placed, options, layer_rng)
    return np.clip(canvas + 0.5, 0, 255).astype(np.uint8), placed


def _add_object(canvas: Pixels, placed: list[SceneObject], options: SceneOptions, rng: Generator) -> None:
    """Place an object where it and all that it covers stay visible enough; give up after some tries."""
    label = int(rng.integers(len(CLASS_NAMES)))
    points = shapes.outline(CLASS_NAMES[label])
    points = shapes.random_warp(points, strength=options.strength, rng=rng)
    points = shapes.normalized(_random_affine(points, options, rng))
    points *= options.image_size * np.exp(rng.uniform(*np.log(options.scale)))
    full_area = shapes.area(points) * _SAMPLES**2
    margin = np.minimum(_CENTER_MARGIN * np.ptp(points, axis=0), options.image_size / 2)
    paint_rng = rng.spawn(1)[0]  # so that the colors do not depend on the number of tries
    for _ in range(_PLACEMENT_TRIES):
        placed_points = points + rng.uniform(margin, options.image_size - margin)
        mask = _filled(placed_points, options.image_size)
        thing = SceneObject(label, full_area, mask, placed_points[LANDMARKS[label].places])
        if thing.fraction_left() >= options.min_visible and _place(canvas, placed, mask, options, paint_rng):
            placed.append(thing)
            return


def _random_affine(points: Points, options: SceneOptions, rng: Generator) -> Points:
    return shapes.random_affine(points, rotation=options.rotation, amount=options.affine, rng=rng)


def _add_stroke(canvas: Pixels, placed: list[SceneObject], options: SceneOptions, rng: Generator) -> None:
    """Draw an open line if it leaves the objects behind it visible enough."""
    size = options.image_size
    mask = np.zeros((size * _SAMPLES, size * _SAMPLES), np.uint8)
    line = np.round(textures.random_stroke(size, rng=rng) * _SAMPLES).astype(np.int32)
    width = size * rng.uniform(0.008, 0.025) * _SAMPLES
    cv2.polylines(mask, [line], isClosed=False, color=1, thickness=max(1, round(width)))
    if mask.any():
        _place(canvas, placed, mask, options, rng)


def _filled(points: Points, size: int) -> Mask:
    """Return the mask of the samples whose centers lie inside a polygon in pixels."""
    mask = np.zeros((size * _SAMPLES, size * _SAMPLES), np.uint8)
    fixed_point = np.round((points * _SAMPLES - 0.5) * 16).astype(np.int32)
    cv2.fillPoly(mask, [fixed_point], 1, shift=4)
    return mask


def _place(
    canvas: Pixels, placed: list[SceneObject], mask: Mask, options: SceneOptions, rng: Generator
) -> bool:
    """Paint a layer over the placed objects if all stay visible enough; return whether it was painted."""
    layer = _layer(mask)
    if any(thing.fraction_left(under=layer) < options.min_visible for thing in placed):
        return False
    for thing in placed:
        thing.cover(layer)
    _paint(canvas, layer, options, rng)
    return True


def _paint(canvas: Pixels, layer: Layer, options: SceneOptions, rng: Generator) -> None:
    """Blend a random texture into the canvas under a layer, in a color unlike what lies there, in place."""
    rows, columns = (slice(w.start // _SAMPLES, w.stop // _SAMPLES) for w in layer.window)
    patch = canvas[rows, columns]
    height, width = patch.shape[:2]
    weight = cv2.resize(layer.mask * np.uint8(255), (width, height), interpolation=cv2.INTER_AREA)
    behind = np.array(cv2.mean(patch, mask=weight)[:3], np.float32)
    color = textures.color_unlike(behind, distance=options.color_distance, rng=rng)
    texture = textures.random_texture(height, width, color=color, contrast=60.0, rng=rng)
    patch += (weight / np.float32(255))[..., None] * (texture - patch)
