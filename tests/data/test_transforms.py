"""Resizing and augmentation of images and their boxes."""

import albumentations as A
import numpy as np
import pytest

from detector.data.transforms import Augmentation, ImageSize, drop_thin_boxes, resize, sample_seed


@pytest.mark.parametrize(
    ("size", "min_size", "max_size", "expected"),
    [
        ((480, 640), 800, 1333, (800, 1067)),
        ((640, 480), 800, 1333, (1067, 800)),
        ((200, 1000), 800, 1333, (267, 1333)),  # the longer side decides
        ((480, 640), 240, 320, (240, 320)),
        ((100, 1000), 240, 320, (32, 320)),
        ((1, 10_000), 240, 320, (1, 320)),
    ],
)
def test_shorter_and_longer_side(
    size: tuple[int, int], min_size: int, max_size: int, expected: tuple[int, int]
) -> None:
    assert ImageSize(min_size, max_size).fit(size) == expected


@pytest.mark.parametrize("seed", range(20))
def test_a_resized_image_never_exceeds_its_limits(seed: int) -> None:
    height, width = (int(v) for v in np.random.default_rng(seed).integers(1, 3000, 2))
    fitted = ImageSize(240, 320).fit((height, width))
    assert min(fitted) <= 240
    assert max(fitted) <= 320


def test_shorter_above_longer_is_refused() -> None:
    with pytest.raises(ValueError, match=r"min_size=\(600, 900\) exceeds image_size.max_size=800"):
        ImageSize((600, 900), 800)


def test_boxes_follow_the_pixels_when_resized() -> None:
    """A white box stays where its pixels are; the ratio differs between the two directions."""
    image = np.zeros((53, 31, 3), np.uint8)
    image[10:40, 5:25] = 255
    resized, boxes = resize(image, np.array([[5.0, 10, 25, 40]]), size=(80, 60))
    rows, columns = np.nonzero(resized[..., 0] > 127)
    seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    np.testing.assert_allclose(boxes[0], seen, atol=1.0)
    np.testing.assert_allclose(boxes[0], [5 * 60 / 31, 10 * 80 / 53, 25 * 60 / 31, 40 * 80 / 53])


def test_thin_boxes_go_with_their_labels() -> None:
    boxes = np.array([[0, 0, 5, 5], [3, 0, 3.001, 5], [1, 1, 2, 2.0]])
    kept, labels = drop_thin_boxes(boxes, np.array([4, 5, 6]))
    assert labels.tolist() == [4, 6]
    assert len(kept) == 2


def _blocks() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two white blocks on black, and their boxes."""
    image = np.zeros((60, 80, 3), np.uint8)
    boxes = np.array([[4.0, 6, 20, 30], [50, 40, 78, 58]])
    for x1, y1, x2, y2 in boxes.astype(int):
        image[y1:y2, x1:x2] = 255
    return image, boxes, np.array([1, 2])


def test_flipped_boxes_lie_on_their_pixels() -> None:
    image, boxes, labels = _blocks()
    flip = Augmentation({"flip": A.HorizontalFlip(p=1)})
    flipped, moved, kept = flip(image, boxes, labels, seed=0)
    np.testing.assert_array_equal(flipped, image[:, ::-1])
    np.testing.assert_allclose(moved, [[60, 6, 76, 30], [2, 40, 30, 58]], atol=1e-4)
    assert kept.tolist() == [1, 2]


def test_a_box_that_a_crop_leaves_behind_goes_with_its_label() -> None:
    crop = Augmentation({"crop": A.Crop(x_min=0, y_min=0, x_max=52, y_max=60)})
    _, boxes, labels = crop(*_blocks(), seed=0)
    assert labels.tolist() == [1]
    np.testing.assert_allclose(boxes, [[4, 6, 20, 30]], atol=1e-4)


def test_a_box_cut_in_part_is_clipped() -> None:
    crop = Augmentation({"crop": A.Crop(x_min=0, y_min=0, x_max=60, y_max=60)})
    _, boxes, _ = crop(*_blocks(), seed=0)
    np.testing.assert_allclose(boxes[1], [50, 40, 60, 58], atol=1e-4)


def test_images_without_boxes_are_augmented() -> None:
    image = _blocks()[0]
    flip = Augmentation({"flip": A.HorizontalFlip(p=1)})
    flipped, boxes, labels = flip(image, np.zeros((0, 4)), np.zeros(0, np.int64), seed=0)
    assert boxes.shape == (0, 4)
    assert labels.shape == (0,)
    assert not np.array_equal(flipped, image)


def test_the_same_seed_repeats_and_others_differ() -> None:
    noisy = Augmentation({"noise": A.GaussNoise(p=1), "affine": A.Affine(scale=(0.7, 1.3), p=1)})
    first = [noisy(*_blocks(), seed=s) for s in (1, 2, 3)]
    again = [noisy(*_blocks(), seed=s) for s in (3, 1, 2)]
    for one, other in zip(first, [again[1], again[2], again[0]], strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)
    assert not np.array_equal(first[0][0], first[1][0])


def test_seeds_differ_by_seed_epoch_and_index() -> None:
    seeds = {sample_seed(s, e, i) for s in range(3) for e in range(3) for i in range(100)}
    assert len(seeds) == 900


@pytest.mark.parametrize("transform", [A.Normalize(), A.ToGray(num_output_channels=1, p=1)])
def test_a_transform_that_leaves_no_uint8_rgb_is_refused(transform: A.BasicTransform) -> None:
    with pytest.raises(ValueError, match=r"data\.augmentation \(x\).*expected uint8"):
        Augmentation({"x": transform})(*_blocks(), seed=0)


def test_what_is_no_transform_is_refused() -> None:
    with pytest.raises(ValueError, match=r"data\.augmentation\.x is a str"):
        Augmentation({"x": "flip"})


@pytest.mark.parametrize(
    "transforms", [{"flip": A.HorizontalFlip(p=1)}, [A.HorizontalFlip(p=1)], A.HorizontalFlip(p=1)]
)
def test_transforms_come_as_a_mapping_a_list_or_alone(transforms: object) -> None:
    image, boxes, labels = _blocks()
    flipped, _, _ = Augmentation(transforms)(image, boxes, labels, seed=0)
    assert np.array_equal(flipped, image[:, ::-1])
    with pytest.raises(ValueError, match=r"data.augmentation.int \(0\) is a int"):
        Augmentation([3])
