"""The outlines of the classes of `WarpedShapes`: eight shapes, a random affine, a smooth non-rigid warp."""

# N points of a closed outline, as (x, y)

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Points = NDArray[np.floating]  # (N, 2)

_NUM_POINTS = 160  # enough for the bent edges of the largest shapes to look smooth


def area(points: Points) -> float:
    """Return the area inside a closed outline of either orientation (shoelace formula)."""
    x, y = points.T
    return 0.5 * abs(float(x[:-1] @ y[1:] - x[1:] @ y[:-1] + x[-1] * y[0] - x[0] * y[-1]))


def outline(name: str) -> Points:
    """Return the canonical outline of a class: about 160 points, centered on the origin, of area 1."""
    return _OUTLINES[name].copy()


def random_affine(points: Points, *, rotation: float, amount: float, rng: Generator) -> Points:
    """Rotate an outline by up to `rotation` half turns either way, then stretch and shear it by `amount`.

    At amount 1 a random axis is stretched by up to 1.6 and sheared by up to 0.3; at 0 neither happens. No
    class becomes another under any affine map, so the label stays true.
    """
    stretch = 1.6 ** (amount * rng.uniform(-0.5, 0.5))
    shear = 0.3 * amount * rng.uniform(-1, 1)
    axis, turn = _rotation(rng.uniform(-np.pi, np.pi)), _rotation(rotation * rng.uniform(-np.pi, np.pi))
    matrix = turn @ axis @ np.array([[stretch, shear], [0.0, 1 / stretch]]) @ axis.T
    return points @ matrix.T


def random_warp(points: Points, *, strength: float, rng: Generator) -> Points:
    """Bend the points of an outline of about unit size smoothly. Strength 0 is the identity.

    A bend along a random axis, like that of a bar onto an arc, is followed by a displacement by three plane
    waves about as long as the shape. Neither folds the outline up to strength 1. The random numbers drawn do
    not depend on `strength`.
    """
    turn = _rotation(rng.uniform(-np.pi, np.pi))
    curvature = strength * rng.choice([-1, 1]) * rng.uniform(0.5, 1.0)
    waves = [_random_wave(rng) for _ in range(3)]
    bent = _bend(points @ turn.T, curvature=curvature) @ turn
    return bent + strength * sum(
        np.sin(bent @ wave_vector + phase)[:, None] * amplitude for wave_vector, phase, amplitude in waves
    )


def _random_wave(rng: Generator) -> tuple[Points, float, Points]:
    """Draw the wave vector, phase and displacement of a wave, 1.1 to 2 shape sizes long, about 0.06 high."""
    wavelength = rng.uniform(1.1, 2.0)
    direction, push = rng.uniform(0, 2 * np.pi, size=2)
    wave_vector = 2 * np.pi / wavelength * np.array([np.cos(direction), np.sin(direction)])
    # Longer waves bend less, so they push more. Slopes sum to 3 * 2 pi * 0.045 = 0.85 < 1: nothing folds.
    amplitude = 0.045 * wavelength * np.array([np.cos(push), np.sin(push)])
    return wave_vector, rng.uniform(0, 2 * np.pi), amplitude


def _bend(points: Points, *, curvature: float) -> Points:
    """Roll the x axis onto a circle of this curvature, keeping lengths along the axis."""
    if abs(curvature) < 1e-9:
        return points
    angle = curvature * points[:, 0]
    radius = 1 / curvature - points[:, 1]
    return np.stack([radius * np.sin(angle), 1 / curvature - radius * np.cos(angle)], axis=1)


def _rotation(angle: float) -> Points:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


# The classes. Corners are joined by straight edges; curves are given densely.


def _polar(angles: NDArray[np.floating], radii: NDArray[np.floating] | float) -> Points:
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


def _turn(n: int) -> NDArray[np.floating]:
    return np.arange(n) * (2 * np.pi / n)


def _crescent() -> Points:
    """Return the unit disc minus a disc of radius 0.86 shifted by 0.46: no bent disc has such sharp horns."""
    radius, shift = 0.86, 0.46
    x = (1 - radius**2 + shift**2) / (2 * shift)
    outer_end = np.arccos(x)
    inner_end = np.arccos((x - shift) / radius)
    outer = _polar(np.linspace(outer_end, 2 * np.pi - outer_end, 90), 1.0)
    inner = _polar(np.linspace(2 * np.pi - inner_end, inner_end, 70)[1:-1], radius)
    inner[:, 0] += shift
    return np.concatenate([outer, inner])


def _heart() -> Points:
    t = _turn(160)
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([x, y], axis=1)


def _cross() -> Points:
    half_width = 0.3
    quarter = np.array([[1, -half_width], [1, half_width], [half_width, half_width]])
    rotate = np.array([[0.0, -1.0], [1.0, 0.0]])
    return np.concatenate([quarter @ np.linalg.matrix_power(rotate, k).T for k in range(4)])


_ARROW = [(-1, -0.24), (0.1, -0.24), (0.1, -0.72), (1, 0), (0.1, 0.72), (0.1, 0.24), (-1, 0.24)]

_RAW: dict[str, Callable[[], Points]] = {
    "disc": lambda: _polar(_turn(160), 1.0),
    "triangle": lambda: _polar(_turn(3), 1.0),
    "square": lambda: _polar(_turn(4), 1.0),
    "star": lambda: _polar(_turn(10), np.where(np.arange(10) % 2, 0.42, 1.0)),
    "cross": _cross,
    "crescent": _crescent,
    "heart": _heart,
    "arrow": lambda: np.array(_ARROW, dtype=np.float64),
}


def _resampled(corners: Points) -> Points:
    """Sample about `_NUM_POINTS` points along the closed outline, including every corner."""
    edges = np.roll(corners, -1, axis=0) - corners
    lengths = np.hypot(edges[:, 0], edges[:, 1])
    counts = np.maximum(1, np.round(_NUM_POINTS * lengths / lengths.sum())).astype(int)
    parts = [
        corner + np.arange(count)[:, None] / count * edge
        for corner, edge, count in zip(corners, edges, counts, strict=True)
    ]
    return np.concatenate(parts)


def normalized(points: Points) -> Points:
    """Move the middle of the extents to the origin and scale to area 1."""
    middle = (points.min(axis=0) + points.max(axis=0)) / 2
    return (points - middle) / np.sqrt(area(points))


_OUTLINES = {name: normalized(_resampled(make())) for name, make in _RAW.items()}
CLASS_NAMES = tuple(_OUTLINES)
