"""Image files to arrays: EXIF orientation, truncation, odd formats."""

from __future__ import annotations

import io
import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

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
_JPEG, _JPEG_END, _PNG = b"\xff\xd8\xff", b"\xff\xd9", b"\x89PNG\r\n\x1a\n"
_HEAD_BYTES = 4096  # holds the size of nearly every JPEG without EXIF
_EXIF_MARKS = (b"Exif\x00", b"eXIf", b"EXIF")


class ImageError(Exception):
    """A file that cannot be used: why, and what to do, without its name."""


class DamagedImageError(ImageError):
    """The bytes are no picture. What to do depends on who names the file."""


class MissingImageError(ImageError):
    """There is no such file."""


class ImageFileError(ValueError):
    """A file that cannot be used: its name, why, and what to do."""

    def __init__(self, message: str) -> None:
        # Of an error in a loader worker torch makes a new one whose message is the whole traceback.
        super().__init__(message.rpartition(f"{type(self).__name__}: ")[2].strip())


def read_image(path: Path, *, declared_size: tuple[int, int] | None) -> np.ndarray:
    """The picture as uint8 RGB (height, width, 3), contiguous, with the size its annotations were made for.

    `declared_size` is the (height, width) of the annotation file, None where it has none. EXIF orientation
    is applied where the rotated size is the declared one; where both fit (square pictures, half turns,
    mirrors) or none is declared, it is applied, as every viewer does. Raises ImageFileError, naming the file
    and the fix, where the file is missing, truncated, no image, or of another size.
    """
    try:
        return decode_image(_read_bytes(path), declared_size=declared_size)
    except ImageError as error:
        raise ImageFileError(f"{path}: {error}") from None


@dataclass(frozen=True)
class Inspection:
    """The (height, width) that the annotations of a file refer to.

    `is_guess`: EXIF orientation is applied though it keeps the declared size, or none is declared.
    """

    size: tuple[int, int]
    is_guess: bool


def inspect_image(path: str, *, declared_size: tuple[int, int] | None, decode: bool) -> Inspection:
    """What `read_image` will make of a file, from header and end or by decoding it. Raises ImageError."""
    if not decode and (stored := _plain_jpeg_size(path)) is not None:
        fitting_orientation(stored, 1, declared_size)
        return Inspection(stored, is_guess=False)
    content = _read_bytes(path)
    if decode or not content.startswith((_JPEG, _PNG)) or not _has_end(content):
        height, width = _decode(content).shape[:2]
        stored = (height, width)
    else:
        stored = _pil_size(content)
    found = exif_orientation(content)
    used = fitting_orientation(stored, found, declared_size)
    turns = used in (5, 6, 7, 8)
    is_guess = used != 1 and not (turns and stored[0] != stored[1] and declared_size is not None)
    return Inspection(stored[::-1] if turns else stored, is_guess)


def _read_bytes(path: str | Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise _unreadable(error) from None


def _unreadable(error: Exception) -> ImageError:
    if isinstance(error, FileNotFoundError | ValueError | NotADirectoryError):
        return MissingImageError("no such file. Add it, or correct data.root or the file_name.")
    return ImageError(f"cannot be read ({getattr(error, 'strerror', None) or error}).")


def _plain_jpeg_size(path: str) -> tuple[int, int] | None:
    """(height, width) of a complete JPEG without EXIF, from its first and last bytes; else None."""
    try:
        with open(path, "rb", buffering=0) as file:
            head = file.read(_HEAD_BYTES)
            if not head.startswith(_JPEG) or any(mark in head for mark in _EXIF_MARKS):
                return None
            file.seek(-2, os.SEEK_END)
            if file.read(2) != _JPEG_END:
                return None
    except (OSError, ValueError) as error:
        raise _unreadable(error) from None
    at = 2
    while at + 9 <= len(head) and head[at] == 0xFF:
        marker, length = head[at + 1], int.from_bytes(head[at + 2 : at + 4])
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a start of frame
            return int.from_bytes(head[at + 5 : at + 7]), int.from_bytes(head[at + 7 : at + 9])
        at += 2 + length
    return None


def _pil_size(content: bytes) -> tuple[int, int]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content)) as image:
                return image.height, image.width
    except Exception as error:  # PIL raises nearly anything on a broken file
        raise DamagedImageError(_undecodable(error)) from None


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
        raise DamagedImageError("the file is empty.")
    if content.startswith((_JPEG, _PNG)) and _has_end(content) and not _is_animated_png(content):
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
        return content.endswith(_JPEG_END)
    if content.startswith(_PNG):
        return b"IEND" in content[-12:]
    return True


def _is_animated_png(content: bytes) -> bool:
    """Of an animated PNG `cv2.imdecode` gives a frame of the animation, not the picture itself."""
    return content.startswith(_PNG) and b"acTL" in content[:_HEAD_BYTES]


def _decode_strictly(content: bytes) -> np.ndarray:
    """With PIL, which raises on truncated files, and on wrong checksums where asked to verify."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            if content.startswith(_PNG):
                Image.open(io.BytesIO(content)).verify()
            with Image.open(io.BytesIO(content)) as image:
                image.load()
                return _to_rgb(image)
    except Exception as error:  # PIL raises nearly anything on a broken file
        raise DamagedImageError(_undecodable(error)) from None


def _undecodable(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):  # its message names the buffer
        return "is no image of a known format, or cut off."
    return f"cannot be decoded ({error}). The file is truncated or damaged."


def _to_rgb(image: Image.Image) -> np.ndarray:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _grey_to_rgb(np.asarray(image))
    return np.array(image.convert("RGB"))


def _grey_to_rgb(values: np.ndarray) -> np.ndarray:
    """16-bit grey by its high byte, as cv2 does: PIL's own conversion clips it to white."""
    if values.dtype.kind == "f" or values.min(initial=0) < 0 or values.max(initial=0) > 65535:
        raise ImageError("has pixel values outside 0 to 65535. Convert it to 8 or 16 bit.")
    return np.repeat((values.astype(np.uint32) >> 8).astype(np.uint8)[..., None], 3, axis=2)
