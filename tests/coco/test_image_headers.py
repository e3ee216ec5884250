"""What is refused before a decoder sees it: size, format, kind of file."""

from __future__ import annotations

import io
import os
import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps

from detector.coco.image_headers import header_size, is_surely_image, jpeg_frame, readable_endings
from detector.coco.images import (
    ImageError,
    ImageFileError,
    ReadOptions,
    decode_image,
    exif_orientation,
    inspect_image,
    read_image,
)

FORMATS = ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "JPEG2000", "AVIF", "PPM", "TGA", "MPO"]
SMALL = ReadOptions(max_pixels=2000)


def encoded(fmt: str, mode: str = "RGB", *, image: Image.Image | None = None, **options: object) -> bytes:
    if fmt not in Image.SAVE and Image.init() is not None and fmt not in Image.SAVE:
        pytest.skip(f"this Pillow writes no {fmt}")
    buffer = io.BytesIO()
    image = image or Image.new(mode, (56, 40), 7 if mode == "L" else (7, 90, 200))
    image.save(buffer, fmt, **options)
    return buffer.getvalue()


@pytest.fixture
def no_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(*_: object) -> None:
        raise AssertionError("a decoder was asked")

    monkeypatch.setattr(cv2, "imdecode", decode)
    monkeypatch.setattr(ImageFile.ImageFile, "load", decode)


@pytest.mark.usefixtures("no_decoder")
@pytest.mark.parametrize("fmt", FORMATS)
def test_an_image_above_the_limit_meets_no_decoder(fmt: str, tmp_path: Path) -> None:
    content = encoded(fmt)
    with pytest.raises(ImageError, match=r"40 x 56 .*2,240: more than max_image_pixels=2000") as error:
        decode_image(content, declared_size=None, options=SMALL)
    assert "data.max_image_pixels" in str(error.value)
    (tmp_path / "image").write_bytes(content)
    with pytest.raises(ImageError, match="max_image_pixels=2000"):
        inspect_image(str(tmp_path / "image"), declared_size=None, decode=False, options=SMALL)


@pytest.mark.parametrize("fmt", FORMATS)
def test_an_image_at_the_limit_is_read(fmt: str) -> None:
    shown = decode_image(encoded(fmt), declared_size=None, options=ReadOptions(max_pixels=2240))
    assert shown.shape == (40, 56, 3)


@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "TIFF", "WEBP", "BMP"])
def test_pillows_own_limit_does_not_hold(fmt: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is an image above it read without its orientation."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(fmt, exif=exif) if fmt != "BMP" else encoded(fmt)
    assert decode_image(content, declared_size=None).shape[:2] == ((40, 56) if fmt == "BMP" else (56, 40))
    assert exif_orientation(content) == (1 if fmt == "BMP" else 6)
    assert Image.MAX_IMAGE_PIXELS == 100, "it is left as it was"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_the_orientation_is_applied_as_viewers_do(fmt: str, orientation: int) -> None:
    stored = np.zeros((16, 32, 3), np.uint8)
    stored[:8, :16], stored[8:, :16], stored[8:, 16:] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(fmt, image=Image.fromarray(stored), exif=exif)
    image = Image.fromarray(stored)
    image.getexif()[0x0112] = orientation
    upright = np.asarray(ImageOps.exif_transpose(image)).astype(int)
    shown = decode_image(content, declared_size=None)
    assert shown.shape == upright.shape
    np.testing.assert_allclose(shown[4::8, 4::8], upright[4::8, 4::8], atol=40)  # inside the quarters


@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "WEBP", "JPEG2000"])
def test_the_size_by_the_header(fmt: str) -> None:
    assert header_size(encoded(fmt)) == (40, 56)
    assert header_size(encoded(fmt)[:18]) is None or fmt == "WEBP"


@pytest.mark.parametrize("options", [{"lossless": True}, {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"}])
def test_the_size_of_other_forms_of_webp(options: dict[str, Any]) -> None:
    assert header_size(encoded("WEBP", **options)) == (40, 56)


def test_a_code_stream_larger_than_its_box_says_is_refused() -> None:
    content = bytearray(encoded("JPEG2000"))
    at = content.index(b"jp2c\xff\x4f\xff\x51") + 4
    content[at + 8 : at + 16] = (60_000).to_bytes(4) * 2
    with pytest.raises(ImageError, match="60000 x 60000"):
        decode_image(bytes(content), declared_size=None)


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.int32])
def test_a_tiff_of_colors_that_are_not_read_is_not_called_damaged(kind: type) -> None:
    content = bytes(cv2.imencode(".tiff", np.zeros((4, 4, 3), kind))[1])
    with pytest.raises(ImageError, match="is a TIFF in a form that is not read"):
        decode_image(content, declared_size=None)


def test_fill_bytes_and_segments_before_the_frame() -> None:
    content = encoded("JPEG", progressive=True, comment=b"\xff\xc0" * 40)
    assert jpeg_frame(content) == (40, 56, 8)
    assert jpeg_frame(content[:2] + b"\xff\xff\xff" + content[2:]) == (40, 56, 8)
    assert jpeg_frame(b"\xff\xd8\xff") is None


# --- formats


def _marked(start: bytes) -> bytes:
    return start + bytes(600)


FOREIGN = {
    "PostScript": _marked(b"%!PS-Adobe-3.0 EPSF-3.0\n"),
    "PDF": _marked(b"%PDF-1.7"),
    "PSD": _marked(b"8BPS\0\1"),
    "HEIF": _marked(b"\0\0\0\x18ftypheic"),
    "JPEG XL": _marked(b"\xff\x0a"),
    "DICOM": bytes(128) + _marked(b"DICM"),
    "SVG": _marked(b"<svg xmlns='x'>"),
    "web page": _marked(b"<!DOCTYPE html>"),
    "git lfs pull": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
}


@pytest.mark.parametrize(("name", "content"), FOREIGN.items(), ids=FOREIGN.keys())
def test_a_file_of_another_format_is_called_so_whatever_its_name(
    name: str, content: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageFileError, match=name) as error:
        read_image(path, declared_size=None)
    assert "damaged" not in str(error.value)


def test_formats_that_run_programs_are_no_images() -> None:
    assert {".jpg", ".jfif", ".png", ".gif", ".tif", ".webp", ".jp2", ".pgm", ".mpo"} <= readable_endings()
    assert not {".eps", ".ps", ".pdf", ".wmf", ".psd"} & readable_endings()


# --- kinds of files


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    os.mkfifo(path)
    texts: list[str] = []

    def read() -> None:
        for call in (
            lambda: read_image(path, declared_size=None),
            lambda: inspect_image(str(path), declared_size=None, decode=False),
        ):
            with pytest.raises((ImageError, ImageFileError)) as error:
                call()
            texts.append(str(error.value))
        assert not is_surely_image(path)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(5)
    assert not thread.is_alive(), "it waits for somebody who writes"
    assert ["a pipe, not a regular file" in text for text in texts] == [True, True]


@pytest.mark.parametrize(("path", "kind"), [("/dev/zero", "a device"), (".", "a folder")])
def test_what_is_no_regular_file_is_not_opened(path: str, kind: str) -> None:
    with pytest.raises(ImageFileError, match=f"{kind}, not a regular file"):
        read_image(Path(path), declared_size=None)


def test_a_jpeg_of_12_bits_is_called_one() -> None:
    content = bytearray(encoded("JPEG"))
    at = content.index(b"\xff\xc0")
    content[at + 4] = 12
    with pytest.raises(ImageError, match="JPEG of 12 bits"):
        decode_image(bytes(content), declared_size=None)


def test_limits_hold_in_threads_at_once() -> None:
    before = Image.MAX_IMAGE_PIXELS
    content = encoded("GIF")
    threads = [
        threading.Thread(target=lambda: [decode_image(content, declared_size=None) for _ in range(30)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert before == Image.MAX_IMAGE_PIXELS
    assert np.asarray(decode_image(content, declared_size=None)).shape == (40, 56, 3)
