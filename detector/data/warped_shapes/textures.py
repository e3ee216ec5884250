"""The colors, textures and clutter of `WarpedShapes`, which must not distinguish the classes."""

# H, W pixels of an image; colors are BGR floats in [0, 255]

from __future__ import annotations

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from detector.data.warped_shapes.shapes import CLASS_NAMES, Points, outline

Pixels = NDArray[np.float32]  # (H, W, 3) or a single color (3,)


def random_texture(height: int, width: int, *, color: Pixels, contrast: float, rng: Generator) -> Pixels:
    """Draw a (height, width, 3) texture around `color`: gradient, stripes, blotches or plain, with grain.

    Its second color lies `contrast` away on average, so neither hue nor pattern tells what is textured.
    """
    other = color + rng.normal(0, contrast / np.sqrt(3), 3).astype(np.float32)
    mix = _PATTERNS[rng.integers(len(_PATTERNS))](height, width, rng)
    grain = np.float32(rng.uniform(0, 6)) * rng.standard_normal((height, width, 1), dtype=np.float32)
    return mix[..., None] * (other - color) + (color + grain)


def random_color(rng: Generator) -> Pixels:
    return rng.uniform(0, 255, 3).astype(np.float32)


def color_unlike(other: Pixels, *, distance: float, rng: Generator) -> Pixels:
    """Draw a random color at least `distance` from another, or the farthest of 16 tries if none is."""
    candidates = rng.uniform(0, 255, (16, 3)).astype(np.float32)
    distances = np.linalg.norm(candidates - other, axis=1)
    far = np.flatnonzero(distances >= distance)
    return candidates[far[0] if len(far) else distances.argmax()]


def random_stroke(size: int, *, rng: Generator) -> Points:
    """Draw an open line that starts in [0, size]: straight, wavy, or a part of the outline of a class."""
    start = rng.uniform(0, size, 2)
    length = size * rng.uniform(0.2, 0.9)
    along = np.linspace(0, 1, 40)[:, None]
    kind = rng.integers(3)
    if kind == 2:
        points = np.roll(outline(CLASS_NAMES[rng.integers(len(CLASS_NAMES))]), rng.integers(160), axis=0)
        return start + 0.6 * length * points[: rng.integers(40, 80)]
    direction = _unit(rng.uniform(0, 2 * np.pi))
    wave = kind * rng.uniform(0.03, 0.1) * length * np.sin(along * rng.uniform(6, 25))
    return start + along * length * direction + wave * direction[::-1] * [1, -1]


def add_soft_blobs(image: Pixels, *, count: int, rng: Generator) -> None:
    """Blend blurred spots of random colors into the image, in place."""
    size = len(image)
    x = np.arange(size, dtype=np.float32)
    y = x[:, None]
    for _ in range(count):
        cx, cy, sx, sy = (rng.uniform([0, 0, 0.04, 0.04], [1, 1, 0.2, 0.2]) * size).astype(np.float32)
        peak = np.float32(rng.uniform(0.3, 0.7))
        weight = peak * np.exp(-(((y - cy) / sy) ** 2)) * np.exp(-(((x - cx) / sx) ** 2))
        image += weight[..., None] * (random_color(rng) - image)


def _unit(angle: float) -> NDArray[np.float64]:
    return np.array([np.cos(angle), np.sin(angle)])


# Patterns: (height, width, rng) -> (height, width) weights of the second color in [0, 1].


def _plain(height: int, width: int, rng: Generator) -> Pixels:
    return np.zeros((height, width), np.float32)


def _ramp(height: int, width: int, rng: Generator) -> Pixels:
    """Return the distance along a random direction, in pixels."""
    dx, dy = _unit(rng.uniform(0, 2 * np.pi)).astype(np.float32)
    return dx * np.arange(width, dtype=np.float32) + dy * np.arange(height, dtype=np.float32)[:, None]


def _gradient(height: int, width: int, rng: Generator) -> Pixels:
    ramp = _ramp(height, width, rng)
    return (ramp - ramp.min()) / np.maximum(np.ptp(ramp), np.float32(1))


def _stripes(height: int, width: int, rng: Generator) -> Pixels:
    frequency = np.float32(2 * np.pi / rng.uniform(5, 32))
    waves = np.sin(_ramp(height, width, rng) * frequency + np.float32(rng.uniform(0, 6)))
    return np.clip(0.5 + waves * np.float32(rng.uniform(0.5, 3)), 0, 1)  # soft to hard edges


def _blotches(height: int, width: int, rng: Generator) -> Pixels:
    cell = rng.uniform(8, 32)
    coarse = rng.random((round(height / cell) + 2, round(width / cell) + 2), dtype=np.float32)
    return np.clip(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), 0, 1)


_PATTERNS = (_plain, _gradient, _stripes, _blotches)
