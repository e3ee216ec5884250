"""The embedded dataset: what its files say, and what becomes of its folder."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import pytest
import yaml
from pycocotools import mask as mask_tools

from detector.data.warped_shapes import shapes
from detector.data.warped_shapes import source as warped_shapes
from detector.data.warped_shapes.landmarks import LANDMARKS
from detector.data.warped_shapes.scenes import Layer, SceneObject, draw_scene
from detector.data.warped_shapes.shapes import CLASS_NAMES
from detector.data.warped_shapes.source import WarpedShapes

TINY = WarpedShapes(num_train=6, num_val=3, image_size=64)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return TINY.generate(tmp_path_factory.mktemp("tiny") / "shapes")


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def read(folder: Path, split: str = "train") -> dict[str, Any]:
    return json.loads((folder / f"{split}.json").read_text())


def polygons_of(annotation: dict[str, Any]) -> list[np.ndarray]:
    return [np.reshape(polygon, (-1, 2)) for polygon in annotation["segmentation"]]


# What is drawn


def test_equal_parameters_give_equal_files(tiny: Path, tmp_path: Path) -> None:
    assert files(TINY.generate(tmp_path / "again")) == files(tiny)


def test_another_seed_gives_other_images(tiny: Path, tmp_path: Path) -> None:
    other = files(replace(TINY, seed=1).generate(tmp_path / "other"))
    assert other["images/train/000000.jpg"] != files(tiny)["images/train/000000.jpg"]


def test_more_images_leave_the_first_ones_as_they_are(tiny: Path, tmp_path: Path) -> None:
    longer = replace(TINY, num_train=8, num_val=4).generate(tmp_path / "longer")
    few, more = files(tiny), files(longer)
    images = [name for name in few if name.startswith("images/")]
    assert len(images) == 9
    assert all(more[name] == few[name] for name in images)


def test_no_two_images_are_alike(tiny: Path) -> None:
    images = [content for name, content in files(tiny).items() if name.endswith(".jpg")]
    assert len(set(images)) == len(images)


@pytest.mark.parametrize("split", ["train", "val"])
def test_boxes_and_areas_are_those_of_the_polygons_inside_the_image(tiny: Path, split: str) -> None:
    annotations = read(tiny, split)["annotations"]
    assert annotations
    for annotation in annotations:
        if isinstance(annotation["segmentation"], dict):  # it has holes
            continue
        points = np.concatenate(polygons_of(annotation))
        (x1, y1), (x2, y2) = points.min(axis=0), points.max(axis=0)
        assert annotation["bbox"] == [x1, y1, x2 - x1, y2 - y1]
        assert annotation["area"] == sum(map(shapes.area, polygons_of(annotation)))
        assert min(x1, y1) >= 0
        assert max(x2, y2) <= TINY.image_size
        assert annotation["iscrowd"] == 0


def test_a_lone_object_is_found_by_its_box() -> None:
    options = replace(TINY, objects=(1, 1), clutter=0, color_distance=200.0)
    for index in range(10):
        image, (thing,) = draw_scene(options, key=(0, 0, index))
        empty, _ = draw_scene(replace(options, scale=(0.02, 0.02)), key=(0, 0, index))
        changed = np.abs(image.astype(int) - empty).max(axis=2) > 40
        rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
        points = np.concatenate(thing.polygons())
        extents = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        np.testing.assert_allclose([*points.min(axis=0), *points.max(axis=0)], extents, atol=1.01)


def test_polygons_have_exactly_the_extents_of_the_outline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "random_warp", lambda points, **_: points)
    monkeypatch.setattr(shapes, "random_affine", lambda points, **_: points)
    options = replace(TINY, image_size=128, objects=(1, 1), clutter=0, scale=(0.3, 0.3))
    whole = 0
    for index in range(16):
        _, (thing,) = draw_scene(options, key=(0, 0, index))
        points = np.concatenate(thing.polygons())
        if points.min() > 0 and points.max() < 128:  # not cut by the border
            true_size = np.ptp(shapes.outline(CLASS_NAMES[thing.label]), axis=0) * 0.3 * 128
            np.testing.assert_allclose(np.ptp(points, axis=0), true_size, atol=0.5)  # a sample on each side
            whole += 1
    assert whole > 4


def test_every_object_stays_visible_enough() -> None:
    options = replace(TINY, min_visible=0.8, objects=(6, 6), scale=(0.2, 0.5))
    scenes = [draw_scene(options, key=(0, 0, index))[1] for index in range(12)]
    fractions = [thing.fraction_left() for placed in scenes for thing in placed]
    assert min(fractions) >= 0.8
    assert min(fractions) < 0.95  # something is hidden somewhere, or this test shows nothing


def test_what_a_later_object_hides_is_in_no_polygon_but_its_own() -> None:
    options = replace(TINY, min_visible=0.6, objects=(6, 6), scale=(0.2, 0.5))
    for index in range(6):
        _, placed = draw_scene(options, key=(0, 0, index))
        assert cast(np.ndarray, sum(thing.visible.astype(int) for thing in placed)).max() == 1


def test_the_smallest_specks_have_boxes() -> None:
    options = replace(TINY, image_size=32, scale=(0.02, 0.03), min_visible=0.1, objects=(6, 6))
    things = [thing for index in range(20) for thing in draw_scene(options, key=(0, 0, index))[1]]
    assert len(things) > 60
    assert all(np.ptp(np.concatenate(thing.polygons()), axis=0).min() > 0 for thing in things)


def test_every_class_is_drawn_and_named(tmp_path: Path) -> None:
    content = read(replace(TINY, num_train=24).generate(tmp_path / "s"))
    assert {c["name"] for c in content["categories"]} == set(CLASS_NAMES)
    assert {a["category_id"] for a in content["annotations"]} == {c["id"] for c in content["categories"]}


def test_images_are_where_and_as_large_as_the_annotations_say(tiny: Path) -> None:
    for image in read(tiny)["images"]:
        height, width, _ = cast(np.ndarray, cv2.imread(str(tiny / "images" / image["file_name"]))).shape
        assert (height, width) == (image["height"], image["width"]) == (64, 64)


def test_ids_are_unique_and_refer_to_images(tiny: Path) -> None:
    content = read(tiny)
    image_ids = [image["id"] for image in content["images"]]
    ids = [annotation["id"] for annotation in content["annotations"]]
    assert len(set(image_ids)) == len(image_ids) == 6
    assert len(set(ids)) == len(ids)
    assert {annotation["image_id"] for annotation in content["annotations"]} <= set(image_ids)


# Landmarks


def test_each_class_but_the_disc_names_its_landmarks(tiny: Path) -> None:
    schemas = {c["name"]: (c.get("keypoints", []), c.get("skeleton", [])) for c in read(tiny)["categories"]}
    counts = {name: len(names) for name, (names, _) in schemas.items()}
    assert counts == {
        "disc": 0, "triangle": 3, "square": 4, "star": 5, "cross": 4, "crescent": 2, "heart": 4, "arrow": 4
    }  # fmt: skip
    for names, skeleton in schemas.values():
        assert {number for pair in skeleton for number in pair} == {*range(1, len(names) + 1)}


@pytest.mark.parametrize("label", range(len(CLASS_NAMES)), ids=CLASS_NAMES)
def test_a_mirrored_shape_has_its_left_landmarks_on_the_right(label: int) -> None:
    names, places = LANDMARKS[label].names, LANDMARKS[label].places
    points = dict(zip(names, shapes.outline(CLASS_NAMES[label])[places], strict=True))
    sides = {"left": "right", "right": "left"}
    for name, point in points.items():
        side, _, what = name.partition("_")
        mirrored = point * [-1, 1]
        if side in sides:
            np.testing.assert_allclose(points[f"{sides[side]}_{what}"], mirrored, atol=0.02)
        elif CLASS_NAMES[label] in ("square", "cross", "heart"):  # the ones that look the same in a mirror
            np.testing.assert_allclose(point, mirrored, atol=0.02)


def test_landmarks_are_points_of_the_drawn_outline() -> None:
    options = replace(TINY, objects=(1, 1), clutter=0, strength=1.0, scale=(0.3, 0.3))
    distances = []
    for index in range(20):
        _, (thing,) = draw_scene(options, key=(0, 0, index))
        outline = np.concatenate(thing.polygons()).astype(np.float32)
        distances += [
            abs(cv2.pointPolygonTest(outline, (float(x), float(y)), measureDist=True))
            for (x, y), v in zip(thing.landmarks, thing.visibility(), strict=True)
            if v == 2
        ]
    assert len(distances) > 40
    assert np.mean(distances) < 0.3  # of a pixel
    assert max(distances) < 2  # the end of an acute tip is thinner than a sample


def test_a_landmark_is_hidden_under_a_later_layer_and_unlabeled_outside() -> None:
    landmarks = np.array([[2.2, 1.1], [5.0, 5.0], [-0.1, 3.0], [7.9, 8.0]])
    thing = SceneObject(0, 1.0, np.ones((32, 32), np.uint8), landmarks)
    assert thing.visibility().tolist() == [2, 2, 0, 0]
    layer = np.zeros((8, 8), np.uint8)
    layer[0, 0] = 1  # the sample from 2.0 to 2.25 px across, 1.0 to 1.25 px down
    thing.cover(Layer(4, 8, layer))
    assert thing.visibility().tolist() == [1, 2, 0, 0]


def test_keypoints_are_as_coco_writes_them(tiny: Path) -> None:
    content = read(tiny)
    names = {category["id"]: category.get("keypoints", []) for category in content["categories"]}
    seen = set()
    for annotation in content["annotations"]:
        points = np.reshape(annotation.get("keypoints", []), (-1, 3))
        assert len(points) == len(names[annotation["category_id"]])
        assert annotation.get("num_keypoints", 0) == (points[:, 2] > 0).sum()
        assert (points[points[:, 2] == 0] == 0).all()
        assert (points[:, :2] < 64).all()
        assert (points[:, :2] >= 0).all()
        seen |= {*points[:, 2].tolist()}
    assert seen >= {0, 2}


# Holes


def with_a_hole(side: int) -> SceneObject:
    """A square from 2 to 14 px of an image of 16 px, with a square hole of `side` samples, 4 a pixel."""
    visible = np.zeros((64, 64), np.uint8)
    visible[8:56, 8:56] = 1
    thing = SceneObject(2, 48.0**2, visible, np.zeros((0, 2)))
    thing.cover(Layer(20, 20, np.ones((side, side), np.uint8)))
    return thing


def test_a_part_with_a_hole_is_written_as_run_lengths() -> None:
    annotation = warped_shapes._annotation(with_a_hole(8), image_id=1)
    encoded = mask_tools.frPyObjects(annotation["segmentation"], 16, 16)
    expected = np.zeros((16, 16), np.uint8)
    expected[2:14, 2:14] = 1
    expected[5:7, 5:7] = 0
    np.testing.assert_array_equal(mask_tools.decode(encoded), expected)
    assert annotation["area"] == expected.sum()
    assert annotation["bbox"] == [2, 2, 12, 12]


def test_a_hole_as_small_as_a_sliver_is_filled() -> None:
    assert with_a_hole(7).has_holes()  # 49 samples are just more than 3 square pixels
    assert not with_a_hole(6).has_holes()
    assert isinstance(warped_shapes._annotation(with_a_hole(6), image_id=1)["segmentation"], list)


def test_a_bay_is_no_hole() -> None:
    thing = with_a_hole(8)
    thing.cover(Layer(0, 20, np.ones((24, 8), np.uint8)))
    assert not thing.has_holes()


def test_run_lengths_may_begin_with_the_object() -> None:
    pixels = np.array([[1, 0], [0, 1]], np.uint8)
    assert warped_shapes._run_lengths(pixels) == {"size": [2, 2], "counts": [0, 1, 2, 1]}


# Bending


def affine_misfit(source: np.ndarray, target: np.ndarray) -> float:
    """How far the best affine map of `source` stays from `target`."""
    homogeneous = np.column_stack([source, np.ones(len(source))])
    solution = np.linalg.lstsq(homogeneous, target, rcond=None)[0]
    return float(np.abs(homogeneous @ solution - target).max())


def bent(name: str, *, strength: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return shapes.random_warp(shapes.outline(name), strength=strength, rng=rng)


@pytest.mark.parametrize("name", CLASS_NAMES)
def test_strength_0_is_rigid(name: str) -> None:
    rng = np.random.default_rng(0)
    drawn = shapes.random_affine(bent(name, strength=0.0), rotation=1.0, amount=0.5, rng=rng)
    assert affine_misfit(shapes.outline(name), drawn) < 1e-12


def test_more_strength_bends_further() -> None:
    misfits = [
        np.mean([affine_misfit(shapes.outline("star"), bent("star", strength=s, seed=i)) for i in range(20)])
        for s in (0.0, 0.25, 0.5, 1.0)
    ]
    assert misfits == sorted(misfits)
    assert misfits[3] > 0.1  # a tenth of the shape's size


@pytest.mark.parametrize("name", CLASS_NAMES)
def test_strongest_warp_does_not_fold(name: str) -> None:
    for seed in range(30):
        outline = bent(name, strength=1.0, seed=seed)
        canvas = np.zeros((400, 400), np.uint8)
        cv2.fillPoly(
            canvas, [np.round((outline + 2) * 100).astype(np.int32)], 1
        )  # even-odd: folds cancel out
        assert cv2.countNonZero(canvas) == pytest.approx(1e4 * shapes.area(outline), rel=0.05)


def test_strength_keeps_backgrounds() -> None:
    options = replace(TINY, objects=(1, 1), clutter=0, scale=(0.05, 0.05))
    rigid, _ = draw_scene(replace(options, strength=0.0), key=(0, 0, 0))
    strong, _ = draw_scene(replace(options, strength=1.0), key=(0, 0, 0))
    assert (rigid == strong).all(axis=2).mean() > 0.95


def test_outlines_have_area_1_in_every_class() -> None:
    assert [shapes.area(shapes.outline(name)) for name in CLASS_NAMES] == pytest.approx([1.0] * 8)


# The folder


def test_equal_parameters_reuse_the_folder(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(warped_shapes, "draw_scene")
    assert TINY.generate(tiny) == tiny


def test_folders_keep_their_names_and_records() -> None:
    """They were recorded, and named by a hash, while `color_distance` was `colour_distance`."""
    assert TINY._record()["parameters"]["colour_distance"] == 100.0
    assert TINY._folder_beside(Path("s"), version=1).name == "s-strength0.5-seed0-73d5fb4c"


def test_a_folder_without_landmarks_serves_boxes_alone(tiny: Path, tmp_path: Path) -> None:
    first = tmp_path / "s"
    shutil.copytree(tiny, first)
    record = json.loads((first / "warped_shapes.json").read_text())
    (first / "warped_shapes.json").write_text(json.dumps({**record, "version": 1}))
    assert TINY.existing(first) is None
    assert TINY.existing(first, boxes_alone=True) == first
    assert TINY.existing(tmp_path / "other", boxes_alone=True) is None
    beside = TINY.generate(first)
    assert beside == TINY._folder_beside(first)
    assert files(beside) == files(tiny)
    assert TINY.existing(first, boxes_alone=True) == beside


def test_other_parameters_go_beside_and_leave_the_folder_alone(tmp_path: Path) -> None:
    first = TINY.generate(tmp_path / "s")
    before = files(first)
    second = replace(TINY, strength=1.0).generate(tmp_path / "s")
    assert second.parent == tmp_path
    assert second.name.startswith("s-strength1-seed0-")
    assert files(first) == before
    assert replace(TINY, strength=1.0).generate(tmp_path / "s") == second
    assert replace(TINY, strength=1.0).generate(second) == second


@pytest.mark.parametrize("content", [{"train.json": "{}"}, {"warped_shapes.json": "{"}])
def test_a_foreign_folder_is_an_error_and_stays(tmp_path: Path, content: dict[str, str]) -> None:
    for name, text in content.items():
        (tmp_path / name).write_text(text)
    before = files(tmp_path)
    with pytest.raises(ValueError, match=r"not made by WarpedShapes.*Pass another data\.root"):
        TINY.generate(tmp_path)
    assert files(tmp_path) == before


def test_an_empty_folder_is_used(tmp_path: Path) -> None:
    root = tmp_path / "empty"
    root.mkdir()
    assert TINY.generate(root) == root
    assert (root / "train.json").exists()


def test_an_interrupted_generation_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted_scene(options: Any, *, key: tuple[int, ...]) -> Any:
        if key[2] == 4:
            raise KeyboardInterrupt
        return draw_scene(options, key=key)

    monkeypatch.setattr(warped_shapes, "draw_scene", interrupted_scene)
    with pytest.raises(KeyboardInterrupt):
        TINY.generate(tmp_path / "s")
    assert list(tmp_path.iterdir()) == []


def test_processes_at_once_make_one_whole_folder(tiny: Path, tmp_path: Path) -> None:
    processes = [
        multiprocessing.get_context("fork").Process(target=TINY.generate, args=(tmp_path / "s",))
        for _ in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert files(tmp_path / "s") == files(tiny)
    assert [p.name for p in tmp_path.iterdir()] == ["s"]


def test_a_folder_that_came_first_is_kept(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "s"

    def slower_than_another(folder: Path, content: dict[str, Any]) -> None:
        if not root.exists():
            monkeypatch.undo()
            replace(TINY, strength=0.0).generate(root)
        warped_shapes._write_json(folder, content)

    monkeypatch.setattr(warped_shapes, "_write_json", slower_than_another)
    folder = TINY.generate(root)
    assert folder != root
    assert files(folder) == files(tiny)
    assert json.loads((root / "warped_shapes.json").read_text())["parameters"]["strength"] == 0.0


def test_says_what_it_does_once_off_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    TINY.generate(tmp_path / "s")
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"Drawing 9 images into {tmp_path / 's'}\n"


# Options


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("strength", 1.5),
        ("strength", float("nan")),
        ("affine", -0.1),
        ("seed", -1),
        ("num_train", 0),
        ("image_size", 8),
        ("objects", (4, 2)),
        ("objects", (0, 2)),
        ("scale", (0.5, 0.2)),
        ("scale", (0.0, 0.2)),
        ("min_visible", 1.1),
        ("min_visible", 0.0),
        ("clutter", -1),
        ("color_distance", -1.0),
    ],
)
def test_wrong_options_are_named(option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"WarpedShapes: {option} must be .*, got "):
        replace(TINY, **{option: value})


def test_the_config_has_the_defaults_of_the_class() -> None:
    path = Path(__file__).resolve().parents[2] / "configs" / "data" / "warped_shapes.yaml"
    source = yaml.safe_load(path.read_text())["source"]
    assert source.pop("_target_") == "detector.data.WarpedShapes"
    assert {name: tuple(v) if isinstance(v, list) else v for name, v in source.items()} == asdict(
        WarpedShapes()
    )
