"""`detector predict`: detect in images, write the detections and draw them."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from itertools import islice
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
from detector.files import GrowingFile, write_atomically
from detector.option_types import Fraction, PositiveInt
from detector.predictor import Predictor
from detector.run_folder import RunFolder
from detector.runs.accelerator import find_accelerator
from detector.runs.context import Context
from detector.runs.record import require_no_training_run, require_writable, write_record
from detector.structures import Detections


@dataclass(frozen=True)
class Options:
    """The keys of configs/predict.yaml."""

    output_dir: str
    name: str = "pictures"
    checkpoint: str | None = None
    source: str | None = None
    annotations: str | None = None
    score_threshold: Fraction = 0.3
    batch_size: PositiveInt = 4
    draw: bool = True
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
    detector.reading = _reading(options, detector.reading)
    ids = _ids(options.annotations, files, detector)
    write_record(output_dir, context)
    if source.num_skipped:
        print(f"skipped, not images by their names: {source.note()}", file=sys.stderr)
    skipped = 0
    notes: dict[Path, ImageNotes] = {}
    with ResultFiles(output_dir, detector.class_names, ids) as results:
        for number, file, image, detections in _detected(detector, files, options, notes):
            if isinstance(image, ImageFileError):
                skipped += 1
                print(f"skipped: {image}", file=sys.stderr)
                continue
            results.add(number, file, detections)
            if options.draw:
                _draw(image, detections, output_dir / "pictures" / names[number - 1], detector.class_names)
    if skipped == len(files):
        raise ValueError(f"source={options.source}: none of {len(files)} files is an image.")
    if ids.note:
        print(f"note: {ids.note}")
    _print_notes(notes, detector.reading)
    count = skipped + source.num_skipped
    skipped_note = f", {count} files skipped" if count else ""
    print(f"{results.count} boxes in {len(files) - skipped} images{skipped_note}. Written to {output_dir}")


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
        print(
            f"{len(frames)} files have several frames or pages: the first of each is read ({names})",
            file=sys.stderr,
        )
    values = [note.values for note in notes.values() if note.values is not None]
    assert reading.image_range is not None
    if note := range_note(values, image_range=reading.image_range, option="image_range"):
        print(f"warning: {note}", file=sys.stderr)


def _draw(image: np.ndarray, detections: Detections, target: Path, class_names: Sequence[str]) -> None:
    """Draw detections; report a drawing that cannot be saved (its name is too long) without failing.

    The detections are in the result files anyway.
    """
    try:
        drawing = draw_detections(image, detections, class_names=class_names)
        write_atomically(target, lambda temporary: drawing.save(temporary, format="JPEG", quality=92))
    except OSError as error:
        print(f"not drawn: {error}", file=sys.stderr)


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

    Notes on the files that were read are added to `notes`.
    """
    console = Console(stderr=True)
    shown = track(files, "Predicting", console=console, disable=not console.is_terminal)
    numbered = enumerate(shown, start=1)
    while batch := list(islice(numbered, options.batch_size)):
        images = [_load(file, detector.reading, notes) for _, file in batch]
        good = [image for image in images if isinstance(image, np.ndarray)]
        detections = iter(
            detector.predict_batch(good, score_threshold=options.score_threshold) if good else ()
        )
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
    """A writer of predictions.json and predictions.csv, image by image; both complete if interrupted."""

    def __init__(self, folder: Path, class_names: Sequence[str], ids: PredictedIds) -> None:
        self.count = 0
        self._class_names, self._ids = class_names, ids
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

    def add(self, number: int, file: Path, detections: Detections) -> None:
        """Write the detections of `file`, whose position among the files is `number`, from 1."""
        image_id = self._ids.image_ids[number - 1]
        results = detections_to_results(detections, image_id=image_id, category_ids=self._ids.category_ids)
        objects, rows = [], []
        for result, label in zip(results, detections.labels.tolist(), strict=True):
            objects.append(json.dumps({**result, "file_name": str(file)}, ensure_ascii=False))
            name = self._class_names[label]
            rows.append([str(file), image_id, result["category_id"], name, result["score"], *result["bbox"]])
        if objects:
            self._json.append((",\n" if self.count else "[\n") + ",\n".join(objects), end="\n]\n")
            self.count += len(objects)
            self._csv.append(_csv_lines(rows))


def _csv_lines(rows: Iterable[Sequence[Any]]) -> str:
    text = StringIO(newline="")
    csv.writer(text).writerows(map(harmless, row) for row in rows)
    return text.getvalue()
