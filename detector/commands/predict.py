"""`detector predict`: detect in images, write the detections and draw them."""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from itertools import islice
from math import floor
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console
from rich.progress import track

from detector.coco.image_files import find_images
from detector.coco.image_values import range_note, require_ascending
from detector.coco.images import ImageFileError, ImageNotes, ReadOptions, read_image_with_notes
from detector.commands.csv_cells import harmless
from detector.commands.predicted_ids import PredictedIds, counted_ids, ids_of_annotations
from detector.drawings import draw_detections
from detector.evaluation.results import detections_to_results
from detector.evaluation.tasks import NOUNS
from detector.files import GrowingFile, write_atomically
from detector.option_types import PositiveInt, ScoreThreshold
from detector.predictor import Predictor
from detector.run_folder import RunFolder
from detector.runs.accelerator import find_accelerator
from detector.runs.console import echo
from detector.runs.context import Context
from detector.runs.record import require_no_training_run, require_writable, write_record
from detector.structures import Detections

_SHOWN = 10  # classes in the counts


@dataclass(frozen=True)
class Options:
    """The keys of configs/predict.yaml."""

    output_dir: str
    name: str = "pictures"
    checkpoint: str | None = None
    source: str | None = None
    annotations: str | None = None
    score_threshold: ScoreThreshold = "auto"
    batch_size: PositiveInt = 4
    draw: bool = True
    masks: Literal["rle", "polygons"] = "rle"
    image_range: Literal["full"] | tuple[float, float] | None = None
    max_image_pixels: PositiveInt | None = None
    accelerator: Literal["auto", "cpu", "gpu", "mps"] = "auto"


def run(options: Options, context: Context) -> None:
    """Write predictions.json (COCO results), predictions.csv and drawings to `output_dir`.

    Files that are no images or cannot be read are counted, reported and skipped.

    Raises:
        ValueError: the checkpoint or the source is missing, or no file is an image.
    """
    if options.checkpoint is None or options.source is None:
        raise ValueError("Give checkpoint=<run>/checkpoints/best.ckpt and source=<image, folder or glob>.")
    output_dir = Path(options.output_dir)
    require_writable(output_dir)
    require_no_training_run(output_dir)
    device = find_accelerator(options.accelerator)
    source = find_images(options.source)
    files = source.files
    names = drawn_names(files)
    if options.draw:
        _require_no_overwrite(files, [output_dir / "pictures" / name for name in names])
    detector = Predictor(options.checkpoint, device=device)
    if options.masks == "polygons" and "segm" not in detector.model.tasks:
        raise ValueError(f"masks=polygons: {options.checkpoint} predicts no masks. Leave the option out.")
    detector.reading = _reading(options, detector.reading)
    ids = _ids(options.annotations, files, detector)
    write_record(output_dir, context)
    threshold = detector.lowest_score(options.score_threshold)
    echo(f"score threshold: {_threshold_text(options.score_threshold, detector)}")
    if source.num_skipped:
        echo(f"skipped: not images by their names: {source.note()}", error=True)
    skipped = 0
    notes: dict[Path, ImageNotes] = {}
    best = Best()
    counts = [0 if schema is None else len(schema.names) for schema in detector.keypoint_schemas]
    polygons = options.masks == "polygons"
    with ResultFiles(
        output_dir, detector.class_names, ids, num_keypoints=counts, polygons=polygons
    ) as results:
        for number, file, image, detections in _detected(detector, files, options, notes):
            if isinstance(image, ImageFileError):
                skipped += 1
                echo(f"skipped: {image}", error=True)
                continue
            best.add(file, detections)
            detections = detections[detections.scores >= threshold]
            results.add(number, file, detections, size=image.shape[:2])
            if options.draw:
                _draw(image, detections, output_dir / "pictures" / names[number - 1], detector.class_names)
    if skipped == len(files):
        raise ValueError(f"source={options.source}: none of {len(files)} files is an image.")
    if ids.note:
        echo(f"note: {ids.note}", error=True)
    _print_notes(notes, detector.reading)
    images = _counted(len(files) - skipped, "image")
    if not results.count:
        echo(f"note: no box in {images} reaches score_threshold={threshold:g}: {best.note()}", error=True)
    count = skipped + source.num_skipped
    skipped_note = f", {_counted(count, 'file')} skipped" if count else ""
    echo(f"{_predicted(detector)}: {results.count}{_by_class(results.counts)} in {images}{skipped_note}")
    echo(f"Written to {output_dir}")


class Best:
    """The highest score of any box, whatever the threshold, and the file with it."""

    def __init__(self) -> None:
        self.score = 0.0
        self.file: Path | None = None

    def add(self, file: Path, detections: Detections) -> None:
        score = max(detections.scores.tolist(), default=0.0)
        if score > self.score:
            self.score, self.file = score, file

    def note(self) -> str:
        """Say what the score was, and which threshold it reaches."""
        if self.file is None:
            return "the model returns no box at all"
        reached = floor(1000 * self.score) / 1000
        return (
            f"the best score was {self.score:.3f} ({self.file.name}). Lower the threshold: "
            f"score_threshold={reached:g}"
        )


def _threshold_text(chosen: ScoreThreshold, detector: Predictor) -> str:
    threshold = f"{detector.lowest_score(chosen):g}"
    if chosen != "auto":
        return threshold
    if detector.best_f1_threshold is None:
        return f"{threshold} (the checkpoint has no best F1 on validation)"
    return f"{threshold} (best F1 on validation)"


def _predicted(detector: Predictor) -> str:
    """Return what the model predicts, as in "boxes, masks and keypoints"."""
    *others, last = (NOUNS[task] for task in detector.model.tasks)
    return f"{', '.join(others)} and {last}" if others else last


def _by_class(counts: Counter[str]) -> str:
    """Return the numbers of boxes by class in parentheses, most frequent first; "" without boxes."""
    most = [f"{count} {name}" for name, count in counts.most_common(_SHOWN)]
    more = ", ..." if len(counts) > _SHOWN else ""
    return f" ({', '.join(most)}{more})" if most else ""


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


def _ids(annotations: str | None, files: Sequence[Path], detector: Predictor) -> PredictedIds:
    names, ids = detector.class_names, detector.category_ids
    if annotations is None:
        return counted_ids(files, ids)
    return ids_of_annotations(annotations, files, class_names=names, category_ids=ids)


def _reading(options: Options, trained: ReadOptions) -> ReadOptions:
    """Return how images are read: as in training, unless the options say otherwise."""
    if options.image_range is not None:
        require_ascending(options.image_range)
    return ReadOptions(
        trained.image_range if options.image_range is None else options.image_range,
        options.max_image_pixels or trained.max_pixels,
    )


def _print_notes(notes: Mapping[Path, ImageNotes], reading: ReadOptions) -> None:
    """Report images that use only their first frame, or a small part of a large range of values."""
    frames = [file.name for file, note in notes.items() if note.has_frames]
    if frames:
        names = ", ".join(frames[:5]) + (", ..." if len(frames) > 5 else "")
        have = "1 file has" if len(frames) == 1 else f"{len(frames)} files have"
        echo(f"note: {have} several frames or pages: the first of each is read ({names})", error=True)
    values = [note.values for note in notes.values() if note.values is not None]
    assert reading.image_range is not None
    if note := range_note(values, image_range=reading.image_range, option="image_range"):
        echo(f"warning: {note}", error=True)


def _draw(image: np.ndarray, detections: Detections, target: Path, class_names: Sequence[str]) -> None:
    """Draw detections; report a drawing that cannot be saved (its name is too long) without failing.

    The detections are in the result files anyway.
    """
    try:
        drawing = draw_detections(image, detections, class_names=class_names)
        write_atomically(target, lambda temporary: drawing.save(temporary, format="JPEG", quality=92))
    except OSError as error:
        echo(f"not drawn: {error}", error=True)


def drawn_names(files: Sequence[Path]) -> list[str]:
    """Return the drawings' paths: the files' own relative to their common folder, so that none collide."""
    paths = [os.path.abspath(file) for file in files]
    shared = os.path.commonpath({os.path.dirname(path) for path in paths})
    names: dict[str, None] = {}
    for path in paths:
        name = os.path.relpath(path, shared)
        while name in names or not name.lower().endswith((".jpg", ".jpeg")):
            name += ".jpg"
        names[name] = None
    return list(names)


def _require_no_overwrite(files: Sequence[Path], drawings: Sequence[Path]) -> None:
    lost = {file.resolve() for file in files} & {drawing.resolve() for drawing in drawings}
    if lost:
        raise ValueError(f"The drawing of {min(lost)} would replace it. Choose another output_dir.")


def _detected(
    detector: Predictor, files: Sequence[Path], options: Options, notes: dict[Path, ImageNotes]
) -> Iterator[tuple[int, Path, Any, Any]]:
    """Yield number (from 1), file, image or its read error, and detections; a batch is processed at a time.

    Detections are those of any score. Notes on the files that were read are added to `notes`.
    """
    console = Console(stderr=True)
    shown = track(files, "Predicting", console=console, disable=not console.is_terminal)
    numbered = enumerate(shown, start=1)
    while batch := list(islice(numbered, options.batch_size)):
        images = [_load(file, detector.reading, notes) for _, file in batch]
        good = [image for image in images if isinstance(image, np.ndarray)]
        detections = iter(detector.predict_batch(good, score_threshold=0.0))
        for (number, file), image in zip(batch, images, strict=True):
            yield number, file, image, next(detections) if isinstance(image, np.ndarray) else None


def _load(file: Path, reading: ReadOptions, notes: dict[Path, ImageNotes]) -> np.ndarray | ImageFileError:
    try:
        image, note = read_image_with_notes(file, declared_size=None, options=reading)
    except ImageFileError as error:
        return error
    if note.has_frames or note.values is not None:
        notes[file] = note
    return image


class ResultFiles:
    """A writer of predictions.json and predictions.csv, image by image; both complete if interrupted.

    `num_keypoints` is that of each class; with `polygons`, masks are written as these, else as run lengths.
    """

    def __init__(
        self,
        folder: Path,
        class_names: Sequence[str],
        ids: PredictedIds,
        *,
        num_keypoints: Sequence[int] = (),
        polygons: bool = False,
    ) -> None:
        self.counts: Counter[str] = Counter()  # by class
        self._polygons = polygons
        self._class_names, self._ids, self._num_keypoints = class_names, ids, num_keypoints
        self._folder = folder

    def __enter__(self) -> ResultFiles:
        self._json = GrowingFile(RunFolder(self._folder).predictions)
        self._json.append("", end="[]\n")
        self._csv = GrowingFile(self._folder / "predictions.csv")
        header = ["file", "image_id", "category_id", "class", "score", "x", "y", "width", "height"]
        self._csv.append(_csv_lines([header]))
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            self._json.close()
        finally:
            self._csv.close()

    @property
    def count(self) -> int:
        return self.counts.total()

    def add(self, number: int, file: Path, detections: Detections, *, size: tuple[int, int]) -> None:
        """Write the detections of `file`, whose position among the files is `number`, from 1.

        `size` is the (height, width) of its image.
        """
        image_id = self._ids.image_ids[number - 1]
        results = detections_to_results(
            detections,
            image_id=image_id,
            category_ids=self._ids.category_ids,
            size=size,
            num_keypoints=self._num_keypoints,
        )
        if self._polygons:
            _write_as_polygons(results)
        objects, rows = [], []
        for result, label in zip(results, detections.labels.tolist(), strict=True):
            name = self._class_names[label]
            row = {**result, "category_name": name, "file_name": str(file)}
            objects.append(json.dumps(row, ensure_ascii=False))
            rows.append([str(file), image_id, result["category_id"], name, result["score"], *result["bbox"]])
        if objects:
            self._json.append((",\n" if self.count else "[\n") + ",\n".join(objects), end="\n]\n")
            self.counts.update(self._class_names[label] for label in detections.labels.tolist())
            self._csv.append(_csv_lines(rows))


def _write_as_polygons(results: Sequence[dict[str, Any]]) -> None:
    """Replace the run lengths of masks by polygons; an empty mask, which has none, keeps them."""
    from detector.coco.outlines import polygons  # most models predict no masks

    for result in results:
        mask = result["segmentation"]
        result["segmentation"] = polygons(mask["counts"].encode(), height=mask["size"][0]) or mask


def _csv_lines(rows: Iterable[Sequence[Any]]) -> str:
    text = StringIO(newline="")
    csv.writer(text).writerows(map(harmless, row) for row in rows)
    return text.getvalue()
