"""The properties of an image file known before its pixels are decoded: kind, format and size."""

from __future__ import annotations

import io
import os
import re
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from detector.coco.image_errors import DamagedImageError, ImageError, MissingImageError

# The decoders that may see a file. Pillow's others run programs (EPS), or are not for photographs.
# TGA is last: it has no signature.
_FORMATS = (
    "JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "JPEG2000", "AVIF", "PPM", "QOI", "TGA",
)  # fmt: skip
MAX_IMAGE_PIXELS = 250_000_000

JPEG, PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_WEBP = re.compile(rb"RIFF.{4}WEBP(VP8[ LX]).{4}", re.DOTALL)
_JPEG_2000 = (b"\x00\x00\x00\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")
_CODESTREAM = re.compile(rb"(?:\A|jp2c(?:.{8})?)(\xff\x4f\xff\x51)", re.DOTALL)
# Signatures that are certainly of a readable image. Formats with short ones are recognized by the extension.
_SURE_MARKS = (JPEG, PNG, b"GIF87a", b"GIF89a", b"qoif", *_JPEG_2000)
_SURE_FORMS = re.compile(rb"RIFF.{4}WEBP|.{4}ftyp(avif|avis)", re.DOTALL)
_FOREIGN = (
    (re.compile(rb".{4}ftyp(hei|hev|mif1|msf1)", re.DOTALL), "HEIF (HEIC)"),
    (re.compile(rb"\xff\x0a|\x00\x00\x00\x0cJXL "), "JPEG XL"),
    (re.compile(rb".{128}DICM", re.DOTALL), "DICOM"),
    (re.compile(rb"%!PS|\xc5\xd0\xd3\xc6"), "PostScript (EPS)"),
    (re.compile(rb"%PDF"), "PDF"),
    (re.compile(rb"8BPS"), "Photoshop (PSD)"),
    (re.compile(rb"SIMPLE  ="), "FITS"),
    (re.compile(rb"\x89HDF"), "HDF5"),
    (re.compile(rb"\x93NUMPY"), "NumPy"),
    (re.compile(rb"\x00\x00\x01\x00|icns"), "icon"),
    (re.compile(rb"\s*(<\?xml[^>]*>\s*)?<svg", re.IGNORECASE), "SVG"),
    (re.compile(rb".{4}ftyp", re.DOTALL), "video"),
)
_LFS_POINTER = re.compile(rb"version https://git-lfs|.?/?annex/objects/")
_WEB_PAGE = re.compile(rb"\s*(<!doctype html|<html)", re.IGNORECASE)


def read_bytes(path: str | Path) -> bytes:
    """Read a regular file. Raises ImageError for anything else, as it may block or never end."""
    try:
        require_regular(path)
        with open(path, "rb") as file:
            return file.read()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise unreadable(error) from None
    except MemoryError:
        raise ImageError("cannot be read: the file does not fit into memory.") from None


def require_regular(path: str | Path) -> None:
    """Raise ImageError for a folder, pipe, socket or device, OSError if nothing is there.

    Links count as their target, wherever it lies.
    """
    mode = os.stat(path).st_mode
    if stat.S_ISREG(mode):
        return
    kinds = {
        "a folder": stat.S_ISDIR(mode),
        "a pipe": stat.S_ISFIFO(mode),
        "a socket": stat.S_ISSOCK(mode),
    }
    kind = next((name for name, holds in kinds.items() if holds), "a device")
    raise ImageError(f"cannot be read: it is {kind}, not a regular file.")


def unreadable(error: Exception) -> ImageError:
    """Return the ImageError for a file that cannot be opened."""
    if isinstance(error, FileNotFoundError | ValueError | NotADirectoryError):
        return MissingImageError("no such file.")
    return ImageError(f"cannot be read ({getattr(error, 'strerror', None) or error}).")


def require_pixels(size: tuple[int, int], *, limit: int) -> None:
    """Raise ImageError if an image of `size` (height, width) has more pixels than `limit`."""
    height, width = size
    if height * width > limit:
        raise ImageError(
            f"is {height} x {width} pixels (height x width), which are {height * width:,}: more than "
            f"max_image_pixels={limit} allows. Scale it down or cut it into tiles, or raise the limit if the "
            "file is to be trusted: data.max_image_pixels in training, max_image_pixels in predict."
        )


def header_size(content: bytes) -> tuple[int, int] | None:
    """Return (height, width) from the header of a JPEG, PNG, WebP or JPEG 2000; None for other files."""
    if content.startswith(JPEG):
        frame = jpeg_frame(content)
        return None if frame is None else frame[:2]
    if content.startswith(PNG):
        return _png_size(content)
    if match := _WEBP.match(content):
        return _webp_size(content, match[1])
    if content.startswith(_JPEG_2000):
        # The boxes around the code stream may hold another size, but the decoder uses that of the stream.
        sizes = [_codestream_size(content, match.start(1)) for match in _CODESTREAM.finditer(content)]
        return max(sizes, key=lambda size: size[0] * size[1], default=None)
    return None


def jpeg_frame(content: bytes) -> tuple[int, int, int] | None:
    """Return height, width and bits per sample of the first start of frame, found as in libjpeg, or None."""
    at = 2
    while True:
        at = content.find(b"\xff", at)
        while content[at : at + 1] == b"\xff":
            at += 1
        if at <= 0 or at + 8 > len(content):
            return None
        marker = content[at]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            number = int.from_bytes
            return number(content[at + 4 : at + 6]), number(content[at + 6 : at + 8]), content[at + 3]
        if marker in (0xD9, 0xDA):  # the end, or the start of compressed data
            return None
        has_no_length = marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8
        at += 1 if has_no_length else 1 + int.from_bytes(content[at + 1 : at + 3])


def png_depth(content: bytes) -> int:
    """Return the bits per sample of a PNG."""
    return content[24] if len(content) > 24 else 0


def _png_size(content: bytes) -> tuple[int, int] | None:
    if content[12:16] != b"IHDR" or len(content) < 24:
        return None
    return int.from_bytes(content[20:24]), int.from_bytes(content[16:20])


def _webp_size(content: bytes, kind: bytes) -> tuple[int, int] | None:
    body = content[20:30]
    if kind == b"VP8X":
        return int.from_bytes(body[7:10], "little") + 1, int.from_bytes(body[4:7], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    return int.from_bytes(body[8:10], "little") & 0x3FFF, int.from_bytes(body[6:8], "little") & 0x3FFF


def _codestream_size(content: bytes, at: int) -> tuple[int, int]:
    right, bottom, left, top = (int.from_bytes(content[at + k : at + k + 4]) for k in (8, 12, 16, 20))
    return max(0, bottom - top), max(0, right - left)


def codestream_depth(content: bytes) -> int:
    """Return the bits per sample of the first component of a JPEG 2000; 0 for other files."""
    match = _CODESTREAM.search(content) if content.startswith(_JPEG_2000) else None
    at = match.start(1) + 42 if match else len(content)
    return (content[at] & 0x7F) + 1 if at < len(content) else 0


@contextmanager
def open_image(content: bytes, *, max_pixels: int) -> Iterator[Image.Image]:
    """Open an image of an allowed format and size in Pillow, without decoding. Raises ImageError.

    Errors inside the context, such as in decoding, become ImageError, too.
    """
    try:
        if (size := header_size(content)) is not None:
            require_pixels(size, limit=max_pixels)
        with _without_pillows_limit(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # broken EXIF blocks are ignored, as in viewers
            with Image.open(io.BytesIO(content), formats=_formats()) as image:
                require_pixels((image.height, image.width), limit=max_pixels)
                if image.format == "TIFF":
                    require_pixels(_tiff_tile(image), limit=max_pixels)
                yield image
    except ImageError:
        raise
    except Exception as error:  # PIL raises nearly anything on a broken file
        raise _explained(error, content) from None


def _tiff_tile(image: Image.Image) -> tuple[int, int]:
    """Return the (height, width) of the tiles of a TIFF, each decoded as a whole; 0 without tiles."""
    tags = image.tag_v2  # type: ignore[attr-defined]  # of TiffImageFile
    return int(tags.get(323, 0)), int(tags.get(322, 0))


@cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)  # AVIF depends on Pillow's version


@cache
def readable_endings() -> frozenset[str]:
    """Return the file name extensions (.jpg, lower case) of the readable formats."""
    names = {*_formats(), "MPO"}  # MPO is opened as a JPEG
    return frozenset(end for end, name in Image.registered_extensions().items() if name in names)


def is_surely_image(path: Path) -> bool:
    """Return whether the first bytes of a regular file are those of an image, whatever its name."""
    try:
        require_regular(path)
        with path.open("rb", buffering=0) as file:
            head = file.read(16)
    except (OSError, ValueError, ImageError):
        return False
    return head.startswith(_SURE_MARKS) or _SURE_FORMS.match(head) is not None


_limit_lock = threading.Lock()
_limit_state: dict[str, int | None] = {"users": 0, "saved": None}


@contextmanager
def _without_pillows_limit() -> Iterator[None]:
    """Suspend Pillow's own limit, a global of the process, while `max_pixels` applies."""
    with _limit_lock:
        if not _limit_state["users"]:
            _limit_state["saved"], Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        _limit_state["users"] = (_limit_state["users"] or 0) + 1
    try:
        yield
    finally:
        with _limit_lock:
            _limit_state["users"] = (_limit_state["users"] or 0) - 1
            if not _limit_state["users"]:
                Image.MAX_IMAGE_PIXELS = _limit_state["saved"]


def _explained(error: Exception, content: bytes) -> ImageError:
    if isinstance(error, MemoryError):
        return ImageError("cannot be decoded: it does not fit into memory.")
    frame = jpeg_frame(content) if content.startswith(JPEG) else None
    if frame is not None and frame[2] != 8:
        return ImageError(f"is a JPEG of {frame[2]} bits a sample, which is not read. Convert it to a PNG.")
    if isinstance(error, UnidentifiedImageError):  # its message names the buffer
        return _unknown_format(content)
    return DamagedImageError(f"cannot be decoded ({error}). The file is truncated or damaged.")


def _unknown_format(content: bytes) -> ImageError:
    head = content[:512]
    if _LFS_POINTER.match(head):
        return ImageError("is a pointer to a file that is not here. Fetch it (git lfs pull, git annex get).")
    if _WEB_PAGE.match(head):
        return ImageError("is a web page, not an image. Download the image itself.")
    for mark, name in _FOREIGN:
        if mark.match(head):
            return ImageError(f"is a file of the format {name}, which is not read. Convert it to a PNG.")
    if head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return ImageError(
            "is a TIFF in a form that is not read (colors of floating-point, signed or 32-bit values), or "
            "cut off. Convert it to a 16-bit PNG, or to a TIFF of one channel."
        )
    return DamagedImageError("is no image of a known format, or cut off.")
