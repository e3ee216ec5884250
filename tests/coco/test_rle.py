"""Run lengths are COCO's to the byte."""

import numpy as np
import pytest
from pycocotools import mask

from detector.coco import rle
from detector.coco.ragged import offsets
from detector.coco.rle import compress, decompress, is_compressed, pixel_counts


def encoded(masks: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    texts = [mask.encode(np.asfortranarray(one))["counts"] for one in masks]
    return np.frombuffer(b"".join(texts), dtype=np.uint8), offsets([*map(len, texts)])


def random_masks() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = rng.integers(1, 60, (200, 2)).tolist()
    masks = [(rng.random(shape) < rng.choice([0, 0.02, 0.5, 1])).astype(np.uint8) for shape in shapes]
    large = np.zeros((3000, 2000), np.uint8)  # run lengths of five groups
    large[5:2900, 300:1800] = 1
    return [*masks, large]


def test_decompress_gives_the_pixels_of_pycocotools() -> None:
    masks = random_masks()
    runs, first = decompress(*encoded(masks))
    for row, one in enumerate(masks):
        own = runs[first[row] : first[row + 1]]
        assert np.repeat(np.arange(len(own)) % 2, own).tolist() == one.ravel(order="F").tolist()


def test_compress_gives_the_bytes_of_pycocotools() -> None:
    data, first = encoded(random_masks())
    again, first_again = compress(*decompress(data, first))
    assert again.tobytes() == data.tobytes()
    assert first_again.tolist() == first.tolist()


def test_nothing_is_compressed_to_nothing() -> None:
    data, first = compress(np.zeros(0, np.int64), np.array([0]))
    assert (len(data), first.tolist()) == (0, [0])
    assert [len(part) for part in decompress(data, first)] == [0, 1]


@pytest.mark.parametrize(
    ("texts", "good"),
    [
        ([b"61X13mN", b"0"], [True, True]),
        ([b"61X", b"0"], [False, True]),  # a number without its last group
        ([b"6 1", b"0"], [False, True]),
        ([b"", b"0"], [False, True]),
        ([b"0", b"o" * 20 + b"0"], [True, False]),  # no number of 64 bits
    ],
)
def test_other_bytes_are_told_apart(texts: list[bytes], good: list[bool]) -> None:
    data = np.frombuffer(b"".join(texts), dtype=np.uint8)
    assert is_compressed(data, offsets([*map(len, texts)])).tolist() == good


@pytest.mark.parametrize("block", [1, 100, 1 << 17])
def test_pixels_are_counted_block_by_block(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    masks = random_masks()
    data, first = encoded(masks)
    odd = [b"61X", b"6 1", b"0O1"]  # cut off, no groups, a negative run length
    data = np.append(data, np.frombuffer(b"".join(odd), np.uint8))
    first = np.append(first, first[-1] + np.cumsum([*map(len, odd)]))
    monkeypatch.setattr(rle, "_BLOCK", block)
    total, inside = pixel_counts(data, first)
    assert total.tolist() == [*(one.size for one in masks), -1, -1, -1]
    assert inside.tolist() == [*(int(one.sum()) for one in masks), -1, -1, -1]


def test_no_masks_have_no_pixels() -> None:
    total, inside = pixel_counts(np.zeros(0, np.uint8), np.array([0]))
    assert (len(total), len(inside)) == (0, 0)
