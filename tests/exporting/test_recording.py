"""What a recorded graph computes, and what its files hold."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnxruntime.quantization import CalibrationDataReader, quantize_static

from tests.exporting.exported import example

pytestmark = pytest.mark.slow  # two graphs are recorded of each model

ROOT = Path(__file__).resolve().parents[2]

# In processes of their own: the tests' checks of shapes are no part of what is recorded, and a file has to do
# without this package.
RECORD = """
import sys, torch
from detector.exporting.onnx_graph import write_onnx
from detector.exporting.recording import output_names, recorded, recorded_by_torchvision
from tests import samples
torch.manual_seed(0)
model = getattr(samples, sys.argv[1])(stages=(4,))
graph, outputs = recorded(model), output_names(model)
write_onnx(graph, f"{sys.argv[2]}/graph.onnx", metadata={"made_by": "a test"}, outputs=outputs)
torch.export.save(recorded_by_torchvision(model), f"{sys.argv[2]}/graph.pt2")
"""
LOAD = """
import sys, torch, torchvision
sys.modules["detector"] = None
from example import example
outputs = torch.export.load(sys.argv[1]).module(check_guards=False)(*example())
assert not any(output.requires_grad for output in outputs)
torch.save(outputs, sys.argv[2])
"""


def run(script: str, *words: object, folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, words)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(
    scope="module", params=["small_mask_rcnn", pytest.param("small_fcos", marks=pytest.mark.nightly)]
)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """graph.onnx and graph.pt2 of a model with deformable layers, and `example`, which needs torch alone."""
    folder = tmp_path_factory.mktemp(request.param)
    run(RECORD, request.param, folder, folder=ROOT)
    (folder / "example.py").write_text((ROOT / "tests/exporting/exported.py").read_text())
    return folder


def run_onnx(file: Path) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    images, sizes = example()
    outputs: list[np.ndarray] = session.run(None, {"images": images.numpy(), "image_sizes": sizes.numpy()})
    return outputs


def test_a_pt2_gives_the_same_detections_without_this_package(folder: Path) -> None:
    run(LOAD, folder / "graph.pt2", folder / "outputs", folder=folder)
    boxes, scores, labels, *branches = torch.load(folder / "outputs", weights_only=True)
    expected = [torch.from_numpy(output) for output in run_onnx(folder / "graph.onnx")]
    assert (labels >= 0).sum() > 50
    assert torch.equal(labels, expected[2])
    torch.testing.assert_close(boxes, expected[0], atol=1e-3, rtol=0)
    torch.testing.assert_close(scores, expected[1], atol=1e-5, rtol=0)
    for branch, other in zip(branches, expected[3:], strict=True):
        torch.testing.assert_close(branch, other, atol=1e-3, rtol=0)
        assert branch[labels < 0].count_nonzero() == 0 < branch[labels >= 0].count_nonzero()


def test_files_do_not_tell_where_they_were_made(folder: Path) -> None:
    with zipfile.ZipFile(folder / "graph.pt2") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    parts["onnx"] = (folder / "graph.onnx").read_bytes()
    leaks = [
        str(ROOT),
        str(Path.home()),
        sys.prefix,
        str(folder),
        "site-packages",
        "/detector/",
        "/torch/",
        "stack_trace",
    ]
    actual = {(name, word) for name, content in parts.items() for word in leaks if word.encode() in content}
    assert not actual
    (made_by,) = onnx.load(folder / "graph.onnx").metadata_props
    assert made_by.value == "a test"


class Calibration(CalibrationDataReader):
    def __init__(self) -> None:
        images, sizes = example()
        self.batches = iter([{"images": images.numpy(), "image_sizes": sizes.numpy()}])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.batches, None)


def test_static_quantization_with_its_defaults_finds_objects(folder: Path) -> None:
    """A number far from all scores would leave these one step of int8."""
    quantize_static(folder / "graph.onnx", folder / "int8.onnx", Calibration())
    actual, expected = run_onnx(folder / "int8.onnx"), run_onnx(folder / "graph.onnx")
    assert (expected[2] >= 0).sum() > 50
    assert (actual[2] >= 0).sum() >= 0.5 * (expected[2] >= 0).sum()
    assert actual[1].max() == pytest.approx(expected[1].max(), rel=0.3)
    assert all(np.isfinite(output).all() for output in actual)
    if len(expected) > 3:
        assert actual[3].mean() == pytest.approx(expected[3].mean(), rel=0.3)


def test_quantized_convolutions_leave_keypoints_in_their_boxes(folder: Path) -> None:
    if len(run_onnx(folder / "graph.onnx")) == 3:
        pytest.skip("a model without keypoints")
    types = ["Conv", "ConvTranspose", "Gemm"]
    quantize_static(folder / "graph.onnx", folder / "int8.onnx", Calibration(), op_types_to_quantize=types)
    boxes, _, labels, _, keypoints = run_onnx(folder / "int8.onnx")
    kept = labels >= 0
    assert kept.sum() > 50
    xy, corner, opposite = keypoints[kept][..., :2], boxes[kept][:, None, :2], boxes[kept][:, None, 2:]
    assert (xy >= corner).all()
    assert (xy <= np.maximum(opposite, corner + 1)).all()


def test_no_number_in_a_graph_is_far_from_the_others(folder: Path) -> None:
    model = onnx.load(folder / "graph.onnx")
    constants = [*model.graph.initializer]
    for node in model.graph.node:
        constants += [attribute.t for attribute in node.attribute if attribute.HasField("t")]
    for tensor in constants:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype.kind == "f" and values.size:
            assert np.abs(values).max() < 1e5, tensor.name
