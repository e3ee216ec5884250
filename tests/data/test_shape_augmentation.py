"""Masks and keypoints move with the image and its boxes."""

from __future__ import annotations

from typing import Any

import albumentations as A
import cv2
import numpy as np
import pytest

from detector.coco.annotations import CocoAnnotations
from detector.coco.truth_reader import read_ground_truth
from detector.data.clipping import extents_inside
from detector.data.keypoint_schemas import keypoint_schemas
from detector.data.outlines import Outlines
from detector.data.rasterizing import rasterize
from detector.data.shape_augmentation import ShapeAugmentation
from detector.data.shapes import ShapeReader, Shapes
from detector.data.transforms import Augmentation

HEIGHT, WIDTH = 72, 96
KITE = [[30.31, 20.27, 70.21, 24.34, 60.3, 60.77, 34.2, 50.29]]
PLUS = [[44.3, 10.2, 54.3, 10.2, 54.3, 62.2, 44.3, 62.2], [20.3, 30.2, 80.3, 30.2, 80.3, 40.2, 20.3, 40.2]]
NAMES = ["left", "right", "tip"]
KEYPOINTS = [30.31, 20.27, 2, 70.21, 24.34, 1, 60.3, 60.77, 2]
MIRRORING = {
    "horizontal flip": A.HorizontalFlip(p=1),
    "vertical flip": A.VerticalFlip(p=1),
    "transposed": A.Transpose(p=1),
    "negative scale": A.Affine(scale={"x": (-1, -1), "y": (1, 1)}, p=1),
    "flipped thrice": [A.HorizontalFlip(p=1), A.VerticalFlip(p=1), A.HorizontalFlip(p=1)],
}
MOVING = {
    "turned": A.RandomRotate90(p=1),
    "flipped twice": [A.HorizontalFlip(p=1), A.VerticalFlip(p=1)],
    "rotated": A.Rotate((25, 25), p=1),
    "rotated whole": A.SafeRotate((-70, -70), p=1),
    "affine": A.Affine(scale=(1.2, 1.2), rotate=(12, 12), translate_px=(3, 3), p=1),
    "small": A.Affine(scale=(0.6, 0.6), p=1),
    "sheared": A.Affine(shear=(15, 15), p=1),
    "fitted": A.Affine(rotate=(30, 30), fit_output=True, p=1),
    "perspective": A.Perspective(p=1),
    "cropped": A.RandomCrop(50, 70, p=1),
    "padded": A.PadIfNeeded(120, 130, border_mode=cv2.BORDER_CONSTANT),
    "cropped to a box": A.BBoxSafeRandomCrop(p=1),
    "cropped to a box and resized": A.RandomSizedBBoxSafeCrop(100, 120, p=1),
    "cropped and resized": A.RandomResizedCrop((50, 50), scale=(0.7, 1), p=1),
    "cropped and scaled": A.RandomSizedCrop((60, 70), (140, 140), p=1),
    "cropped and kept in size": A.CropAndPad(percent=-0.1, p=1),
    "enlarged": A.Resize(HEIGHT * 3, WIDTH * 3),
    "reduced": A.Resize(HEIGHT // 2, WIDTH // 2),
    "longest side": A.LongestMaxSize(48),
    "shortest side": A.SmallestMaxSize(144),
    "scaled": A.RandomScale((0.5, 0.5), p=1),
    "one of two": A.OneOf([A.Resize(150, 150), A.Resize(150, 151)], p=1),
    "reduced, flipped, enlarged": A.Sequential(
        [A.Resize(36, 48), A.HorizontalFlip(p=1), A.Resize(144, 192)], p=1
    ),
    "no geometry": A.ToGray(p=1),
}


def truth(*polygons: list[list[float]], keypoints: list[float] | None = None) -> CocoAnnotations:
    annotations = []
    for number, parts in enumerate(polygons, start=1):
        corners = np.concatenate([np.reshape(part, (-1, 2)) for part in parts])
        box = [*corners.min(axis=0).tolist(), *np.ptp(corners, axis=0).tolist()]
        where = {"id": number, "image_id": 1, "category_id": 1, "bbox": box, "area": 9.0}
        annotations.append(where | {"segmentation": parts, "keypoints": keypoints or []})
    content = {
        "images": [{"id": 1, "height": HEIGHT, "width": WIDTH}],
        "categories": [{"id": 1, "name": "kite", "keypoints": NAMES}],
        "annotations": annotations,
    }
    return read_ground_truth(content, tasks=("segm", "keypoints")).annotations


def pixels(outlines: Outlines, height: int, width: int) -> np.ndarray:
    """The first object, drawn with a cell for each pixel of the image."""
    side = max(height, width)
    return rasterize(outlines, np.array([[0.0, 0, side, side]]), side=side)[0][:height, :width]


def augmented(
    transforms: Any, annotations: CocoAnnotations, *, seed: int = 0, boxes_from_masks: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray, Shapes]:
    """An image that shows the first object, augmented with the shapes of all."""
    reader = ShapeReader(annotations, keypoint_schemas(annotations.categories))
    shapes = reader.of_image(0)
    assert shapes.outlines is not None
    image = np.repeat(pixels(shapes.outlines.select(np.array([0])), HEIGHT, WIDTH)[..., None], 3, axis=2)
    augment = ShapeAugmentation(Augmentation(transforms), reader, boxes_from_masks=boxes_from_masks)
    return augment(image, *annotations.training_boxes(0), shapes, seed=seed)


def outlines_and_keypoints(shapes: Shapes) -> tuple[Outlines, np.ndarray]:
    assert shapes.outlines is not None
    assert shapes.keypoints is not None
    return shapes.outlines, shapes.keypoints


def center(image: np.ndarray) -> np.ndarray:
    weight = image.astype(np.float64) / image.sum()
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]] + 0.5
    return np.array([(weight * columns).sum(), (weight * rows).sum()])


@pytest.mark.parametrize("polygon", [KITE, PLUS], ids=["kite", "plus of two parts"])
@pytest.mark.parametrize("name", [*MIRRORING, *MOVING])
def test_outlines_move_as_the_pixels(name: str, polygon: list[list[float]]) -> None:
    """To a tenth of a pixel: what is shifted by half a pixel is seen."""
    image, _, _, shapes = augmented((MIRRORING | MOVING)[name], truth(polygon))
    outlines, _ = outlines_and_keypoints(shapes)
    drawn = pixels(outlines, *image.shape[:2])
    scale = max(1, image.shape[0] / HEIGHT)
    np.testing.assert_allclose(center(image[..., 0]), center(drawn), atol=0.1 * scale)
    assert np.abs(image[..., 0].astype(float) - drawn).sum() < 0.12 * drawn.sum()


@pytest.mark.parametrize("name", [*MIRRORING, *MOVING])
def test_boxes_hold_their_outlines(name: str) -> None:
    """They may be loose where the image is rotated, and the transforms of boxes are a part of a pixel off."""
    image, boxes, _, shapes = augmented((MIRRORING | MOVING)[name], truth(KITE))
    extents, _ = extents_inside(outlines_and_keypoints(shapes)[0], boxes, size=image.shape[:2])
    assert (boxes[:, :2] <= extents[:, :2] + 0.5).all()
    assert (boxes[:, 2:] >= extents[:, 2:] - 0.5).all()


@pytest.mark.parametrize("name", [*MIRRORING, *MOVING])
def test_left_and_right_swap_where_the_image_is_mirrored(name: str) -> None:
    _, _, _, shapes = augmented((MIRRORING | MOVING)[name], truth(KITE, keypoints=KEYPOINTS))
    outlines, keypoints = outlines_and_keypoints(shapes)
    mirrored = name in MIRRORING or name == "reduced, flipped, enlarged"
    corners = outlines.corners[[1, 0, 2] if mirrored else [0, 1, 2]]
    np.testing.assert_allclose(keypoints[0, :, :2], corners, atol=1e-3)
    assert keypoints[0, :, 2].tolist() == ([1, 2, 2] if mirrored else [2, 1, 2])


def test_shapes_of_dropped_boxes_go() -> None:
    crop = A.Crop(x_min=0, y_min=0, x_max=30, y_max=HEIGHT)
    _, boxes, labels, shapes = augmented(crop, truth(KITE, [[2, 3, 12, 3, 12, 13]], keypoints=KEYPOINTS))
    outlines, keypoints = outlines_and_keypoints(shapes)
    assert len(boxes) == len(labels) == len(outlines.has_mask) == len(keypoints) == 1
    np.testing.assert_allclose(outlines.corners, [[2, 3], [12, 3], [12, 13]], atol=1e-4)


def test_a_keypoint_that_leaves_the_image_stays_in_its_row_unlabeled() -> None:
    image, boxes, _, shapes = augmented(
        A.Crop(x_min=20, y_min=22, x_max=WIDTH, y_max=HEIGHT), truth(KITE, keypoints=KEYPOINTS)
    )
    size = (image.shape[0], image.shape[1])
    _, keypoints = shapes.targets(boxes, from_size=size, to_size=(size[0] * 2, size[1] * 3))
    assert keypoints is not None
    assert keypoints.visibility.tolist() == [[0, 1, 2]]
    expected = np.array([[0, 0], [3 * 50.21, 2 * 2.34], [3 * 40.3, 2 * 38.77]])
    np.testing.assert_allclose(keypoints.xy[0].numpy(), expected, atol=1e-3)


@pytest.mark.parametrize("angle", [20, 45, 75])
def test_boxes_are_fitted_to_masks(angle: int) -> None:
    rotate = A.Rotate((angle, angle), p=1)
    _, loose, _, _ = augmented(rotate, truth(KITE))
    image, boxes, labels, shapes = augmented(rotate, truth(KITE), boxes_from_masks=True)
    rows, columns = np.nonzero(image[..., 0] > 127)
    seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    np.testing.assert_allclose(boxes[0], seen, atol=1.2)
    assert np.prod(boxes[0, 2:] - boxes[0, :2]) < np.prod(loose[0, 2:] - loose[0, :2])
    assert len(labels) == len(outlines_and_keypoints(shapes)[0].has_mask) == 1


@pytest.mark.parametrize(
    "transform", [A.ElasticTransform(p=1), A.GridDistortion(p=1), A.OpticalDistortion(p=1)]
)
def test_bent_outlines_follow_within_a_pixel(transform: A.BasicTransform) -> None:
    image, _, _, shapes = augmented(transform, truth(KITE))
    drawn = pixels(outlines_and_keypoints(shapes)[0], *image.shape[:2])
    np.testing.assert_allclose(center(image[..., 0]), center(drawn), atol=0.7)


def test_what_an_erased_patch_hides_stays_an_object() -> None:
    holes = A.CoarseDropout(
        num_holes_range=(9, 9), hole_height_range=(0.4, 0.4), hole_width_range=(0.4, 0.4), p=1
    )
    for seed in range(5):
        _, boxes, _, shapes = augmented(holes, truth(KITE, keypoints=KEYPOINTS), seed=seed)
        if len(boxes):
            np.testing.assert_allclose(
                outlines_and_keypoints(shapes)[0].corners, np.reshape(KITE, (-1, 2)), atol=1e-3
            )


def test_transforms_that_lose_the_points_are_refused() -> None:
    with pytest.raises(ValueError, match="gives 90 points for the 10 of outlines"):
        augmented(A.Affine(rotate=20, border_mode=cv2.BORDER_REFLECT_101, p=1), truth(KITE))
    with pytest.raises(ValueError, match="has ThinPlateSpline, which does not move masks"):
        augmented([A.OneOf([A.ThinPlateSpline(), A.HorizontalFlip()])], truth(KITE))


def test_images_without_objects_are_augmented() -> None:
    annotations = truth()
    reader = ShapeReader(annotations, keypoint_schemas(annotations.categories))
    augment = ShapeAugmentation(Augmentation(A.HorizontalFlip(p=1)), reader, boxes_from_masks=True)
    image = np.arange(HEIGHT * WIDTH * 3, dtype=np.uint8).reshape(HEIGHT, WIDTH, 3)
    flipped, boxes, labels, shapes = augment(
        image, np.zeros((0, 4)), np.zeros(0, np.int64), reader.of_image(0), seed=0
    )
    assert np.array_equal(flipped, image[:, ::-1])
    assert len(boxes) == len(labels) == 0
    assert outlines_and_keypoints(shapes)[1].shape == (0, 3, 3)


def test_boxes_and_images_are_those_without_shapes() -> None:
    """The same seed gives the same image and boxes, whether or not shapes move along."""
    transforms = {
        "flip": A.HorizontalFlip(p=0.5),
        "affine": A.Affine(rotate=(-30, 30), p=0.7),
        "noise": A.GaussNoise(p=0.5),
    }
    annotations = truth(KITE)
    plain, *_ = augmented({}, annotations)
    for seed in range(6):
        image, boxes, labels, _ = augmented(transforms, annotations, seed=seed)
        alone = Augmentation(transforms)(plain, *annotations.training_boxes(0), seed=seed)
        for one, other in zip((image, boxes, labels), alone, strict=True):
            np.testing.assert_array_equal(one, other)
