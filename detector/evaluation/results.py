"""Detections as COCO results, a list of `{"image_id", "category_id", "bbox": [x, y, w, h], "score"}`.

A result has its mask as "segmentation", compressed run lengths, and its "keypoints" as x, y and a score each,
if the model predicts them.

Results are rounded when they are made, not when they are written. What is evaluated in memory is then exactly
what the file holds, and evaluating the file again gives the same numbers to the last digit.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from detector.coco.ground_truth import GroundTruth
from detector.coco.ids import id_key
from detector.evaluation.result_columns import Resolved, result_columns, result_ids
from detector.files import write_text_atomically
from detector.structures import Batch, Detections

BOX_DECIMALS = 3  # whole pixels cost 0.7 AP points
SCORE_DECIMALS = 6  # fewer make ties


def detections_to_results(
    detections: Detections,
    *,
    image_id: Any,
    category_ids: Sequence[Any],
    size: tuple[int, int] | None = None,
    num_keypoints: Sequence[int] = (),
) -> list[dict[str, Any]]:
    """Return the results of one image, in the order of the detections, rounded.

    Boxes must already be in pixels of the original image. Label i becomes `category_ids[i]`. `size` is the
    (height, width) of the image, which masks need; `num_keypoints` is the number of keypoints of each class,
    which may have fewer than the model predicts, or none. () stands for all.
    """
    boxes = detections.boxes.detach().to("cpu", torch.float64)
    xywh = torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], dim=1).tolist()
    scores = detections.scores.detach().to("cpu", torch.float64).tolist()
    labels = detections.labels.tolist()
    assert all(0 <= label < len(category_ids) for label in labels)
    results = [
        {
            "image_id": image_id,
            "category_id": category_ids[label],
            "bbox": [round(v, BOX_DECIMALS) for v in box],
            "score": round(score, SCORE_DECIMALS),
        }
        for box, score, label in zip(xywh, scores, labels, strict=True)
    ]
    if detections.masks is not None or detections.keypoints is not None:
        from detector.evaluation.shape_results import add_keypoints, add_masks  # boxes do without

        add_masks(results, detections, size)
        add_keypoints(results, detections, num_keypoints)
    return results


class ResultCollector:
    """A collector of a model's detections over a dataset: the only way from `predict` to metrics.

    `image_id` gives the original id of a dataset index, `num_keypoints` is as in `detections_to_results`. An
    image seen twice (a distributed sampler pads uneven
    ranks) is kept once.
    """

    def __init__(
        self,
        *,
        image_id: Callable[[int], Any],
        category_ids: Sequence[Any],
        num_keypoints: Sequence[int] = (),
    ) -> None:
        self._image_id = image_id
        self._category_ids = tuple(category_ids)
        self._num_keypoints = tuple(num_keypoints)
        self._by_index: dict[int, list[dict[str, Any]]] = {}

    def add(self, batch: Batch, detections: Sequence[Detections]) -> None:
        """Add the detections of a batch as `predict` returns them: in pixels of the resized images."""
        sizes = zip(batch.image_sizes.tolist(), batch.original_sizes.tolist(), strict=True)
        for index, image_detections, (resized, original) in zip(
            batch.indices.tolist(), detections, sizes, strict=True
        ):
            in_file = image_detections.resized(from_size=tuple(resized), to_size=tuple(original))
            self._by_index[index] = detections_to_results(
                in_file,
                image_id=self._image_id(index),
                category_ids=self._category_ids,
                size=tuple(original),
                num_keypoints=self._num_keypoints,
            )

    def state(self) -> dict[int, list[dict[str, Any]]]:
        """Return the results by dataset index, as plain containers that another process can `merge`."""
        return dict(self._by_index)

    def merge(self, state: dict[int, list[dict[str, Any]]]) -> None:
        """Add the results in another collector's `state()`."""
        self._by_index.update(state)

    def results(self) -> list[dict[str, Any]]:
        """Return all results, with images in the order of the dataset."""
        return [result for index in sorted(self._by_index) for result in self._by_index[index]]

    def clear(self) -> None:
        self._by_index.clear()


def check_results(
    results: Sequence[Any], *, truth: GroundTruth, source: str, shape: str = "bbox"
) -> Resolved:
    """Check results and give them the ids of the ground truth, by id and by name.

    `shape` is the key that all need; only boxes are checked here.

    Raises:
        ValueError: some entries could not be evaluated, would be ignored silently, or name two images or
            classes.
    """
    from detector.evaluation.result_ids import resolve  # long, and needed only once there are results

    resolved = resolve(results, truth)
    if not resolved.problems and (ids := result_ids(resolved.results, shape)) and _are_known(*ids[:2], truth):
        if shape != "bbox":
            return resolved
        if (columns := result_columns(resolved.results)) is not None:
            return replace(resolved, columns=columns)
    from detector.evaluation.result_problems import require_valid  # the words are needed for mistakes only

    require_valid(resolved, truth, shape=shape, source=source)
    return resolved


def _are_known(image_ids: list[Any], category_ids: list[Any], truth: GroundTruth) -> bool:
    pairs = ((image_ids, truth.image_numbers), (category_ids, truth.category_numbers))
    return all({*map(id_key, {*ids})} <= numbers.keys() for ids, numbers in pairs)


def write_predictions(path: Path, results: Iterable[dict[str, Any]]) -> None:
    """Write results, one per line, atomically: the file is complete or absent."""
    lines = ",\n".join(json.dumps(result, ensure_ascii=False, allow_nan=False) for result in results)
    write_text_atomically(path, f"[\n{lines}\n]\n" if lines else "[]\n")
