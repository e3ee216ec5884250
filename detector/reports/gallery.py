"""The images of a report with their objects, as columns that the page's script draws, filters and sorts."""

# N images, D detections, G objects

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from detector.coco.ground_truth import GroundTruth
from detector.evaluation.errors import image_f1
from detector.evaluation.matching import Matched
from detector.evaluation.outcomes import (
    BACKGROUND,
    CLASSIFICATION,
    RIGHT,
    Objects,
    Outcomes,
    outcomes,
)

if TYPE_CHECKING:
    from detector.reports.shapes import DrawnShapes, TaskShapes

ReadImage = Callable[[Any], np.ndarray]  # image id -> uint8 RGB, height x width x 3
Columns = dict[str, Any]

_BUDGET_BYTES = 13_000_000  # of all thumbnails, in base64
_BYTES_A_PIXEL = 0.3  # of a JPEG at this quality, in base64; few images need more
_SMALLEST_SIDE_PX, _LARGEST_SIDE_PX, _QUALITY = 200, 640, 78
_DETECTIONS = 60_000  # in all images; those with the lowest scores are left out
_LOWEST_SCORE = 0.05
_SUSPECTS = 12
_READERS = 4  # threads


@dataclass(frozen=True)
class ModelImages:
    """The outcomes of a model's detections, the score from which they count, and F1 of each image (N).

    `shapes` are the masks and keypoints that are drawn beside boxes.
    """

    outcomes: Outcomes
    objects: Objects
    truth: GroundTruth
    score: float
    image_f1: np.ndarray
    shapes: tuple[DrawnShapes, ...] = ()

    @classmethod
    def of(cls, matched: Matched, *, score: float, tasks: Sequence[TaskShapes] = ()) -> ModelImages:
        """Keep what a gallery needs, without the matches, until all models are known.

        `tasks` are other tasks of the same detections, whose shapes are drawn as those of the matched are.
        """
        f1 = image_f1(matched, score=score)
        kept = outcomes(matched)
        shapes: tuple[DrawnShapes, ...] = ()
        if matched.rows.shapes is not None or tasks:
            from detector.reports.shapes import DrawnShapes  # boxes do without

            own = [(matched.rows, matched.truth)] if matched.rows.shapes is not None else []
            by_task = {rows.shapes.task: (rows, truth) for rows, truth in (*tasks, *own) if rows.shapes}
            drawn = (DrawnShapes.of(matched.rows, matched.truth, one) for one in by_task.values())
            shapes = tuple(one for one in drawn if one is not None)
        return cls(kept, Objects.of(matched), matched.truth, score, f1, shapes)


@dataclass(frozen=True)
class Changed:
    """An image id and the F1 of each model."""

    image: str
    f1: Mapping[str, float]


@dataclass(frozen=True)
class Changes:
    """The images that changed most from `a` to `b`, for the better and for the worse, and their gallery.

    `runs` says which run of each is shown, where there are several.
    """

    condition: str
    a: str
    b: str
    gained: Sequence[Changed]
    lost: Sequence[Changed]
    gallery: Columns | None = None
    runs: str = ""


def changes(
    models: Mapping[str, ModelImages], *, condition: str, runs: str, read: ReadImage | None, count: int
) -> Changes:
    """Return at most `count` images that gained most from the first model to the second, and lost most."""
    (a, before), (b, after) = models.items()
    gained, lost = most_changed(before.image_f1, after.image_f1, count=count)

    def f1_of(numbers: Sequence[int]) -> list[Changed]:
        ids = _ids(before.truth, numbers)
        return [
            Changed(str(image_id), {name: float(m.image_f1[i]) for name, m in models.items()})
            for i, image_id in zip(numbers, ids, strict=True)
        ]

    shown = gallery(models, read=read, images=[*gained, *lost]) if gained or lost else None
    return Changes(condition, a, b, f1_of(gained), f1_of(lost), shown, runs)


def most_changed(before: np.ndarray, after: np.ndarray, *, count: int) -> tuple[list[int], list[int]]:
    """Return at most `count` images that gained most, and that lost most, the greatest change first."""
    change = after - before
    order = np.argsort(-change, kind="stable")
    gained = [int(i) for i in order[:count] if change[i] > 0]
    lost = [int(i) for i in order[::-1][:count] if change[i] < 0]
    return gained, lost


def chosen_images(model: ModelImages, suspects: Mapping[str, np.ndarray]) -> list[int]:
    """Return all images, the first to be shown first: suspects, then the worst and a sample by turns."""
    first = [*model.objects.images[suspects["unfound"]]]
    for kind in ("unboxed", "renamed"):
        first += [*(model.outcomes.rows.images[suspects[kind]] - 1)]
    worst = np.argsort(model.image_f1, kind="stable")
    sample = np.random.default_rng(0).permutation(len(worst))
    turns = np.stack([worst, sample], axis=1).ravel()
    return list(dict.fromkeys(int(i) for i in (*first, *turns)))


def label_suspects(model: ModelImages) -> dict[str, np.ndarray]:
    """Return detections and objects whose labels are likely wrong, the likeliest first.

    `unboxed` are detections from the score on, where no object is; `renamed` those with the box of an object
    of another class that is not found as its own; `unfound` objects that no detection of any class has, at
    half that score.
    """
    result, objects = model.outcomes, model.objects
    scores = result.rows.scores
    best_first = np.argsort(-scores, kind="stable")
    confident = best_first[scores[best_first] >= model.score]
    held = np.zeros(len(objects.images), dtype=bool)
    held[result.objects[confident[result.kinds[confident] == RIGHT]]] = True
    renamed = confident[result.kinds[confident] == CLASSIFICATION]
    renamed = renamed[~held[result.objects[renamed]]]
    _, once = np.unique(result.objects[renamed], return_index=True)
    best_score = np.zeros(len(objects.images))
    near = (result.overlaps >= 0.5) & (result.objects >= 0)
    np.maximum.at(best_score, result.objects[near], scores[near])
    unfound = np.argsort(best_score, kind="stable")
    unfound = unfound[(best_score[unfound] < model.score / 2) & ~objects.ignored[unfound]]
    return {
        "unboxed": confident[result.kinds[confident] == BACKGROUND][:_SUSPECTS],
        "renamed": renamed[np.sort(once)][:_SUSPECTS],
        "unfound": unfound[:_SUSPECTS],
    }


def gallery(
    models: Mapping[str, ModelImages],
    *,
    read: ReadImage | None,
    images: Sequence[int] | None = None,
) -> Columns:
    """Return the columns of these images (numbers from 0), or of all, while thumbnails have room.

    Without `read`, boxes are shown alone.
    """
    first = next(iter(models.values()))
    suspects = label_suspects(first)
    numbers = chosen_images(first, suspects) if images is None else [*images]
    thumbnails = [None] * len(numbers) if read is None else _thumbnails(_ids(first.truth, numbers), read)
    shown = numbers[: len(thumbnails)]
    place = np.full(first.truth.num_images, -1)
    place[shown] = np.arange(len(shown))
    objects, object_place = _object_columns(first, place)
    floor = _lowest_score(models.values(), place)
    built = {
        name: _model_columns(m, place, object_place, floor=floor, models=len(models))
        for name, m in models.items()
    }
    row_place = next(iter(built.values()))[1]
    places = {"unfound": object_place, "unboxed": row_place, "renamed": row_place}
    return {
        "classes": [*first.truth.class_names],
        "images": _image_columns(first, shown, thumbnails, objects["box"], objects["image"]),
        "objects": objects,
        "models": [{"name": name, **columns} for name, (columns, _) in built.items()],
        "floor": floor,
        "suspects": {kind: [int(i) for i in places[kind][rows] if i >= 0] for kind, rows in suspects.items()},
        "num_images": first.truth.num_images,
        "bones": _bones(first),
    }


def boxed_image(pixels: np.ndarray, *, name: str, side_px: int = 320) -> Columns:
    """Return the columns of an image (uint8 RGB, height x width x 3)."""
    height, width = pixels.shape[:2]
    return {"name": name, "width": width, "height": height, "thumb": _address(pixels, side_px)}


def _ids(truth: GroundTruth, numbers: Sequence[int]) -> list[Any]:
    ids = [value for _, value in truth.image_numbers]
    return [ids[number] for number in numbers]


def _thumbnails(ids: Sequence[Any], read: ReadImage) -> list[tuple[str, int, int] | None]:
    """Return the address and the size of each image, as long as they fit the budget."""
    side = round((_BUDGET_BYTES / max(1, len(ids)) / _BYTES_A_PIXEL) ** 0.5)
    side = min(max(side, _SMALLEST_SIDE_PX), _LARGEST_SIDE_PX)

    def thumbnail(image_id: Any) -> tuple[str, int, int]:
        pixels = read(image_id)
        return _address(pixels, side), pixels.shape[1], pixels.shape[0]

    thumbnails: list[tuple[str, int, int] | None] = []
    size = 0
    with ThreadPoolExecutor(_READERS) as pool:
        for start in range(0, len(ids), 8 * _READERS):
            for one in pool.map(thumbnail, ids[start : start + 8 * _READERS]):
                size += len(one[0])
                if size > _BUDGET_BYTES:
                    return thumbnails
                thumbnails.append(one)
    return thumbnails


def _address(pixels: np.ndarray, side_px: int) -> str:
    """Return the image as a JPEG in a data: URL, at most `side_px` long."""
    small = Image.fromarray(pixels)
    small.thumbnail((side_px, side_px), reducing_gap=2.0)
    data = io.BytesIO()
    small.save(data, format="JPEG", quality=_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"


def _image_columns(
    model: ModelImages,
    shown: Sequence[int],
    thumbnails: Sequence[tuple[str, int, int] | None],
    boxes: Sequence[float],
    images: Sequence[int],
) -> list[Columns]:
    """Return name, size and thumbnail of each image; without a size it is that of its boxes."""
    corners = np.ones((len(shown), 2))
    edges = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    np.maximum.at(corners, np.array(images, dtype=np.int64), edges[:, :2] + edges[:, 2:])
    names = [
        model.truth.file_names[i] or str(image_id)
        for i, image_id in zip(shown, _ids(model.truth, shown), strict=True)
    ]
    columns = []
    for number, (i, thumbnail) in enumerate(zip(shown, thumbnails, strict=True)):
        height, width = model.truth.annotations.sizes[i]
        address, width, height = thumbnail or (
            None,
            width or corners[number, 0],
            height or corners[number, 1],
        )
        columns.append(
            {"name": names[number], "width": float(width), "height": float(height), "thumb": address}
        )
    return columns


def _object_columns(model: ModelImages, place: np.ndarray) -> tuple[Columns, np.ndarray]:
    """Return the objects of the shown images, and each annotation's place among them (G), -1 for none."""
    objects = model.objects
    rows = np.flatnonzero(place[objects.images] >= 0)
    columns = {
        "image": place[objects.images[rows]].tolist(),
        "class": objects.classes[rows].tolist(),
        "ignored": objects.ignored[rows].astype(int).tolist(),
        "box": _flat(objects.boxes_xywh[rows]),
    }
    if model.shapes:
        from detector.reports.shapes import object_columns  # boxes do without

        columns |= object_columns(model.shapes, rows, objects.images[rows])
    return columns, _inverse(rows, len(objects.images))


def _model_columns(
    model: ModelImages, place: np.ndarray, object_place: np.ndarray, *, floor: float, models: int
) -> tuple[Columns, np.ndarray]:
    """Return the detections of the shown images, and the place of each row among them (D), -1 for none."""
    result, rows = model.outcomes, model.outcomes.rows
    shown = np.flatnonzero((place[rows.images - 1] >= 0) & (result.kinds >= 0) & (rows.scores >= floor))
    chosen = rows.selected(shown)
    objects = result.objects[shown]
    columns = {
        "threshold": round(model.score, 6),
        "image": place[chosen.images - 1].tolist(),
        "class": (chosen.categories - 1).tolist(),
        "score": np.round(chosen.scores, 6).tolist(),
        "box": _flat(chosen.boxes_xywh),
        "kind": result.kinds[shown].tolist(),
        "object": np.where(objects >= 0, object_place[objects], -1).tolist(),
        "overlap": np.round(result.overlaps[shown], 3).tolist(),
    }
    if model.shapes:
        from detector.reports.shapes import detection_columns  # boxes do without

        columns |= detection_columns(model.shapes, rows, shown, models=models)
    return columns, _inverse(shown, len(rows.scores))


def _bones(model: ModelImages) -> list[list[tuple[int, int]]]:
    """Return for each class the pairs of keypoints that lines join; empty if none are drawn."""
    if not model.shapes:
        return []
    from detector.reports.shapes import bones  # boxes do without

    return bones(model.shapes, model.truth.class_names)


def _lowest_score(models: Collection[ModelImages], place: np.ndarray) -> float:
    """Return the score below which detections are left out: 0.05 or half of a model's own, or what fits."""
    wanted = min(_LOWEST_SCORE, *(model.score / 2 for model in models))
    scores = np.concatenate([m.outcomes.rows.scores[place[m.outcomes.rows.images - 1] >= 0] for m in models])
    fitting = np.sort(scores)[-_DETECTIONS] if len(scores) > _DETECTIONS else wanted
    return float(np.floor(max(wanted, fitting) * 1000) / 1000)


def _inverse(rows: np.ndarray, count: int) -> np.ndarray:
    place = np.full(count, -1)
    place[rows] = np.arange(len(rows))
    return place


def _flat(boxes: np.ndarray) -> list[float]:
    return [round(value, 1) for value in boxes.ravel().tolist()]
