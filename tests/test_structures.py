"""Records of tensors, masks in the frames of their boxes, and keypoints."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
import torch

from detector.structures import Batch, BoxMasks, Detections, Keypoints, KeypointSchema, Record, Targets

SCHEMA = KeypointSchema(
    names=("nose", "left_eye", "right_eye"),
    sigmas=(0.026, 0.025, 0.025),
    flip_pairs=(("left_eye", "right_eye"),),
    skeleton=(("nose", "left_eye"), ("nose", "right_eye")),
)


def masks(*shape: int, seed: int = 0) -> BoxMasks:
    random = torch.Generator().manual_seed(seed)
    return BoxMasks(torch.randint(0, 256, (*shape, 4, 4), generator=random, dtype=torch.uint8))


def keypoints(*shape: int, seed: int = 0) -> Keypoints:
    random = torch.Generator().manual_seed(seed)
    visibility = torch.randint(0, 3, (*shape, 3), generator=random)
    return Keypoints(torch.rand(*shape, 3, 2, generator=random) * 50, visibility)


def targets(images: int, *, seed: int = 0) -> Targets:
    random = torch.Generator().manual_seed(seed)
    return Targets(
        boxes=torch.rand(images, 5, 4, generator=random),
        labels=torch.randint(0, 9, (images, 5), generator=random),
        valid=torch.ones(images, 5, dtype=torch.bool),
        masks=masks(images, 5, seed=seed),
        keypoints=keypoints(images, 5, seed=seed),
    )


def batch(images: int) -> Batch:
    sizes = torch.full((images, 2), 32)
    pixels = torch.zeros(images, 3, 32, 32, dtype=torch.uint8)
    return Batch(pixels, sizes, sizes + 1, torch.arange(images), targets(images))


def detections(count: int, **others: Any) -> Detections:
    boxes = torch.tensor([[2.0, 4, 10, 20]]).repeat(count, 1)
    return Detections(boxes, torch.rand(count), torch.zeros(count, dtype=torch.int64), **others)


def same(one: Record, other: Record) -> bool:
    pairs = zip(one.tensors(), other.tensors(), strict=True)
    return type(one) is type(other) and all(torch.equal(a, b) for a, b in pairs)


# --- what every record can do


def test_tensors_are_those_of_inner_records_too() -> None:
    assert len([*batch(1).tensors()]) == 10
    assert [tensor.shape for tensor in detections(2).tensors()] == [(2, 4), (2,), (2,)]


def test_record_goes_to_a_device_with_all_that_is_in_it() -> None:
    moved = batch(2).to("meta", non_blocking=True)
    assert {tensor.device.type for tensor in moved.tensors()} == {"meta"}
    assert len([*moved.tensors()]) == 10


def test_pinning_reaches_every_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    pinned: list[torch.Tensor] = []
    monkeypatch.setattr(
        torch.Tensor,
        "pin_memory",
        lambda tensor: (pinned.append(tensor), tensor)[1],  # type: ignore[func-returns-value]  # a statement
    )
    assert same(batch(2).pin_memory(), batch(2))
    assert len(pinned) == 10


@pytest.mark.parametrize("index", [slice(1, 3), torch.tensor([2, 0]), torch.tensor([True, False, True])])
def test_selection_indexes_the_leading_dimension_of_every_tensor(index: slice | torch.Tensor) -> None:
    chosen = batch(3).select(index)
    assert torch.equal(chosen.indices, torch.arange(3)[index])
    for one, all_of_them in zip(chosen.tensors(), batch(3).tensors(), strict=True):
        assert torch.equal(one, all_of_them[index])


def test_what_a_record_does_not_have_stays_absent() -> None:
    plain = detections(3)
    for changed in (plain.to("cpu"), plain.select(slice(2)), Detections.cat([plain, plain])):
        assert changed.masks is None
        assert changed.keypoints is None


def test_parts_of_a_record_concatenated_are_the_record() -> None:
    whole = targets(4)
    parts = [whole.select(slice(0, 1)), whole.select(slice(1, 1)), whole.select(slice(1, 4))]
    assert same(Targets.cat(parts), whole)


def test_a_field_that_only_some_records_have_cannot_be_concatenated() -> None:
    with pytest.raises(AssertionError, match="masks is None in some"):
        Detections.cat([detections(1, masks=masks(1)), detections(1)])


@pytest.mark.parametrize("kind", [Targets, Batch, Detections, BoxMasks, Keypoints])
def test_no_record_repeats_what_all_can_do(kind: type[Record]) -> None:
    assert issubclass(kind, Record)
    assert fields(kind)
    assert not {"to", "pin_memory", "select", "cat"} & vars(kind).keys()


# --- masks


def painted(masks: BoxMasks, boxes: torch.Tensor, *, height: int, width: int) -> torch.Tensor:
    """The union of masks on an image whose pixels each lie in one cell of a mask."""
    image = torch.zeros(height, width, dtype=torch.uint8)
    side = masks.coverage.shape[-1]
    for mask, (x1, y1, x2, y2) in zip(masks.coverage, boxes.int().tolist(), strict=True):
        rows = torch.arange(y2 - y1) * side // (y2 - y1)
        columns = torch.arange(x2 - x1) * side // (x2 - x1)
        image[y1:y2, x1:x2] = torch.maximum(image[y1:y2, x1:x2], mask[rows][:, columns])
    return image


BOXES = torch.tensor([[0.0, 0, 4, 8], [3, 2, 11, 14], [12, 1, 16, 5]])


def test_mirrored_masks_in_mirrored_boxes_are_the_mirrored_image() -> None:
    some, width = masks(3), 20
    mirrored_boxes = torch.stack([width - BOXES[:, 2], BOXES[:, 1], width - BOXES[:, 0], BOXES[:, 3]], dim=-1)
    actual = painted(some.mirrored(), mirrored_boxes, height=16, width=width)
    assert torch.equal(actual, painted(some, BOXES, height=16, width=width).flip(-1))
    assert not torch.equal(actual, painted(some, mirrored_boxes, height=16, width=width))


def test_masks_of_resized_detections_are_the_resized_image() -> None:
    record = replace(detections(3, masks=masks(3)), boxes=BOXES)
    resized = record.resized(from_size=(16, 20), to_size=(32, 60))
    assert resized.masks is record.masks
    assert record.masks is not None
    assert resized.masks is not None
    image = painted(record.masks, BOXES, height=16, width=20)
    image = image.repeat_interleave(2, dim=0).repeat_interleave(3, dim=1)
    assert torch.equal(painted(resized.masks, resized.boxes, height=32, width=60), image)


# --- keypoints


def test_keypoints_of_resized_detections_scale_with_the_image() -> None:
    record = detections(2, keypoints=keypoints(2))
    resized = record.resized(from_size=(16, 20), to_size=(32, 60))
    assert record.keypoints is not None
    assert resized.keypoints is not None
    torch.testing.assert_close(resized.keypoints.xy[..., 0], record.keypoints.xy[..., 0] * 3)
    torch.testing.assert_close(resized.keypoints.xy[..., 1], record.keypoints.xy[..., 1] * 2)
    assert torch.equal(resized.keypoints.visibility, record.keypoints.visibility)


def test_mirrored_keypoints_change_sides_and_places() -> None:
    record = Keypoints(torch.tensor([[[5.0, 1], [7, 2], [3, 4]]]), torch.tensor([[2, 1, 0]]))
    mirrored = record.mirrored(width_px=10.0, schema=SCHEMA)
    assert mirrored.xy.tolist() == [[[5, 1], [7, 4], [3, 2]]]
    assert mirrored.visibility.tolist() == [[2, 0, 1]]
    assert same(mirrored.mirrored(width_px=10.0, schema=SCHEMA), record)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"names": (), "sigmas": ()}, "names is empty: give each keypoint a name"),
        ({"names": ("a", "b", "a")}, "names has a more than once"),
        ({"sigmas": (0.1, 0.1)}, "3 names and 2 sigmas: give each name one sigma"),
        ({"sigmas": (0.1, 0.0, float("nan"))}, "sigmas has 0.0, nan, expected numbers > 0"),
        ({"flip_pairs": (("a", "d"),)}, "flip_pairs has d, expected names of a, b, c"),
        ({"flip_pairs": (("a", "a"),)}, "flip_pairs pairs a with itself"),
        ({"flip_pairs": (("a", "b"), ("b", "c"))}, "flip_pairs has b in more than one pair"),
        ({"skeleton": (("a", "d"),)}, "skeleton has d, expected names"),
        ({"skeleton": (("b", "b"),)}, "skeleton pairs b with itself"),
    ],
    ids=str,
)
def test_schema_that_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KeypointSchema(**{"names": ("a", "b", "c"), "sigmas": (0.1, 0.1, 0.1), **options})


def test_all_problems_of_a_schema_are_told_at_once() -> None:
    with pytest.raises(ValueError, match=r"1 sigmas.*; flip_pairs|flip_pairs.*; .*1 sigmas"):
        KeypointSchema(names=("a", "b"), sigmas=(0.1,), flip_pairs=(("a", "c"),))


def test_a_skeleton_may_meet_in_a_point() -> None:
    assert SCHEMA.flip_permutation() == (0, 2, 1)
