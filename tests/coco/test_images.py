"""Decoding: orientation, truncation, odd formats."""

import io
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from detector.coco.images import ImageError, ImageFileError, decode_image, inspect_image, read_image
from tests.shared import shared_path

# What a viewer does to the stored pixels, as PIL names it.
_STORE = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,  # stored so that turning it clockwise shows the image
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def sample_image(height: int = 40, width: int = 56) -> np.ndarray:
    """Smooth, and different under every rotation and mirror."""
    y, x = np.mgrid[:height, :width]
    channels = [x * 4, y * 6, (x + y) % 100]
    return np.stack(channels, axis=-1).astype(np.uint8)


def encode(array: np.ndarray, fmt: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, fmt, **options)
    return buffer.getvalue()


def with_orientation(orientation: int, fmt: str = "PNG", **options: Any) -> bytes:
    stored = Image.fromarray(sample_image())
    if _STORE[orientation] is not None:
        stored = stored.transpose(cast(Image.Transpose, _STORE[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    stored.save(buffer, fmt, exif=exif, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_where_it_fits(orientation: int) -> None:
    shown = decode_image(with_orientation(orientation), declared_size=(40, 56))
    np.testing.assert_array_equal(shown, sample_image())


@pytest.mark.parametrize("fmt", ["JPEG", "WEBP"])
def test_exif_orientation_is_read_from_every_format(fmt: str) -> None:
    shown = decode_image(with_orientation(6, fmt, quality=100), declared_size=(40, 56))
    assert np.abs(shown.astype(int) - sample_image()).mean() < 4


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_exif_orientation_is_not_applied_where_only_the_stored_size_fits(orientation: int) -> None:
    content = with_orientation(orientation)
    stored = np.array(Image.open(io.BytesIO(content)))
    np.testing.assert_array_equal(decode_image(content, declared_size=(56, 40)), stored)


def test_without_a_declared_size_an_image_is_as_viewers_show_it() -> None:
    np.testing.assert_array_equal(decode_image(with_orientation(8), declared_size=None), sample_image())


def test_a_size_that_fits_neither_way_names_both() -> None:
    with pytest.raises(ImageError, match=r"is 56 x 40 .*\(40 x 56 as .*say 41 x 56"):
        decode_image(with_orientation(6), declared_size=(41, 56))


@pytest.mark.parametrize("decode", [False, True])
@pytest.mark.parametrize("fmt", ["PNG", "JPEG"])
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_inspection_agrees_with_decoding(tmp_path: Path, orientation: int, fmt: str, decode: bool) -> None:
    path = tmp_path / "image"
    path.write_bytes(with_orientation(orientation, fmt))
    inspection = inspect_image(str(path), declared_size=(40, 56), decode=decode)
    assert inspection.size == read_image(path, declared_size=(40, 56)).shape[:2]
    assert inspection.is_guess == (orientation == 3)


@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF"])
@pytest.mark.parametrize("part", [0.0, 0.02, 0.3, 0.95])
def test_a_truncated_file_is_an_error_in_every_format(tmp_path: Path, fmt: str, part: float) -> None:
    path = tmp_path / "image"
    content = encode(sample_image(), fmt)
    path.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(ValueError, match=r"truncated|cut off|empty") as error:
        read_image(path, declared_size=None)
    assert str(path) in str(error.value)
    with pytest.raises(ImageError):
        inspect_image(str(path), declared_size=None, decode=False)


def test_padding_after_the_end_of_a_jpeg_is_no_truncation() -> None:
    content = encode(sample_image(), "JPEG")
    np.testing.assert_allclose(
        decode_image(content + bytes(100), declared_size=None).astype(int),
        decode_image(content, declared_size=None).astype(int),
        atol=3,
    )


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere\.jpg: no such file"):
        read_image(tmp_path / "nowhere.jpg", declared_size=None)


@pytest.mark.parametrize("fmt", ["PNG", "TIFF"])
def test_16_bit_gray_becomes_its_high_byte(fmt: str) -> None:
    high = sample_image()[..., 1]
    deep = high.astype(np.uint16) * 256 + 200
    shown = decode_image(encode(deep, fmt), declared_size=None)
    np.testing.assert_array_equal(shown, np.repeat(high[..., None], 3, axis=2))


def test_gray_palette_and_alpha_become_rgb() -> None:
    color = Image.fromarray(sample_image())
    alpha = color.copy()
    alpha.putalpha(Image.fromarray(sample_image()[..., 0]))
    for image in (color.convert("L"), color.convert("P"), alpha, color.convert("LA"), color.convert("1")):
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        expected = np.array(image.convert("RGB"))
        np.testing.assert_array_equal(decode_image(buffer.getvalue(), declared_size=None), expected)


def test_cmyk_jpeg_becomes_rgb() -> None:
    buffer = io.BytesIO()
    Image.fromarray(sample_image()).convert("CMYK").save(buffer, "JPEG", quality=100)
    shown = decode_image(buffer.getvalue(), declared_size=None)
    assert np.abs(shown.astype(int) - sample_image()).mean() < 6


@pytest.mark.parametrize(
    "values", [np.linspace(-1, 2.5, 16, dtype=np.float32), np.arange(-8, 8, dtype=np.int32)]
)
def test_values_without_a_white_of_their_own_need_a_range(values: np.ndarray) -> None:
    with pytest.raises(ImageError, match=r"data\.image_range=\[-[18],[72]") as error:
        decode_image(encode(values.reshape(4, 4), "TIFF"), declared_size=None)
    assert "damaged" not in str(error.value)


# --- files nobody here wrote

FIXTURES = "fixtures/images"
UPRIGHT = [f"hopper_orientation_{i}.jpg" for i in (2, 3, 4, 6, 8)] + ["hopper_orientation_6.webp"]
NOT_IMAGES = ["broken.png", "dummy.container", "zero_width.gif", "zero_height.j2k", "truncated_jpeg.jpg"]
BROKEN_EXIF = [
    "hopper_bad_exif.jpg",
    "invalid-exif.jpg",
    "invalid-exif-without-x-resolution.jpg",
    "exif_typeerror.jpg",
    "broken_exif_dpi.jpg",
    "no-dpi-in-exif.jpg",
    "exif-ifd-offset.jpg",
    "junk_jpeg_header.jpg",
]
ODD_MODES = [
    "hopper_gray.jpg",
    "mode_grayscale.png",
    "mode_grayscale_alpha.png",
    "pil123p.png",
    "pil123rgba.png",
    "transparent.png",
    "hopper.gif",
    "hopper.bmp",
    "hopper_idat_after_image_end.png",
    "hopper_16bit_qtables.jpg",
]


@pytest.mark.parametrize("name", UPRIGHT)
def test_real_photos_look_like_the_upright_one(name: str) -> None:
    folder = shared_path(FIXTURES)
    upright = read_image(folder / "hopper.jpg", declared_size=None).astype(int)
    turned = read_image(folder / name, declared_size=None).astype(int)
    assert np.abs(turned - upright).mean() < 5


@pytest.mark.parametrize(
    ("name", "shown"),
    [("Portrait_6", (1800, 1200)), ("Portrait_8", (1800, 1200)), ("Landscape_5", (1200, 1800))],
)
def test_real_photos_have_the_declared_size(name: str, shown: tuple[int, int]) -> None:
    path = shared_path(FIXTURES) / f"{name}.jpg"
    assert read_image(path, declared_size=shown).shape[:2] == shown
    assert read_image(path, declared_size=shown[::-1]).shape[:2] == shown[::-1]


@pytest.mark.parametrize("name", NOT_IMAGES)
def test_what_is_no_image_is_an_error_that_names_it(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        read_image(shared_path(FIXTURES) / name, declared_size=None)


@pytest.mark.parametrize("name", BROKEN_EXIF + ODD_MODES)
def test_odd_but_sound_files_look_as_pil_shows_them(name: str) -> None:
    path = shared_path(FIXTURES) / name
    expected = np.array(Image.open(path).convert("RGB")).astype(int)
    assert np.abs(read_image(path, declared_size=None).astype(int) - expected).mean() < 1.5


@pytest.mark.parametrize("name", ["imageio16.png", "mode_16bit.png", "16_bit_binary_pgm.tiff"])
def test_16_bit_files_are_not_clipped(name: str) -> None:
    shown = read_image(shared_path(FIXTURES) / name, declared_size=None)
    assert shown.dtype == np.uint8
    assert shown.shape[2] == 3
    assert 40 < shown.mean() < 160  # PIL's own conversion of 16-bit gray comes out white


def test_a_file_that_is_no_image_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.jpg"
    path.write_text("no image")
    with pytest.raises(ImageFileError) as error:
        read_image(path, declared_size=None)
    assert str(error.value) == f"{path}: is no image of a known format, or cut off."
