"""The reading of image files into arrays: EXIF orientation, truncation, odd formats, more than 8 bits."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from detector.coco.image_errors import DamagedImageError, ImageError, ImageFileError, MissingImageError
from detector.coco.image_headers import (
    JPEG,
    MAX_IMAGE_PIXELS,
    PNG,
    codestream_depth,
    header_size,
    jpeg_frame,
    open_image,
    png_depth,
    read_bytes,
    require_pixels,
    require_regular,
    unreadable,
)
from detector.coco.image_values import ImageRange, ValueRange, measure, require_full_range, to_8_bits

__all__ = [
    "DamagedImageError",
    "ImageError",
    "ImageFileError",
    "ImageNotes",
    "Inspection",
    "MissingImageError",
    "ReadOptions",
    "decode_image",
    "inspect_image",
    "read_image",
    "read_image_with_notes",
]

# EXIF orientation -> the transform of the stored rows and columns that turns the image upright.
_UPRIGHT = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}
_INVERSE = {6: 8, 8: 6}  # the others undo themselves
_JPEG_END = b"\xff\xd9"
_HEAD_BYTES = 4096  # holds the size of nearly every JPEG without EXIF
_EXIF_MARKS = (b"Exif\x00", b"eXIf", b"EXIF")


@dataclass(frozen=True)
class ReadOptions:
    """The options for reading image files.

    `image_range`: the values of images of more than 8 bits that become black and white; "full" is the range
    of their format. Images of 8 bits are not changed. `max_pixels`: larger images are refused by their
    header, before a decoder sees them.
    """

    image_range: ImageRange | None = "full"
    max_pixels: int = MAX_IMAGE_PIXELS


@dataclass(frozen=True)
class ImageNotes:
    """Notes on a file beside its pixels.

    `values` is the range of an image of more than 8 bits per sample, else None. `has_frames` tells whether
    there are frames or pages after the first, which alone is read.
    """

    values: ValueRange | None
    has_frames: bool


def read_image(
    path: Path,
    *,
    declared_size: tuple[int, int] | None,
    options: ReadOptions = ReadOptions(),
) -> np.ndarray:
    """Read an image as contiguous uint8 RGB (height, width, 3), with the size that its annotations refer to.

    `declared_size` is the (height, width) in the annotation file, None if it has none. EXIF orientation is
    applied if the rotated size is the declared one; if both fit (squares, half turns, mirrors) or none is
    declared, it is applied, as in every viewer. Raises ImageFileError, naming the file and the fix, if the
    file is missing, truncated, not an image, too large, or of another size.
    """
    return read_image_with_notes(path, declared_size=declared_size, options=options)[0]


def read_image_with_notes(
    path: Path, *, declared_size: tuple[int, int] | None, options: ReadOptions
) -> tuple[np.ndarray, ImageNotes]:
    """Read an image as `read_image` does, and return it with notes on the file."""
    try:
        content = read_bytes(path)
        decoded = _decode(content, options)
        return _upright(decoded, content, declared_size=declared_size, options=options), decoded.notes
    except ImageError as error:
        raise ImageFileError(f"{path}: {error}") from None


@dataclass(frozen=True)
class Inspection:
    """The (height, width) that the annotations of a file refer to, with notes on the file.

    `is_guess`: EXIF orientation is applied though it keeps the declared size, or none is declared.
    """

    size: tuple[int, int]
    is_guess: bool
    notes: ImageNotes = ImageNotes(values=None, has_frames=False)


def inspect_image(
    path: str,
    *,
    declared_size: tuple[int, int] | None,
    decode: bool,
    options: ReadOptions = ReadOptions(),
    measure_values: bool = False,
) -> Inspection:
    """Predict the result of `read_image`, from a file's header and end or by decoding. Raises ImageError.

    With `measure_values` an image of more than 8 bits is decoded to measure its values.
    """
    if not decode and (stored := _plain_jpeg_size(path, options)) is not None:
        fitting_orientation(stored, 1, declared_size)
        return Inspection(stored, is_guess=False)
    content = read_bytes(path)
    stored = None if decode else _complete_size(content, options)
    notes = ImageNotes(values=None, has_frames=_is_animated_png(content))
    if stored is None or (measure_values and content.startswith(PNG) and png_depth(content) > 8):
        decoded = _decode(content, options)
        stored, notes = decoded.size, decoded.notes
        if options.image_range is not None:
            decoded.require_range(options.image_range)
    orientation = exif_orientation(content, options)
    used = fitting_orientation(stored, orientation, declared_size)
    turns = used in (5, 6, 7, 8)
    is_guess = used != 1 and not (turns and stored[0] != stored[1] and declared_size is not None)
    return Inspection(stored[::-1] if turns else stored, is_guess, notes)


def _plain_jpeg_size(path: str, options: ReadOptions) -> tuple[int, int] | None:
    """Return the (height, width) of a complete JPEG without EXIF from its first and last bytes, or None."""
    try:
        require_regular(path)
        with open(path, "rb", buffering=0) as file:
            head = file.read(_HEAD_BYTES)
            if not head.startswith(JPEG) or any(mark in head for mark in _EXIF_MARKS):
                return None
            file.seek(-2, os.SEEK_END)
            if file.read(2) != _JPEG_END:
                return None
    except (OSError, ValueError) as error:
        raise unreadable(error) from None
    frame = jpeg_frame(head)
    if frame is None or frame[2] != 8:
        return None
    require_pixels(frame[:2], limit=options.max_pixels)
    return frame[:2]


def _complete_size(content: bytes, options: ReadOptions) -> tuple[int, int] | None:
    """Return the (height, width) in the header of a JPEG or PNG that has its end; None for other files."""
    if not content.startswith((JPEG, PNG)) or not _has_end(content):
        return None
    with open_image(content, max_pixels=options.max_pixels) as image:
        return image.height, image.width


def decode_image(
    content: bytes,
    *,
    declared_size: tuple[int, int] | None,
    options: ReadOptions = ReadOptions(),
) -> np.ndarray:
    """Decode the bytes of a file as `read_image` does. Raises ImageError."""
    return _upright(_decode(content, options), content, declared_size=declared_size, options=options)


def _upright(
    decoded: _Decoded, content: bytes, *, declared_size: tuple[int, int] | None, options: ReadOptions
) -> np.ndarray:
    orientation = fitting_orientation(decoded.size, exif_orientation(content, options), declared_size)
    assert options.image_range is not None, "files are inspected only, until the range is known"
    rgb = decoded.rgb(options.image_range)
    return np.ascontiguousarray(_UPRIGHT[orientation](rgb) if orientation in _UPRIGHT else rgb)


def fitting_orientation(stored: tuple[int, int], orientation: int, declared: tuple[int, int] | None) -> int:
    """Return the EXIF orientation to apply: `orientation`, or 1 (none) if only the `stored` size fits.

    Raises ImageError if neither size is the declared one.
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


def exif_orientation(content: bytes, options: ReadOptions = ReadOptions()) -> int:
    """Return the EXIF orientation, 1 to 8; 1 if there is no readable one.

    AVIF holds it beside its pixels (irot, imir), TIFF in a tag, others in an EXIF block.
    """
    if not (_is_tiff(content) or content[4:8] == b"ftyp" or any(mark in content for mark in _EXIF_MARKS)):
        return 1
    try:
        with open_image(content, max_pixels=options.max_pixels) as image:
            orientation = image.getexif().get(0x0112, 1)
    except ImageError:  # a broken EXIF block; the pixels were decoded or will be
        return 1
    return orientation if orientation in _UPRIGHT else 1


@dataclass(frozen=True)
class _Decoded:
    """The pixels as stored, without EXIF orientation applied.

    They are uint8 RGB (H, W, 3), or values of more bits, (H, W) or (H, W, 3), in a format up to `white`.
    """

    pixels: np.ndarray
    white: int | None
    has_frames: bool
    is_high_byte: bool = False  # of 16-bit color that no decoder reads whole

    @property
    def size(self) -> tuple[int, int]:
        height, width = self.pixels.shape[:2]
        return height, width

    @cached_property
    def notes(self) -> ImageNotes:
        is_deep = self.pixels.dtype != np.uint8
        return ImageNotes(measure(self.pixels, white=self.white) if is_deep else None, self.has_frames)

    def require_range(self, image_range: ImageRange) -> None:
        """Raise ImageError if the values cannot be read with `image_range`."""
        if self.is_high_byte and image_range != "full":
            raise ImageError(
                "has colors of more than 8 bits in a form of which only the high bits are read. Convert it "
                "to a 16-bit PNG, or pass data.image_range=full."
            )
        if image_range == "full" and (values := self.notes.values) is not None:
            require_full_range(values)

    def rgb(self, image_range: ImageRange) -> np.ndarray:
        self.require_range(image_range)
        if self.pixels.dtype == np.uint8:
            return self.pixels
        return to_8_bits(self.pixels, white=self.white, image_range=image_range)


def _decode(content: bytes, options: ReadOptions) -> _Decoded:
    if not content:
        raise DamagedImageError("the file is empty.")
    is_whole = content.startswith((JPEG, PNG)) and _has_end(content) and not _is_animated_png(content)
    size = header_size(content) if is_whole else None
    if size is not None:
        require_pixels(size, limit=options.max_pixels)
        if (pixels := _decode_by_cv2(content)) is not None:
            return _Decoded(pixels, white=65535 if pixels.dtype == np.uint16 else None, has_frames=False)
    return _decode_strictly(content, options)


def _decode_by_cv2(content: bytes) -> np.ndarray | None:
    """Decode to RGB of 8 or 16 bits as stored; return None if cv2 cannot."""
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        decoded = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error:
        return None
    return None if decoded is None else cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)


def _has_end(content: bytes) -> bool:
    """Return whether the file ends as its format requires: cv2 silently decodes cut-off JPEGs half gray."""
    if content.startswith(JPEG):
        # Compressed data cannot contain the end marker. A file with padding after the end goes to PIL.
        return content.endswith(_JPEG_END)
    if content.startswith(PNG):
        return b"IEND" in content[-12:]
    return True


def _is_animated_png(content: bytes) -> bool:
    """Return whether it is an animated PNG, of which cv2 decodes an animation frame, not the image itself."""
    return content.startswith(PNG) and b"acTL" in content[:_HEAD_BYTES]


def _is_tiff(content: bytes) -> bool:
    return content.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"))


def _decode_strictly(content: bytes, options: ReadOptions) -> _Decoded:
    """Decode with PIL, which raises on truncated files and, when verifying, on wrong checksums."""
    if content.startswith(PNG):
        with open_image(content, max_pixels=options.max_pixels) as image:
            image.verify()
    with open_image(content, max_pixels=options.max_pixels) as image:
        orientation = image.getexif().get(0x0112, 1) if image.format == "TIFF" else 1
        bits = _bits(image, content)
        has_frames = (
            getattr(image, "is_animated", False) and image.format != "MPO"
        )  # the other frames of an MPO are previews
        image.load()
        if image.mode in ("I", "F") or image.mode.startswith("I;16"):
            pixels = np.asarray(image).astype(np.asarray(image).dtype.newbyteorder("="))
            white = _white(pixels, bits if image.format == "TIFF" else 16)  # others are stretched to 16 bits
        else:
            pixels, white = np.array(image.convert("RGB")), None
    if orientation in _UPRIGHT:  # PIL turns a TIFF by itself
        pixels = _UPRIGHT[_INVERSE.get(orientation, orientation)](pixels)
    if bits <= 8 or pixels.dtype != np.uint8:
        return _Decoded(pixels, white, has_frames)
    whole = _decode_by_cv2(content) if _is_tiff(content) and orientation == 1 else None
    if whole is None or whole.dtype != np.uint16 or not np.array_equal(whole >> 8, pixels):
        return _Decoded(pixels, None, has_frames, is_high_byte=True)
    return _Decoded(whole, 65535, has_frames)


def _bits(image: Image.Image, content: bytes) -> int:
    """Return the bits per sample in formats that hold colors of more than 8 bits."""
    if image.format == "TIFF":
        bits = image.tag_v2.get(258, (1,))  # type: ignore[attr-defined]  # of TiffImageFile
        return max(bits) if isinstance(bits, tuple) else int(bits)
    return png_depth(content) if image.format == "PNG" else codestream_depth(content)


def _white(pixels: np.ndarray, bits: int) -> int | None:
    """Return the highest value that the format of gray values holds; None if it does not define white."""
    if pixels.dtype == np.uint16:
        return 4095 if bits == 12 else 65535
    is_16_bit = pixels.dtype.kind in "iu" and pixels.min(initial=0) >= 0 and pixels.max(initial=0) <= 65535
    return 65535 if is_16_bit else None
