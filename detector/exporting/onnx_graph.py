"""Graphs in ONNX: one file that onnxruntime runs without torch. It needs the extra `export`."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from detector.exporting.recording import INPUTS, OUTPUTS

# Else onnxruntime resolves the name of a telemetry host once a model has run for some seconds; its own switch
# can only be set after the import, which is too late (1.32).
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

OPSET = 20  # has DeformConv (since 19) and all other operators of the graphs
_EXCLUDED = 0.0  # score of excluded boxes: below all others, but near, so that the steps of int8 cover both


def require_onnx() -> None:
    """Raise ValueError if packages of the extra are not installed."""
    missing = [name for name in ("onnx", "onnxruntime", "onnxscript") if find_spec(name) is None]
    if missing:
        raise ValueError(
            f'format=onnx needs {", ".join(missing)}, not installed here: pip install "detector[export]".'
        )


def write_onnx(
    graph: ExportedProgram,
    file: Path,
    *,
    metadata: Mapping[str, str],
    outputs: Sequence[str] = OUTPUTS,
) -> None:
    """Write one file, including the weights, with `metadata` among its properties and named `outputs`.

    Raises:
        RuntimeError: a part of the graph has no counterpart in ONNX.
    """
    for chatty in ("onnx_ir", "onnxscript"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    program = torch.onnx.export(
        graph,
        dynamo=True,
        opset_version=OPSET,
        input_names=INPUTS,
        output_names=outputs,
        custom_translation_table={torch.ops.detector.padded_class_nms.default: _suppression()},
        verbose=False,
    )
    assert program is not None
    _forget_origin(program.model)
    program.model.metadata_props.update(metadata)
    program.save(file, external_data=False)


def _forget_origin(model: Any) -> None:
    """Clear the metadata of nodes and values: stack traces with paths of the recording machine."""
    for graph in (model.graph, *model.functions.values()):
        graph.metadata_props.clear()
        graph.doc_string = None
        for value in (*graph.inputs, *graph.outputs, *getattr(graph, "initializers", {}).values()):
            value.metadata_props.clear()
            value.doc_string = None
        for node in graph.all_nodes():
            node.metadata_props.clear()
            node.doc_string = None
            for value in node.outputs:
                value.metadata_props.clear()
                value.doc_string = None


def open_onnx(file: Path) -> Callable[[Tensor, Tensor], list[Tensor]]:
    """Return a function that runs the file on the CPU, from images and sizes to its outputs."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])

    def run(images: Tensor, image_sizes: Tensor) -> list[Tensor]:
        inputs = dict(zip(INPUTS, (images.numpy(), image_sizes.numpy()), strict=True))
        return [torch.from_numpy(array) for array in session.run(None, inputs)]

    return run


def _ints(op: Any, *values: int) -> Any:
    return op.Constant(value_ints=values)


def _of_mixed_labels(
    op: Any, nms: Callable[..., Any], boxes: Any, scores: Any, labels: Any, num_labels: int
) -> Any:
    """Return image and position of kept boxes, with a row of scores per label that excludes other labels."""
    every_label = op.Reshape(_ints(op, *range(num_labels)), _ints(op, 1, -1, 1))
    is_label = op.Equal(op.Unsqueeze(labels, _ints(op, 1)), every_label)
    excluded = op.Constant(value_float=_EXCLUDED)
    kept = nms(boxes, op.Where(is_label, op.Unsqueeze(scores, _ints(op, 1)), excluded))
    return op.Gather(kept, _ints(op, 0, 2), axis=1)


def _of_alternating_labels(op: Any, nms: Callable[..., Any], boxes: Any, scores: Any, num_labels: int) -> Any:
    """Return image and position of kept boxes, with each label's boxes as an image of their own.

    If each region has a box for each label, the rows of `_of_mixed_labels` would grow with the square of the
    number of labels.
    """
    count = op.Div(op.Shape(scores, start=1, end=2), _ints(op, num_labels))

    def by_label(x: Any, size: int) -> Any:
        x = op.Reshape(x, op.Concat(_ints(op, -1), count, _ints(op, num_labels, size), axis=0))
        x = op.Transpose(x, perm=[0, 2, 1, 3])
        return op.Reshape(x, op.Concat(_ints(op, -1), count, _ints(op, size), axis=0))

    kept = nms(by_label(boxes, 4), op.Transpose(by_label(scores, 1), perm=[0, 2, 1]))
    row, number = (op.Gather(kept, _ints(op, column), axis=1) for column in (0, 2))
    image, label = op.Div(row, _ints(op, num_labels)), op.Mod(row, _ints(op, num_labels))
    return op.Concat(image, op.Add(op.Mul(number, _ints(op, num_labels)), label), axis=1)


def _suppression() -> Callable[..., Any]:
    """Return the translation of `detector::padded_class_nms` to ONNX operators."""
    from onnxscript import opset20

    op: Any = opset20  # its type hints allow one tensor type at a time

    def suppress(
        boxes: Any,
        scores: Any,
        labels: Any,
        allowed: Any,
        num_labels: int,
        iou_threshold: float,
        limit: int,
        labels_alternate: bool,
        are_logits: bool,
    ) -> Any:
        excluded = op.Constant(value_float=_EXCLUDED)
        threshold = op.Constant(value_floats=[_EXCLUDED])
        if are_logits:  # shifted to at least 1, by subtractions, which quantization leaves alone
            lowest = op.ReduceMin(scores, keepdims=0)
            scores = op.Sub(scores, op.Sub(lowest, op.Constant(value_float=1.0)))

        def nms(boxes: Any, scores: Any) -> Any:
            max_boxes, iou = _ints(op, limit), op.Constant(value_floats=[iou_threshold])
            return op.NonMaxSuppression(boxes, scores, max_boxes, iou, threshold)

        allowed_scores = op.Where(allowed, scores, excluded)
        if labels_alternate:
            places = _of_alternating_labels(op, nms, boxes, allowed_scores, num_labels)
        else:
            places = _of_mixed_labels(op, nms, boxes, allowed_scores, labels, num_labels)
        # The best boxes of each image among those kept for any label
        kept_scores = op.ScatterND(op.Expand(excluded, op.Shape(scores)), places, op.GatherND(scores, places))
        padding = op.Expand(excluded, op.Concat(op.Shape(scores, start=0, end=1), _ints(op, limit), axis=0))
        best, index = op.TopK(op.Concat(kept_scores, padding, axis=1), _ints(op, limit))
        return op.Where(op.Greater(best, threshold), index, op.Constant(value_int=-1))

    return suppress
