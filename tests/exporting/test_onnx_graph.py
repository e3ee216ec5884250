"""Suppression in ONNX's operators: that of the model, in little memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from detector.exporting.onnx_graph import OPSET, _suppression
from detector.ops.nms import batch_class_nms, padded_class_nms
from detector.structures import Candidates

LABELS, REGIONS, LIMIT = 7, 60, 50


class Suppression(nn.Module):
    """Of candidates like these."""

    def __init__(self, case: Candidates) -> None:
        super().__init__()
        self.case = case

    def forward(self, boxes: Tensor, scores: Tensor, labels: Tensor, allowed: Tensor) -> Tensor:
        case = replace(self.case, boxes=boxes, scores=scores, labels=labels, allowed=allowed)
        return padded_class_nms(case)


def candidates(images: int, *, alternating: bool) -> Candidates:
    """Of scores without ties, a third not allowed, and of the last image nearly all."""
    generator = torch.Generator().manual_seed(0)
    count = REGIONS * LABELS
    xy = torch.rand(images, count, 2, generator=generator) * 60
    boxes = torch.cat([xy, xy + 10 + torch.rand(images, count, 2, generator=generator) * 30], dim=-1)
    scores = torch.stack([torch.randperm(count, generator=generator) for _ in range(images)]) / count
    labels = torch.arange(LABELS).repeat(REGIONS).expand(images, -1)
    if not alternating:
        labels = torch.randint(0, LABELS, (images, count), generator=generator)
    allowed = scores > 1 / 3
    allowed[-1] &= scores[-1] > 0.95
    return Candidates(boxes, scores, labels, allowed, LABELS, 0.5, LIMIT, alternating)


def inputs(case: Candidates) -> dict[str, Tensor]:
    return {name: getattr(case, name).contiguous() for name in ("boxes", "scores", "labels", "allowed")}


def written(case: Candidates, file: Path) -> Path:
    """The suppression of any number of images: the indices, and the scores that `NonMaxSuppression` takes."""
    batch = torch.export.Dim("batch")
    shapes = {name: {0: batch} for name in inputs(case)}
    graph = torch.export.export(Suppression(case), (), inputs(case), dynamic_shapes=shapes)
    program = torch.onnx.export(
        graph,
        dynamo=True,
        opset_version=OPSET,
        output_names=["index"],
        custom_translation_table={torch.ops.detector.padded_class_nms.default: _suppression()},
        verbose=False,
    )
    assert program is not None
    program.save(file)
    model = onnx.load(file)
    (node,) = (node for node in model.graph.node if node.op_type == "NonMaxSuppression")
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info(node.input[1]))
    onnx.save(model, file)
    return file


@pytest.mark.parametrize("alternating", [True, False])
def test_suppression_in_onnx_is_that_of_the_model(alternating: bool, tmp_path: Path) -> None:
    session = onnxruntime.InferenceSession(
        written(candidates(2, alternating=alternating), tmp_path / "nms.onnx"),
        providers=["CPUExecutionProvider"],
    )
    case = candidates(3, alternating=alternating)
    index, scores = session.run(None, {name: value.numpy() for name, value in inputs(case).items()})
    for row, expected in zip(index, batch_class_nms(case), strict=True):
        assert row.tolist() == expected.tolist() + [-1] * (LIMIT - len(expected))
    kept = (index >= 0).sum(axis=1)
    assert (kept[:2] == LIMIT).all()
    assert 0 < kept[2] < LIMIT
    if alternating:  # else their number would grow with the square of the labels
        assert np.size(scores) == case.scores.numel()
