"""Images of more than 8 bits: what becomes black and white, and what is said of it."""

from __future__ import annotations

import io
import json
import logging
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from detector.coco.image_values import ValueRange, find_range, range_note, to_8_bits
from detector.coco.images import ImageError, ReadOptions, decode_image
from detector.coco.reader import read_coco
from detector.data.datamodule import DetectionDataModule
from detector.data.transforms import ImageSize
from tests.coco.small_coco import valid, write_dataset
from tests.shared import shared_path


def values_of(low: float, high: float, white: int | None) -> ValueRange:
    return ValueRange(float(low), float(high), (low + high) / 2, white)


def floats(image_range: Any) -> Any:
    return image_range if image_range == "full" else tuple(map(float, image_range))


RAMP = np.arange(16, dtype=np.uint16).reshape(4, 4)


def encoded(values: np.ndarray, fmt: str) -> bytes:
    if values.ndim == 3:
        return bytes(cv2.imencode(f".{fmt.lower()}", values)[1])
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, fmt)
    return buffer.getvalue()


def shown(content: bytes, image_range: Any = "full") -> np.ndarray:
    return decode_image(
        content,
        declared_size=None,
        options=ReadOptions(floats(image_range)),
    )


@pytest.mark.parametrize("fmt", ["PNG", "TIFF"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_range_spreads_its_values_from_black_to_white(fmt: str, channels: int) -> None:
    values = RAMP * 273  # 12 bits in 16
    values = values if channels == 1 else np.repeat(values[..., None], 3, axis=2)
    content = encoded(values, fmt)
    expected = np.repeat((RAMP * 17).astype(np.uint8)[..., None], 3, axis=2)
    np.testing.assert_array_equal(shown(content, (0, 4095)), expected)
    assert shown(content).max() == 15
    assert shown(content, (273, 546)).tolist()[0][0] == [0, 0, 0]
    assert shown(content, (273, 546)).max() == 255


def test_images_of_8_bits_are_as_they_are() -> None:
    content = encoded(RAMP.astype(np.uint8), "PNG")
    np.testing.assert_array_equal(shown(content, (0, 4095)), shown(content))


def test_floats_are_read_by_a_range_and_nan_is_black() -> None:
    values = np.linspace(-1, 1, 16, dtype=np.float32).reshape(4, 4)
    values[0, 0] = np.nan
    result = shown(encoded(values, "TIFF"), (-1, 1))
    assert (result[0, 0, 0], result[3, 3, 0]) == (0, 255)
    assert result[2, 0, 0] == round((values[2, 0] + 1) * 127.5)


def test_12_bits_that_their_format_tells_fill_the_full_range() -> None:
    """A TIFF of 12 bits a sample, which no library here writes."""
    tags = {256: 4, 257: 1, 258: 12, 259: 1, 262: 1, 273: 200, 277: 1, 278: 1, 279: 6}
    entries = b"".join(
        tag.to_bytes(2, "little") + b"\x04\0\1\0\0\0" + value.to_bytes(4, "little")
        for tag, value in tags.items()
    )
    head = b"II*\0\x08\0\0\0" + len(tags).to_bytes(2, "little") + entries + bytes(4)
    content = head.ljust(200, b"\0") + bytes.fromhex("000fff800010")
    assert shown(content)[0, :, 0].tolist() == [0, 255, 128, 1]


def test_12_bits_of_jpeg_2000_fill_the_full_range() -> None:
    """Pillow stretches them to 16; it writes 16 bits only, which are told to be 12 here, in both headers."""
    values = np.linspace(0, 4095, 64 * 64).astype(np.uint16).reshape(64, 64)
    content = bytearray(encoded(values + 32768 - 2048, "JPEG2000"))  # values count from the middle
    content[content.index(b"ihdr") + 14] = 11
    content[content.index(b"\xff\x51") + 40] = 11
    np.testing.assert_array_equal(shown(bytes(content))[..., 0], values >> 4)


def test_full_keeps_the_high_byte() -> None:
    assert to_8_bits(RAMP * 4096 + 255, white=65535, image_range="full")[0, :2, 0].tolist() == [0, 16]


DEEP = values_of(0, 4000, 65535)


@pytest.mark.parametrize(
    ("ranges", "expected"),
    [
        ([], "full"),
        ([DEEP], (0, 4095)),
        ([DEEP, values_of(5, 100, 65535)], (0, 4095)),
        ([values_of(5, 100, 65535)], (0, 255)),
        ([values_of(5, 32767, 65535)], (0, 32767)),
        ([DEEP, values_of(0, 32768, 65535)], "full"),
        ([values_of(0, 4000, 4095)], "full"),
        ([values_of(20_000, 22_000, 65535), values_of(21_000, 24_000, 65535)], (20_000, 24_000)),
        ([values_of(100, 110, 65535)], (0, 255)),
        ([values_of(-3, 2, None), values_of(-1, 9.5, None)], (-3, 9.5)),
        ([values_of(2, 2, None)], (2, 3)),
    ],
)
def test_auto_is_one_range_for_all_images(ranges: list[ValueRange], expected: object) -> None:
    assert find_range(ranges) == expected


def test_what_is_said_of_a_range() -> None:
    def note(*ranges: ValueRange, image_range: Any = "full", is_auto: bool = False) -> str | None:
        return range_note(
            ranges,
            image_range=floats(image_range),
            option="data.image_range",
            is_auto=is_auto,
        )

    bright = values_of(0, 60_000, 65535)
    assert note() is None
    assert note(bright) is None
    assert "2 of 3 images" in str(note(DEEP, DEEP, bright))
    assert "'data.image_range=[0,4095]' spreads" in str(note(DEEP))
    assert "data.image_range=[20000,26000]" in str(note(values_of(20_000, 26_000, 65535)))
    assert note(DEEP, image_range=(0, 4095)) is None
    assert "Of 1 images of more than 8 bits 1 become one shade" in str(
        note(bright, image_range=(60_000, 65_000))
    )
    assert "stands for 'data.image_range=[0,4095]'" in str(note(DEEP, image_range=(0, 4095), is_auto=True))


@pytest.mark.parametrize(
    ("median", "is_reported"), [(0, False), (2_000, False), (4_000, False), (4_001, True)]
)
def test_a_range_that_most_pixels_lie_outside_of_is_told(median: int, is_reported: bool) -> None:
    """Black at the lower end is a background; what is above the upper end was to be seen."""
    image = ValueRange(0.0, 60_000.0, float(median), 65535)
    note = range_note([image, image], image_range=(0.0, 4_000.0), option="data.image_range")
    assert (note is not None) == is_reported
    if is_reported:
        assert "Of 2 images of more than 8 bits 2 have most of their pixels become black or white" in str(
            note
        )
        assert str(note).endswith("The values of all are 0 to 60000: data.image_range=full holds them.")


# --- a dataset of them


def deep_dataset(root: Path, scale: float, dtype: type = np.uint16) -> Path:
    ending = ".png" if dtype is np.uint16 else ".tiff"
    content = valid()
    write_dataset(root)
    for image in content["images"]:
        gray = cv2.imread(str(root / "images" / image["file_name"]), cv2.IMREAD_GRAYSCALE)
        assert gray is not None
        image["file_name"] = image["file_name"].replace(".jpg", ending)
        Image.fromarray((gray.astype(float) * scale).astype(dtype)).save(root / "images" / image["file_name"])
    for split in ("train", "val"):
        (root / f"{split}.json").write_text(json.dumps(content))
    return root


def data_of(root: Path, **options: Any) -> DetectionDataModule:
    return DetectionDataModule(
        root=str(root),
        image_size=ImageSize(min_size=48, max_size=64),
        batch_size=1,
        val_batch_size=1,
        num_workers=0,
        seed=0,
        **options,
    )


def test_a_dark_dataset_is_told_with_the_override_that_helps(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = data_of(deep_dataset(tmp_path, 16))
    with caplog.at_level(logging.WARNING):
        data.setup("fit")
    assert "3 of 3 images of more than 8 bits" in caplog.text
    assert "data.image_range=[0,4095]" in caplog.text
    assert data.image_range == "full"
    assert data.val_set.read_image(7).max() < 16


def test_auto_finds_the_range_and_says_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = data_of(deep_dataset(tmp_path, 16), image_range="auto")
    with caplog.at_level(logging.WARNING):
        data.setup("fit")
    assert data.image_range == (0, 4095)
    assert "stands for 'data.image_range=[0,4095]'" in caplog.text
    assert caplog.text.count("stands for") == 1
    assert data.val_set.read_image(7).max() > 200
    assert data.train_set[0, 0].image.max() > 200


def test_images_of_8_bits_leave_auto_at_full(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = data_of(write_dataset(tmp_path), image_range="auto")
    with caplog.at_level(logging.WARNING):
        data.setup("fit")
    assert data.image_range == "full"
    assert "image_range" not in caplog.text


def test_floats_without_a_range_are_one_problem_with_a_remedy(tmp_path: Path) -> None:
    root = deep_dataset(tmp_path, 0.01, np.float32)
    with pytest.raises(ValueError, match="3 image problems") as error:
        read_coco(root / "train.json", images_dir=root / "images")
    assert "3 images have values without a black and white" in str(error.value)
    assert "data.image_range=[" in str(error.value)
    assert "damaged" not in str(error.value)
    data = data_of(root, image_range="auto")
    data.setup("fit")
    assert isinstance(data.image_range, tuple)
    low, high = data.image_range
    assert 0 <= float(low) < float(high) <= 2.55
    assert data.val_set.read_image(7).max() > 200


@pytest.mark.parametrize("image_range", [(5.0, 5.0), (9.0, 1.0), (0.0, float("inf"))])
def test_a_range_that_is_none(tmp_path: Path, image_range: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="low < high"):
        data_of(tmp_path, image_range=image_range)


def test_options_reach_the_reader(tmp_path: Path) -> None:
    root = write_dataset(tmp_path)
    with pytest.raises(ValueError, match="max_image_pixels=2399"):
        data_of(root, max_image_pixels=2399).setup("fit")
    data_of(root, max_image_pixels=64 * 48).setup("fit")
    (root / "images/a.jpg").rename(root / "images/A.JPG")
    with pytest.raises(ValueError, match=r"1 of 3 file names differ by letter case only.*file_names=base"):
        data_of(root).setup("fit")
    data = data_of(root, file_names="base")
    data.setup("fit")
    assert data.train_set[0, 0].image.shape[0] == 3


def test_colors_whose_low_bits_no_decoder_gives_are_refused_with_a_range() -> None:
    """An animated PNG goes to PIL, which reads 16-bit colors by their high bytes."""
    content = shared_path("fixtures/images/mode_16bit.png").read_bytes()
    assert shown(content).shape[2] == 3
    with pytest.raises(ImageError, match="only the high bits"):
        shown(content, (0, 255))


def test_the_case_of_8_bits_in_16(caplog: pytest.LogCaptureFixture) -> None:
    folder = shared_path("cases/deep8")
    with caplog.at_level(logging.WARNING):
        dataset = read_coco(folder / "train.json", images_dir=folder / "images")
    assert find_range(dataset.deep_values) == (0, 255)
    note = range_note(dataset.deep_values, image_range="full", option="data.image_range")
    assert "8 of 8 images" in str(note)
