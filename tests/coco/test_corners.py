"""Corners are kept in half the memory where they are whole hundredths, and never change."""

import numpy as np
import pytest

from detector.coco.corners import CornerBuffer, Corners

HUNDREDTHS = np.arange(-300, 90_000) / 100
LARGEST = 21_474_836.47  # whose hundredfold is the largest int32


def corners_of(*parts: np.ndarray | list[float]) -> Corners:
    buffer = CornerBuffer()
    for part in parts:
        buffer.add(np.array(part, dtype=np.float64))
    return buffer.corners()


def test_whole_hundredths_take_half_the_memory_and_keep_the_last_digit() -> None:
    corners = corners_of(HUNDREDTHS, [LARGEST, 7.0])
    assert corners.values.nbytes == 4 * (len(HUNDREDTHS) + 2)
    np.testing.assert_array_equal(corners.pixels().ravel(), [*HUNDREDTHS, LARGEST, 7.0])


@pytest.mark.parametrize(
    "other", [0.125, 1 / 3, np.nextafter(0.29, 1), -LARGEST - 0.02, LARGEST + 0.01, 1e308]
)
def test_other_numbers_are_kept_as_they_are(other: float) -> None:
    corners = corners_of(HUNDREDTHS, [other, 0.29], [0.07, 0.58])
    np.testing.assert_array_equal(corners.pixels().ravel(), [*HUNDREDTHS, other, 0.29, 0.07, 0.58])


@pytest.mark.parametrize("shift", [0.0, 0.125])
def test_parts_are_in_pixels(shift: float) -> None:
    pixels = np.array([[1.29, 5], [4, 2.5], [3, 3], [0, 9], [8, 7.07]]) + shift
    corners = corners_of(pixels.ravel())
    np.testing.assert_array_equal(corners.pixels(slice(1, 3)), pixels[1:3])
    np.testing.assert_array_equal(corners.select(np.array([4, 0])).pixels(), pixels[[4, 0]])
    lowest, highest = corners.extremes(np.array([0, 3]))
    np.testing.assert_array_equal(lowest, [pixels[:3].min(axis=0), pixels[3:].min(axis=0)])
    np.testing.assert_array_equal(highest, [pixels[:3].max(axis=0), pixels[3:].max(axis=0)])


def test_no_corners_at_all() -> None:
    corners = corners_of([])
    assert corners.pixels().shape == (0, 2)
    assert [part.shape for part in corners.extremes(np.zeros(0, np.int64))] == [(0, 2), (0, 2)]


def test_numpy_compares_them_in_pixels() -> None:
    both = corners_of(HUNDREDTHS[:4]), corners_of(HUNDREDTHS[:4], [1 / 3, 0]).select(np.arange(2))
    assert both[0].values.dtype != both[1].values.dtype
    assert np.array_equal(*both)
    assert not np.array_equal(both[0], corners_of(HUNDREDTHS[1:5]))
