"""`detector export`: write a trained detector as one file, checked against the model."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.nn import functional as F

from detector.checkpoint import Checkpoint, load_checkpoint
from detector.coco.image_files import find_images
from detector.coco.images import ImageFileError, ReadOptions
from detector.exceptions import RunError
from detector.exporting.comparison import (
    BranchDifference,
    ExportDifference,
    at_the_same_boxes,
    branch_difference,
    detections,
    difference,
)
from detector.exporting.onnx_graph import open_onnx, require_onnx, write_onnx
from detector.exporting.recording import (
    MULTIPLE_PX,
    OUTPUTS,
    MaskFrame,
    output_names,
    recorded,
    recorded_by_torchvision,
)
from detector.files import write_atomically
from detector.layers.deform import DeformConv2d
from detector.option_types import PositiveFloat
from detector.predictor import Predictor, load_image
from detector.runs.context import Context
from detector.runs.record import require_no_training_run, require_writable, write_record
from detector.structures import Batch, KeypointSchema
from detector.version import __version__

ENDINGS = {"onnx": ".onnx", "torch_export": ".pt2"}
_NUM_CHECKED = 4

Run = Callable[[Tensor, Tensor], Sequence[Tensor]]


@dataclass(frozen=True)
class Options:
    """The keys of configs/export.yaml."""

    output_dir: str
    name: str = "detector"
    checkpoint: str | None = None
    format: Literal["onnx", "torch_export"] = "onnx"
    masks: MaskFrame = "boxes"
    source: str | None = None
    box_tolerance_px: PositiveFloat = 0.1
    score_tolerance: PositiveFloat = 0.001
    mask_tolerance: PositiveFloat = 0.01
    keypoint_tolerance_px: PositiveFloat = 1.5


def run(options: Options, context: Context) -> None:
    """Write `<name>.onnx` or `<name>.pt2` to `output_dir`, and print how far it differs from the model.

    Raises:
        ValueError: the checkpoint, packages or images are missing, no file can have this name, or the model
            has parts that cannot be exported.
        RunError: the file's detections differ more than allowed, there are none to compare, or it does not
            run. It is kept as `<name>.refused.*`; an earlier file and its record stay unchanged.
    """
    _require_file_name(options.name)
    if options.checkpoint is None:
        raise ValueError("Give checkpoint=<run>/checkpoints/best.ckpt.")
    if options.format == "onnx":
        require_onnx()
    output_dir = Path(options.output_dir)
    require_writable(output_dir)
    require_no_training_run(output_dir)
    checkpoint = load_checkpoint(options.checkpoint)
    detector = Predictor(checkpoint)
    for layer in detector.model.modules():
        if isinstance(layer, DeformConv2d):
            layer.backend = "auto"  # the operator of graphs, whichever it was trained with
    images = _images_to_check(
        options.source, checkpoint, generate_into=output_dir / "data", reading=detector.reading
    )
    output_dir.mkdir(parents=True, exist_ok=True)
    ending = ENDINGS[options.format]
    unchecked, file = (output_dir / f"{options.name}{end}" for end in (f".refused{ending}", ending))
    run_file = _write(options, detector, unchecked)
    differences, branches = _compare(unchecked, run_file, detector, images, options.score_tolerance)
    if not differences.count:
        raise RunError(
            f"{unchecked} could not be checked: nothing is detected in the {len(images)} images. Give "
            "others with source=<image or folder>."
        )
    compared = _compared(options, detector.model.tasks, differences, branches)
    summary = (
        f"{differences.count} detections in {len(images)} images, together, singly and with more padding: "
        f"{', '.join(text for text, _, _ in compared)}; {differences.missing} have no counterpart"
    )
    if differences.missing or any(value > getattr(options, name) for _, name, value in compared):
        allowed = dict.fromkeys(name for _, name, _ in compared)
        raise RunError(
            f"{unchecked} does not detect what the model does: {summary}. Allowed are "
            f"{', '.join(f'{name}={getattr(options, name)}' for name in allowed)}."
        )
    unchecked.replace(file)
    write_record(output_dir, context)
    print(f"{summary}.\nWritten to {file}")


def _compared(
    options: Options, tasks: Sequence[str], boxes: ExportDifference, branches: BranchDifference
) -> list[tuple[str, str, float]]:
    """Return what was compared: a text, the option that limits it, and the value."""
    rows = [
        ("boxes differ by at most {:.2g} px", "box_tolerance_px", boxes.box_px),
        ("scores by {:.2g}", "score_tolerance", boxes.score),
    ]
    if "segm" in tasks:
        rows.append(("masks by {:.2g}", "mask_tolerance", branches.mask))
    if "keypoints" in tasks:
        rows += [
            ("99 % of the keypoints by at most {:.2g} px", "keypoint_tolerance_px", branches.keypoint_px),
            ("their scores by {:.2g}", "score_tolerance", branches.keypoint_score),
        ]
    return [(text.format(value), name, value) for text, name, value in rows]


def _require_file_name(name: str) -> None:
    if name in ("", ".", "..") or set(name) & {"/", "\\", "\0"}:
        raise ValueError(
            f"name={name!r}: expected the name of a file without its ending and without folders, such as "
            "detector. Choose another name, and the folder by output_dir=<folder>."
        )


def _images_to_check(
    source: str | None, checkpoint: Checkpoint, *, generate_into: Path, reading: ReadOptions
) -> list[np.ndarray]:
    """Return some images of the source, or else of the validation set of the training."""
    try:
        if source is not None:
            return [load_image(file, reading) for file in find_images(source).files[:_NUM_CHECKED]]
        from detector.runs.validation import open_validation  # loads the framework of training

        data = open_validation(
            checkpoint.config["data"],
            class_names=checkpoint.class_names,
            source=checkpoint.path,
            generate_into=generate_into,
        )
        shown = range(min(_NUM_CHECKED, len(data.val_set)))
        return [data.val_set.read_image(data.val_set.image_id(i)) for i in shown]
    except (ImageFileError, FileNotFoundError, ValueError) as error:
        advice = "Give other images to check the file on: source=<image or folder>."
        raise ValueError(f"{error}\n{advice}") from error


def _write(options: Options, detector: Predictor, file: Path) -> Run:
    """Write the file, and return a function that runs it."""
    metadata, outputs = _metadata(detector), output_names(detector.model)
    try:
        record = recorded if options.format == "onnx" else recorded_by_torchvision
        graph = record(detector.model, masks=options.masks)
        if options.format == "onnx":
            write_atomically(
                file, lambda temporary: write_onnx(graph, temporary, metadata=metadata, outputs=outputs)
            )
    except RuntimeError as error:
        raise ValueError(f"This model cannot be exported as {options.format}: {error}") from error
    if options.format == "onnx":
        return _opened(file)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "No complete tensor found")  # for weights on other devices
        extra = {f"{name}.json": text for name, text in metadata.items()}
        write_atomically(file, lambda temporary: _save_graph(graph, temporary, extra_files=extra))
    graph = torch.export.load(file)
    # Its guards refuse images whose coarsest level has one cell; the graph accepts them
    return graph.module(check_guards=False)


def _save_graph(graph: ExportedProgram, file: Path, *, extra_files: dict[str, str]) -> None:
    content = BytesIO()  # torch's own writer aborts the process when the disk is full
    torch.export.save(graph, content, extra_files=extra_files)
    file.write_bytes(content.getbuffer())


def _opened(file: Path) -> Run:
    try:
        return open_onnx(file)
    except Exception as error:  # onnxruntime's errors have no common base class
        raise RunError(f"{file} cannot be run: {error}") from error


def _metadata(detector: Predictor) -> dict[str, str]:
    size = detector.image_size
    keypoints = [schema and _points(schema) for schema in detector.keypoint_schemas]
    return {
        "outputs": json.dumps(output_names(detector.model)),
        "class_names": json.dumps(detector.class_names, ensure_ascii=False),
        "category_ids": json.dumps(detector.category_ids),
        "best_f1_threshold": json.dumps(detector.best_f1_threshold),
        "image_size": json.dumps({"min_size": size.choices[-1], "max_size": size.max_size}),
        "image_range": json.dumps(detector.reading.image_range),
        "keypoints": json.dumps(keypoints, ensure_ascii=False),
        "made_by": f"detector {__version__}",
    }


def _points(schema: KeypointSchema) -> dict[str, Any]:
    """Return the names of the keypoints, and the positions of those that a drawing connects."""
    pairs = [[schema.names.index(name) for name in pair] for pair in schema.skeleton]
    return {"names": schema.names, "skeleton": pairs}


def _compare(
    file: Path, run_file: Run, detector: Predictor, images: Sequence[np.ndarray], score_tolerance: float
) -> tuple[ExportDifference, BranchDifference]:
    """Compare on all images at once, on each alone, and on the first one transposed with more padding.

    The batches thus differ in number and size, even if all images are squares of one size.
    """
    batches = [detector.batch(group) for group in ([*images], *([image] for image in images))]
    batches.append(_padded(detector.batch([np.ascontiguousarray(images[0].transpose(1, 0, 2))])))
    model, names = detector.model, output_names(detector.model)
    outputs, expected, added = [], [], []
    for batch in batches:
        with torch.inference_mode():
            outputs.append(dict(zip(names, _outputs(file, run_file, batch), strict=True)))
            raw = model(batch.images, batch.image_sizes)
            expected += model.head.predict(raw)
            added.append(at_the_same_boxes(model, raw, outputs[-1]))
    actual = [one for named in outputs for one in detections(*(named[name] for name in OUTPUTS))]
    limit = outputs[0]["scores"].shape[1]
    boxes = difference(actual, expected, score_tolerance=score_tolerance, limit=limit)
    return boxes, branch_difference(outputs, added)


def _padded(batch: Batch) -> Batch:
    """Pad the batch to a larger canvas of another aspect ratio."""
    return replace(batch, images=F.pad(batch.images, (0, MULTIPLE_PX, 0, 2 * MULTIPLE_PX)))


def _outputs(file: Path, run_file: Run, batch: Batch) -> Sequence[Tensor]:
    try:
        return run_file(batch.images.contiguous(), batch.image_sizes)
    except Exception as error:  # onnxruntime's errors have no common base class
        raise RunError(
            f"{file} does not run on images of shape {tuple(batch.images.shape)}, with sides that are "
            f"multiples of {MULTIPLE_PX} as it should: {error}"
        ) from error
