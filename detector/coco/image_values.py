"""Pixel values of more than 8 bits: their conversion to 8 bits, and the range that a dataset uses."""

# H, W height and width of an image

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from detector.coco.image_errors import ImageError

ImageRange = Literal["full"] | tuple[float, float]


class OpenRangeError(ImageError):
    """The values have no black and white of their own, and no image_range defines them."""

    def __init__(self, values: ValueRange) -> None:
        self.values = values
        proposed = find_range([values])
        ways = [range_override(proposed, option=option) for option in ("data.image_range", "image_range")]
        super().__init__(
            f"has floating-point, signed or 32-bit values, {values.low:g} to {values.high:g}, none of which "
            f"is black or white by itself. Say which are: {ways[0]}, in predict {ways[1]}."
        )


@dataclass(frozen=True)
class ValueRange:
    """The lowest, highest and median finite value of an image of more than 8 bits per sample.

    `white` is the highest value that its format holds; None for floats, signed and 32-bit integers, whose
    format says nothing about brightness.
    """

    low: float
    high: float
    median: float
    white: int | None

    @property
    def is_small(self) -> bool:
        """Whether the values span less than a quarter of the range of their format."""
        return self.white is not None and 0 < self.high - self.low < self.white / 4


def measure(values: np.ndarray, *, white: int | None) -> ValueRange:
    """Measure the range of an image's values (H, W) or (H, W, 3), ignoring NaN and infinities."""
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    if not finite.size:
        return ValueRange(0.0, 0.0, 0.0, white)
    return ValueRange(float(finite.min()), float(finite.max()), float(np.median(finite)), white)


def require_full_range(values: ValueRange) -> None:
    """Raise OpenRangeError if image_range=full is meaningless, as the format does not define white."""
    if values.white is None:
        raise OpenRangeError(values)


def to_8_bits(values: np.ndarray, *, white: int | None, image_range: ImageRange) -> np.ndarray:
    """Convert values (H, W) or (H, W, 3) to uint8 RGB (H, W, 3).

    `image_range="full"` takes the high bits, as cv2 does (PIL's conversion of 16-bit gray clips it to white).
    (low, high) is linear: low and less become 0, high and more become 255, NaN becomes 0.
    """
    if image_range == "full":
        assert white is not None, "such values have no full range"
        shift = white.bit_length() - 8
        scaled = (values >> shift).astype(np.uint8)
    else:
        low, high = image_range
        fraction = (np.nan_to_num(values.astype(np.float32), nan=low) - low) * (255 / (high - low))
        scaled = np.clip(np.rint(fraction), 0, 255).astype(np.uint8)
    return scaled if scaled.ndim == 3 else np.repeat(scaled[..., None], 3, axis=2)


def find_range(ranges: Sequence[ValueRange]) -> ImageRange:
    """Return the range that `image_range=auto` stands for, one for all images of a dataset.

    For 16-bit images it runs from 0 to the largest value of the fewest bits (8 to 15) that hold all values,
    or is "full" if they need 16. It is the lowest and highest value if these span less than a quarter of
    that, and for floats, signed and 32-bit integers.
    """
    if not ranges:
        return "full"
    low, high = min(r.low for r in ranges), max(r.high for r in ranges)
    if any(r.white is None for r in ranges):
        return (low, high if high > low else low + 1)
    largest = max((1 << max(8, int(high).bit_length())) - 1, 255)
    if largest > 255 and 0 < high - low < largest / 4:
        return (low, high)
    return "full" if largest >= max(r.white or 0 for r in ranges) else (0.0, float(largest))


def shown_range(image_range: ImageRange) -> str:
    """Format a range as an override takes it: full, or [0,4095]."""
    if image_range == "full":
        return "full"
    return "[" + ",".join(f"{value:.9g}" for value in image_range) + "]"


def range_override(image_range: ImageRange, *, option: str) -> str:
    """Return the override that sets `option`, quoted to paste into a shell, as zsh expands brackets."""
    return shlex.quote(f"{option}={shown_range(image_range)}")


def require_ascending(image_range: Literal["auto"] | ImageRange) -> None:
    """Raise ValueError unless a range is finite and ascending."""
    if isinstance(image_range, tuple) and not -np.inf < image_range[0] < image_range[1] < np.inf:
        raise ValueError(
            f"image_range={shown_range(image_range)}: expected [low, high] with low < high, such as [0,4095]."
        )


def range_note(
    ranges: Sequence[ValueRange], *, image_range: ImageRange, option: str, is_auto: bool = False
) -> str | None:
    """Return a note on the values of images of more than 8 bits, or None if there is nothing to note.

    A range that was derived from the images (`is_auto`) is reported. Another one is if images become nearly
    one shade of gray, or if most of their pixels lie outside it. `option` is the override that would change
    it, data.image_range.
    """
    if is_auto and ranges:
        return (
            f"{len(ranges)} images of more than 8 bits hold the values {_span(ranges)}: "
            f"{option}=auto stands for {range_override(image_range, option=option)}, which become black and "
            "white."
        )
    if image_range != "full":
        low, high = image_range
        flat = [r for r in ranges if r.high <= low or r.low >= high]
        clipped = [r for r in ranges if r not in flat and not low <= r.median <= high]
        counts = (
            (len(flat), "become one shade of gray"),
            (len(clipped), "have most of their pixels become black or white"),
        )
        if not (parts := [f"{count} {what}" for count, what in counts if count]):
            return None
        return (
            f"Of {len(ranges)} images of more than 8 bits {' and '.join(parts)}: their values lie outside "
            f"{option}={shown_range(image_range)}. The values of all are {_span(ranges)}: "
            f"{range_override(find_range(ranges), option=option)} holds them."
        )
    small = [r for r in ranges if r.is_small]
    if not small:
        return None
    proposed = find_range(small)
    if proposed == "full":  # small ranges at both ends
        proposed = min(r.low for r in small), max(r.high for r in small)
    spreading = range_override(proposed, option=option)
    clips = "" if len(small) == len(ranges) else " (and clips the values of the others)"
    return (
        f"{len(small)} of {len(ranges)} images of more than 8 bits use less than a quarter of the values "
        f"that their format holds, {_span(small)} of 0 to {max(r.white or 0 for r in small)}: they become "
        f"nearly black or one gray. {spreading} spreads these values from black to white{clips}."
    )


def _span(ranges: Sequence[ValueRange]) -> str:
    return f"{min(r.low for r in ranges):g} to {max(r.high for r in ranges):g}"
