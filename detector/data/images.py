"""Image files to arrays: EXIF orientation, truncation, odd formats."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

# EXIF orientation -> what to do with the stored rows and columns to see the picture upright.
_UPRIGHT = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}
_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
# Formats whose cv2 decoder either fails or is right once the end of the file is there. Others go through PIL.
_CV2_SAFE = (_JPEG, _PNG, b"BM")
_EXIF_MARKS = (b"Exif\x00", b"eXIf", b"EXIF")


class ImageError(ValueError):
    """An image file that cannot be used; the message says why and what to do, without the file's name."""


def read_image(path: Path, *, declared_size: tuple[int, int] | None) -> np.ndarray:
    """The picture as uint8 RGB (height, width, 3), contiguous, with the size its annotations were made for.

    `declared_size` is the (height, width) of the annotation file, None where it has none. EXIF orientation
    is applied where the rotated size is the declared one; where both fit (square pictures, half turns,
    mirrors) or none is declared, it is applied, as every viewer does. Raises ValueError naming the file and
    the fix where the file is missing, truncated, no image, or of another size.
    """
    try:
        return decode_image(path.read_bytes(), declared_size=declared_size)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror or error}).") from None
    except ImageError as error:
        raise ValueError(f"{path}: {error}") from None


def decode_image(content: bytes, *, declared_size: tuple[int, int] | None) -> np.ndarray:
    """As `read_image`, from the bytes of a file. Raises ImageError."""
    stored = _decode(content)
    height, width = stored.shape[:2]
    orientation = fitting_orientation((height, width), exif_orientation(content), declared_size)
    upright = _UPRIGHT[orientation](stored) if orientation in _UPRIGHT else stored
    return np.ascontiguousarray(upright)


def fitting_orientation(stored: tuple[int, int], orientation: int, declared: tuple[int, int] | None) -> int:
    """The EXIF orientation to apply: `orientation`, or 1 (none) where only the `stored` size is `declared`.

    Raises ImageError where neither size is the declared one.
    """
    rotated = stored[::-1] if orientation in (5, 6, 7, 8) else stored
    if declared is None or rotated == declared:
        return orientation
    if stored == declared:
        return 1
    also = f" ({rotated[0]} x {rotated[1]} as its EXIF orientation turns it)" if rotated != stored else ""
    raise ImageError(
        f"is {stored[0]} x {stored[1]} pixels (height x width){also}, but its annotations say "
        f"{declared[0]} x {declared[1]}. Correct the annotation file, or restore the "
        "image it was made for."
    )


def exif_orientation(content: bytes) -> int:
    """1 to 8; 1 where there is no readable orientation."""
    if not any(mark in content for mark in _EXIF_MARKS):
        return 1
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # broken EXIF blocks: viewers ignore them, and so do we
            with Image.open(io.BytesIO(content)) as image:
                orientation = image.getexif().get(0x0112, 1)
    except Exception:  # PIL raises nearly anything on a broken EXIF block
        return 1
    return orientation if orientation in _UPRIGHT else 1


def _decode(content: bytes) -> np.ndarray:
    """uint8 RGB as stored, EXIF not applied."""
    if not content:
        raise ImageError("the file is empty. Restore it, or remove the image from the annotations.")
    if content.startswith(_CV2_SAFE) and _has_end(content):
        flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        try:
            decoded = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
        except cv2.error:
            decoded = None
        if decoded is not None:
            return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
    return _decode_strictly(content)


def _has_end(content: bytes) -> bool:
    """Whether the file ends as its format asks: cv2 decodes a truncated JPEG to half-grey without a word."""
    if content.startswith(_JPEG):
        # Compressed data holds no end marker. Padding after the end sends the file to PIL.
        return content.endswith(b"\xff\xd9")
    if content.startswith(_PNG):
        return b"IEND" in content[-12:]
    return True


def _decode_strictly(content: bytes) -> np.ndarray:
    """With PIL, which raises on truncated files."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            with Image.open(io.BytesIO(content)) as image:
                image.load()
                return _to_rgb(image)
    except Exception as error:  # PIL raises nearly anything on a broken file
        raise ImageError(
            f"cannot be decoded ({error}). The file is truncated or no image: restore it, or remove the "
            "image from the annotations."
        ) from None


def _to_rgb(image: Image.Image) -> np.ndarray:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _grey_to_rgb(np.asarray(image))
    return np.array(image.convert("RGB"))


def _grey_to_rgb(values: np.ndarray) -> np.ndarray:
    """16-bit grey by its high byte, as cv2 does: PIL's own conversion clips it to white."""
    if values.dtype.kind == "f" or values.min(initial=0) < 0 or values.max(initial=0) > 65535:
        raise ImageError("has pixel values outside 0 to 65535. Convert it to 8 or 16 bit.")
    return np.repeat((values.astype(np.uint32) >> 8).astype(np.uint8)[..., None], 3, axis=2)
