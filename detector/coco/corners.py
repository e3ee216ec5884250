"""The corners of polygons, in half the memory where all are whole hundredths of pixels, as COCO's are."""

# C corners

from __future__ import annotations

from array import array
from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike

_PER_PIXEL = 100
_LIMIT = np.iinfo(np.int32).max


@dataclass(frozen=True, eq=False)
class Corners:
    """Corners x, y (C, 2): as pixels if `values` are float64, as hundredths of pixels if they are int32.

    Both give the same float64 pixels, to the last digit.
    """

    values: np.ndarray

    def __len__(self) -> int:
        return len(self.values)

    def pixels(self, rows: slice = slice(None)) -> np.ndarray:
        """Return corners in pixels (n, 2), float64."""
        return _in_pixels(self.values[rows])

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        """Return all in pixels: how numpy compares corners, however they are kept."""
        return np.asarray(self.pixels(), dtype=dtype)

    def select(self, rows: np.ndarray) -> Corners:
        return Corners(self.values.take(rows, axis=0))

    def extremes(self, first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the lowest and the highest x, y of polygons in pixels (P, 2), which begin at `first` (P)."""
        if not len(first):
            return np.zeros((0, 2)), np.zeros((0, 2))
        lowest, highest = (f.reduceat(self.values, first, axis=0) for f in (np.minimum, np.maximum))
        return _in_pixels(lowest), _in_pixels(highest)


class CornerBuffer:
    """Corners in the order of addition, in one growing block of memory: many small ones would leave gaps."""

    def __init__(self) -> None:
        self._numbers: array[int] | array[float] = array("i")

    def add(self, pixels: np.ndarray) -> None:
        """Add the numbers x1, y1, x2, ... in pixels, finite float64."""
        if self._numbers.typecode == "i":
            hundredths = _hundredths(pixels)
            if hundredths is not None:
                self._numbers.frombytes(hundredths.view(np.uint8).data)
                return
            self._numbers = array("d", _in_pixels(self._values).tobytes())
        self._numbers.frombytes(pixels.view(np.uint8).data)

    @property
    def _values(self) -> np.ndarray:
        return np.frombuffer(self._numbers, np.int32 if self._numbers.typecode == "i" else np.float64)

    def corners(self) -> Corners:
        return Corners(self._values.reshape(-1, 2))


def _hundredths(pixels: np.ndarray) -> np.ndarray | None:
    """Return the numbers in hundredths as int32; None if any number would change."""
    with np.errstate(over="ignore"):  # the largest float64 have no hundredfold
        hundredths = pixels * _PER_PIXEL
    np.rint(hundredths, out=hundredths)
    if (hundredths / _PER_PIXEL != pixels).any() or (np.abs(hundredths) > _LIMIT).any():
        return None
    return hundredths.astype(np.int32)


def _in_pixels(values: np.ndarray) -> np.ndarray:
    return values / _PER_PIXEL if values.dtype == np.int32 else values
