"""`detector predict`: boxes in pictures, drawn and as files."""

from __future__ import annotations

import csv
import glob
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import StringIO
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import track

from detector.commands.csv_cells import harmless
from detector.commands.parts import find_accelerator
from detector.commands.predicted_ids import PredictedIds, counted_ids, ids_of_annotations
from detector.commands.record import require_no_training_run, require_writable, write_record
from detector.config import resolved
from detector.data import ImageFileError
from detector.evaluation import detections_to_results
from detector.files import GrowingFile, write_atomically
from detector.inference import Detector, load_picture
from detector.reports.drawings import draw_detections
from detector.structures import Detections, Fraction, PositiveInt

ENDINGS = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}


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
    accelerator: Literal["auto", "cpu", "gpu", "mps"] = "auto"


def run(cfg: DictConfig) -> None:
    """Write predictions.json (COCO results), predictions.csv and drawn pictures to `output_dir`.

    A file that is no picture is told and left out.

    Raises:
        ValueError: nothing to predict with or on, or nothing of it is a picture.
    """
    options = Options(**resolved(cfg))
    if options.checkpoint is None or options.source is None:
        raise ValueError("Give checkpoint=<run>/checkpoints/best.ckpt and source=<picture, folder or glob>.")
    output_dir = Path(options.output_dir)
    require_writable(output_dir)
    require_no_training_run(output_dir)
    device = find_accelerator(options.accelerator)
    files = find_pictures(options.source)
    names = drawn_names(files)
    if options.draw:
        _require_originals_kept(files, [output_dir / "pictures" / name for name in names])
    detector = Detector.from_checkpoint(options.checkpoint, device=device)
    ids = _ids(options.annotations, files, detector)
    write_record(output_dir, config=resolved(cfg))
    skipped = 0
    with ResultFiles(output_dir, detector.class_names, ids) as results:
        for number, file, picture, found in _detected(detector, files, options):
            if isinstance(picture, ImageFileError):
                skipped += 1
                print(f"left out: {picture}", file=sys.stderr)
                continue
            results.add(number, file, found)
            if options.draw:
                _draw(picture, found, output_dir / "pictures" / names[number - 1], detector.class_names)
    if skipped == len(files):
        raise ValueError(f"source={options.source}: none of {len(files)} files is a picture.")
    if ids.note:
        print(f"note: {ids.note}")
    left_out = f", {skipped} files left out" if skipped else ""
    print(f"{results.count} boxes in {len(files) - skipped} pictures{left_out}. Written to {output_dir}")


def _ids(annotations: str | None, files: Sequence[Path], detector: Detector) -> PredictedIds:
    names, ids = detector.class_names, detector.category_ids
    if annotations is None:
        return counted_ids(files, ids)
    return ids_of_annotations(annotations, files, class_names=names, category_ids=ids)


def _draw(picture: np.ndarray, found: Detections, target: Path, class_names: Sequence[str]) -> None:
    """A drawing that cannot be kept (a name that is too long) is told: the detections are written."""
    try:
        drawing = draw_detections(picture, found, class_names=class_names)
        write_atomically(target, lambda temporary: drawing.save(temporary, format="JPEG", quality=92))
    except OSError as error:
        print(f"not drawn: {error}", file=sys.stderr)


def find_pictures(source: str) -> list[Path]:
    """The files that `source` names: itself, those in the folder, of the glob or in the text file.

    Raises:
        ValueError: there are none.
    """
    path = Path(source)
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.suffix.lower() in ENDINGS and p.is_file())
        expected = f"a folder with pictures ({', '.join(sorted(ENDINGS))})"
    elif path.suffix.lower() == ".txt" and path.is_file():
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        files = [path.parent / line.strip() for line in lines if line.strip()]
        expected = "a text file with a path a line"
    else:
        files = [path] if path.is_file() else [Path(p) for p in sorted(glob.glob(source, recursive=True))]
        files = [p for p in files if p.is_file()]
        expected = "a picture, a folder, a glob or a text file with paths"
    if not files:
        raise ValueError(f"source={source}: found no file. Expected {expected}.")
    return files


def drawn_names(files: Sequence[Path]) -> list[str]:
    """Where the drawings go: as the files lie below the folder that all share, so that no two collide."""
    paths = [os.path.abspath(file) for file in files]
    shared = os.path.commonpath({os.path.dirname(path) for path in paths})
    names: dict[str, None] = {}
    for path in paths:
        name = os.path.relpath(path, shared)
        while name in names or not name.lower().endswith((".jpg", ".jpeg")):
            name += ".jpg"
        names[name] = None
    return list(names)


def _require_originals_kept(files: Sequence[Path], drawings: Sequence[Path]) -> None:
    lost = {file.resolve() for file in files} & {drawing.resolve() for drawing in drawings}
    if lost:
        raise ValueError(f"The drawing of {min(lost)} would replace it. Choose another output_dir.")


def _detected(
    detector: Detector, files: Sequence[Path], options: Options
) -> Iterator[tuple[int, Path, Any, Any]]:
    """Number (from 1), file, picture or the error that stands for it, detections; a batch at a time."""
    console = Console(stderr=True)
    shown = track(files, "Predicting", console=console, disable=not console.is_terminal)
    numbered = enumerate(shown, start=1)
    while batch := list(islice(numbered, options.batch_size)):
        pictures = [_load(file) for _, file in batch]
        good = [picture for picture in pictures if isinstance(picture, np.ndarray)]
        found = iter(detector.predict_batch(good, score_threshold=options.score_threshold) if good else ())
        for (number, file), picture in zip(batch, pictures, strict=True):
            yield number, file, picture, next(found) if isinstance(picture, np.ndarray) else None


def _load(file: Path) -> np.ndarray | ImageFileError:
    try:
        return load_picture(file)
    except ImageFileError as error:
        return error


class ResultFiles:
    """predictions.json and predictions.csv, written picture by picture; complete files even where a run is
    interrupted."""

    def __init__(self, folder: Path, class_names: Sequence[str], ids: PredictedIds) -> None:
        self.count = 0
        self._class_names, self._ids = class_names, ids
        self._folder = folder

    def __enter__(self) -> ResultFiles:
        self._json = GrowingFile(self._folder / "predictions.json")
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

    def add(self, number: int, file: Path, found: Detections) -> None:
        """Write the detections of the file whose place among the files is `number`, from 1."""
        image_id = self._ids.image_ids[number - 1]
        results = detections_to_results(found, image_id=image_id, category_ids=self._ids.category_ids)
        objects, rows = [], []
        for result, label in zip(results, found.labels.tolist(), strict=True):
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
