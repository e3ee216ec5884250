"""Detections as a person at a prompt uses them."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as mask_tools

from detector.drawings import class_color, show_image
from detector.structures import BoxMasks, Detections, Keypoints, KeypointSchema

BOXES = [[2.0, 4, 30, 40], [10.0, 10, 50, 50], [0.0, 0, 5, 5]]


def two_detections(
    *, image: np.ndarray | None = None, names: tuple[str, ...] = ("disc", "square")
) -> Detections:
    return Detections(
        torch.tensor(BOXES),
        torch.tensor([0.9, 0.75, 0.5]),
        torch.tensor([1, 0, 1]),
        class_names=names,
        read_image=None if image is None else lambda: image,
    )


def test_iterating_gives_each_object() -> None:
    first, *others = two_detections()
    assert first == ((2.0, 4.0, 30.0, 40.0), pytest.approx(0.9), 1, "square")
    assert [one.name for one in others] == ["disc", "square"]


def test_names_are_numbers_where_classes_have_no_name() -> None:
    assert [one.name for one in two_detections(names=())] == ["1", "0", "1"]


def test_index_gives_one_and_slices_and_masks_give_some() -> None:
    detections = two_detections()
    assert detections[-1].box == (0.0, 0.0, 5.0, 5.0)
    assert detections[1:].names == ["disc", "square"]
    best = detections[detections.scores > 0.7]
    assert (best.names, best.class_names) == (["square", "disc"], ("disc", "square"))
    with pytest.raises(IndexError):
        detections[3]


def test_text_names_the_best() -> None:
    detections = two_detections()
    assert repr(detections) == "Detections(3: square 0.90, disc 0.75, square 0.50)"
    assert repr(detections[:0]) == "Detections(0)"
    six = Detections.cat([detections, detections])
    assert repr(six).endswith("square 0.90, disc 0.75, and 1 more)")


def test_dictionary_is_plain() -> None:
    content = two_detections().to_dict()
    assert json.loads(json.dumps(content)) == content
    assert content["boxes"] == BOXES
    assert content["names"] == ["square", "disc", "square"]


@pytest.mark.parametrize("kind", ["array", "image", "path", "tensor", "own"])
def test_drawing_takes_any_form_of_the_image(kind: str, tmp_path: Path) -> None:
    pixels = np.full((60, 60, 3), 90, np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = {
        "array": pixels,
        "image": Image.fromarray(pixels),
        "path": tmp_path / "a.png",
        "tensor": torch.from_numpy(pixels).permute(2, 0, 1),
        "own": None,
    }[kind]
    drawing = np.asarray(two_detections(image=pixels if kind == "own" else None).draw(image))
    scale = len(drawing) // 60
    assert tuple(drawing[25 * scale, 2 * scale]) == class_color(1)


def test_drawing_without_an_image_says_what_to_pass() -> None:
    with pytest.raises(ValueError, match=r"pass it, as in draw\(image\)"):
        two_detections().draw()
    assert two_detections()._repr_png_() is None


def test_notebook_shows_the_drawing() -> None:
    png = two_detections(image=np.zeros((60, 60, 3), np.uint8))._repr_png_()
    assert png is not None
    assert png.startswith(b"\x89PNG")


@pytest.mark.parametrize("in_notebook", [True, False])
def test_showing_is_where_the_user_looks(monkeypatch: pytest.MonkeyPatch, in_notebook: bool) -> None:
    shown: list[str] = []
    shell = SimpleNamespace(kernel=None) if in_notebook else SimpleNamespace()
    display = SimpleNamespace(display=lambda drawing: shown.append("notebook"))
    monkeypatch.setitem(
        sys.modules,
        "IPython",
        SimpleNamespace(get_ipython=lambda: shell, display=display),
    )
    monkeypatch.setattr(Image.Image, "show", lambda drawing: shown.append("viewer"))
    show_image(Image.new("RGB", (4, 4)))
    assert shown == ["notebook" if in_notebook else "viewer"]


def test_supervision_gets_its_own_type() -> None:
    supervision = pytest.importorskip("supervision", reason="comes with the dev extra")
    converted = two_detections().to_supervision()
    assert isinstance(converted, supervision.Detections)
    assert converted.xyxy.tolist() == BOXES
    assert converted.class_id.tolist() == [1, 0, 1]
    assert list(converted.data["class_name"]) == ["square", "disc", "square"]


def test_missing_supervision_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ImportError, match=r"pip install 'detector\[supervision\]'"):
        two_detections().to_supervision()


def with_shapes(*, image_size: tuple[int, int] | None = (60, 80)) -> Detections:
    """A square with a whole mask and two keypoints, and a disc, which has no keypoints and an empty mask."""
    schema = KeypointSchema(names=("left", "right"), sigmas=(0.05, 0.05))
    return Detections(
        torch.tensor([[2.0, 4, 30, 40], [10.0, 10, 50, 50]]),
        torch.tensor([0.75, 0.5]),
        torch.tensor([1, 0]),
        masks=BoxMasks(torch.stack([torch.ones(28, 28), torch.zeros(28, 28)])),
        keypoints=Keypoints(torch.tensor([[[3.0, 5], [29, 6]]] * 2), torch.full((2, 2), 2)),
        keypoint_scores=torch.tensor([[4.5, -1]] * 2),
        class_names=("disc", "square"),
        keypoint_schemas=(None, schema),
        image_size=image_size,
    )


def test_text_says_what_else_there_is() -> None:
    assert repr(with_shapes()) == "Detections(2 with masks and keypoints: square 0.75, disc 0.50)"


def test_dictionary_has_masks_and_named_keypoints() -> None:
    content = with_shapes().to_dict()
    assert json.loads(json.dumps(content)) == content
    assert content["keypoint_names"] == [["left", "right"], []]
    assert content["keypoints"] == [[[3.0, 5.0, 4.5], [29.0, 6.0, -1.0]], []]
    assert [one["size"] for one in content["masks"]] == [[60, 80]] * 2
    square, disc = (mask_tools.decode(one) for one in content["masks"])
    assert square[4:40, 2:30].all()
    assert square.sum() <= 38 * 30  # a mask fades out beyond its box
    assert not disc.any()


def test_keypoints_without_schemas_are_numbered() -> None:
    detections = replace(with_shapes(), keypoint_schemas=(), keypoint_scores=None)
    content = detections.to_dict()
    assert content["keypoint_names"] == [["0", "1"]] * 2
    assert content["keypoints"][1] == [[3.0, 5.0, 2], [29.0, 6.0, 2]]
    assert replace(detections[:0]).to_dict()["keypoints"] == []


def test_masks_without_the_size_of_their_image_say_what_to_pass() -> None:
    detections = with_shapes(image_size=None)
    with pytest.raises(ValueError, match=r"to_dict\(image_size=\(height, width\)\)"):
        detections.to_dict()
    assert detections.to_dict(image_size=(60, 80)) == with_shapes().to_dict()


def test_supervision_gets_masks_and_keypoints() -> None:
    pytest.importorskip("supervision", reason="comes with the dev extra")
    converted = with_shapes().to_supervision()
    assert converted.mask.shape == (2, 60, 80)
    texts = with_shapes().to_dict()["masks"]
    assert np.array_equal(converted.mask, [mask_tools.decode(one) for one in texts])
    points = with_shapes().to_supervision_keypoints()
    assert points.xy.tolist() == [[[3.0, 5.0], [29.0, 6.0]]] * 2
    assert points.class_id.tolist() == [1, 0]
    assert points.keypoint_confidence.tolist() == [[4.5, -1.0]] * 2
    with pytest.raises(ValueError, match="have no keypoints"):
        two_detections().to_supervision_keypoints()
