"""`detector export`: files that detect what the model does, or are refused."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from detector.cli.main import main
from detector.coco.images import ReadOptions
from detector.commands import export
from detector.data.transforms import ImageSize
from detector.exporting.comparison import detections, difference
from detector.exporting.recording import ExportableDetector, recorded
from detector.heads.fcos import FCOSHead
from detector.layers.roi_pooling import DeformRoIPool
from detector.predictor import Predictor
from detector.structures import Detections, KeypointSchema
from tests.samples import small_faster_rcnn
from tests.training.tiny import run_training, with_shapes, write_dataset

MODELS = {
    "fcos": ["model.head.score_threshold=0.0001"],
    "deformable fcos": [
        "model/backbone/deform=v4",
        "model.backbone.deform.stages=[4]",
        "model.head.deformable_convs=last",
    ],
    "faster_rcnn": ["model=faster_rcnn_small", "model.backbone.out_stages=[2,3,4]"],
    "deformable faster_rcnn": [
        "model=faster_rcnn_small",
        "model.backbone.out_stages=[2,3,4]",
        "model.backbone.deform.stages=[4]",
        "model.neck.deformable_levels=[3]",
        "model/head/roi/pooling=deform_v2",
        "model.head.roi.pooling.width=32",
    ],
    "masks and keypoints": [
        "model=mask_rcnn_small",
        "model.backbone.out_stages=[2,3,4]",
        "+model/head/roi/branch@model.head.roi.branches.keypoint=keypoint",
        *(f"model.head.roi.branches.{kind}.num_convs=1" for kind in ("mask", "keypoint")),
        *(f"model.head.roi.branches.{kind}.width=32" for kind in ("mask", "keypoint")),
    ],
}


# In a process of its own: the tests' checks of shapes are no part of what is recorded.
SCRIPT = """
import sys
from detector.cli.main import main
failed = 0
for words in sys.stdin.read().splitlines():
    sys.argv = ["detector", "export", *words.split("\\t")]
    failed += main() != 0
    print("end of one", flush=True)
sys.exit(failed)
"""


def exported(*jobs: list[str]) -> list[str]:
    """What each job printed."""
    lines = "\n".join("\t".join(words) for words in jobs)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], input=lines, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split("end of one")[:-1]


def detector(*arguments: object) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["detector", "export", *map(str, arguments)])
        return main()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    with_shapes(write_dataset(folder / "data"))
    return folder


@pytest.fixture(scope="module")
def shapes(folder: Path) -> Path:
    """The checkpoint of a model with masks and keypoints."""
    return trained("masks and keypoints", folder)


@pytest.fixture(scope="module")
def checkpoint(folder: Path) -> Path:
    return trained("deformable fcos", folder)


def trained(name: str, folder: Path) -> Path:
    checkpoint = folder / name / "checkpoints" / "best.ckpt"
    if not checkpoint.exists():
        run_training(folder / "data", folder / name, "training.max_epochs=1", *MODELS[name])
    return checkpoint


def check_onnx(name: str, file: Path, message: str) -> None:
    assert "0 have no counterpart" in message
    assert int(message.split(" detections")[0].split()[-1]) > 50
    graph = onnx.load(file)
    assert not list(file.parent.glob("*.data"))
    assert ("DeformConv" in {node.op_type for node in graph.graph.node}) == ("deformable" in name)
    facts = {entry.key: entry.value for entry in graph.metadata_props}
    assert json.loads(facts["class_names"]) == ["disc", "square"]
    session = onnxruntime.InferenceSession(file)
    images = np.random.default_rng(0).integers(0, 256, (3, 3, 96, 160), dtype=np.uint8)
    inputs = {"images": images, "image_sizes": np.array([[96, 160]] * 3)}
    boxes, scores, labels, *branches = session.run(None, inputs)
    assert (boxes.shape, scores.shape, labels.shape) == ((3, 100, 4), (3, 100), (3, 100))
    assert (boxes[labels < 0] == 0).all()
    assert (np.diff(scores) <= 0).all()
    names = [output.name for output in session.get_outputs()]
    assert json.loads(facts["outputs"]) == names
    expected = {"masks": (3, 100, 28, 28), "keypoints": (3, 100, 2, 3)} if "masks" in name else {}
    assert {name: branch.shape for name, branch in zip(names[3:], branches, strict=True)} == expected


@pytest.mark.nightly
@pytest.mark.parametrize("name", MODELS)
def test_every_model_in_every_format(name: str, folder: Path, tmp_path: Path) -> None:
    words = [f"checkpoint={trained(name, folder)}", f"output_dir={tmp_path}"]
    message, _ = exported(words, [*words, "format=torch_export"])
    check_onnx(name, tmp_path / "detector.onnx", message)
    check_torch_export(tmp_path / "detector.pt2")


def check_torch_export(file: Path) -> None:
    facts = {"class_names.json": ""}
    graph = torch.export.load(file, extra_files=facts)
    assert json.loads(facts["class_names.json"]) == ["disc", "square"]
    images = torch.zeros(3, 3, 96, 160, dtype=torch.uint8)
    outputs = graph.module(check_guards=False)(images, torch.tensor([[96, 160]] * 3))
    assert outputs[0].shape == (3, 100, 4)
    assert not any(output.requires_grad for output in outputs)


@pytest.mark.nightly
def test_masks_in_the_image_in_every_format(shapes: Path, tmp_path: Path) -> None:
    words = [f"checkpoint={shapes}", f"output_dir={tmp_path}", "masks=image"]
    for message in exported(words, [*words, "format=torch_export"]):
        assert "masks by" in message
    session = onnxruntime.InferenceSession(tmp_path / "detector.onnx")
    inputs = {"images": np.zeros((2, 3, 64, 96), np.uint8), "image_sizes": np.array([[64, 96], [50, 70]])}
    masks = session.run(["masks"], inputs)[0]
    assert (masks.shape, masks.dtype) == ((2, 100, 64, 96), bool)


def test_a_file_with_other_masks_or_keypoints_is_refused(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def changed(options: export.Options, model: Predictor, file: Path) -> export.Run:
        file.write_bytes(b"graph")
        module = ExportableDetector(model.model)

        def run(images: torch.Tensor, sizes: torch.Tensor) -> tuple[torch.Tensor, ...]:
            boxes, scores, labels, masks, points = module(images, sizes)
            return boxes, scores, labels, masks + 0.02, points + 1.75 * torch.tensor([1, 0, 0])

        return run

    monkeypatch.setattr(export, "_write", changed)
    words = (f"checkpoint={shapes}", f"output_dir={tmp_path}")
    assert detector(*words) == 1
    message = capsys.readouterr().err
    assert "masks by 0.02, 99 % of the keypoints by at most 1.8 px, their scores by 0;" in message
    assert "mask_tolerance=0.01, keypoint_tolerance_px=1.5." in message
    assert detector(*words, "mask_tolerance=0.03", "keypoint_tolerance_px=2") == 0


def test_outputs_and_keypoints_are_described_in_the_metadata(checkpoint: Path) -> None:
    model = Predictor(checkpoint)
    names = ("left_eye", "right_eye", "nose")
    eyes = KeypointSchema(names=names, sigmas=(0.05,) * 3, skeleton=(("nose", "left_eye"),))
    model.keypoint_schemas = (None, eyes)
    metadata = export._metadata(model)
    assert json.loads(metadata["keypoints"]) == [None, {"names": [*names], "skeleton": [[2, 0]]}]
    assert json.loads(metadata["outputs"]) == ["boxes", "scores", "labels"]


def moved(options: export.Options, model: Predictor, file: Path) -> export.Run:
    """What runs a file that moves all boxes by 0.3 pixels."""
    file.write_bytes(b"graph")
    module = ExportableDetector(model.model)

    def run(images: torch.Tensor, sizes: torch.Tensor) -> tuple[torch.Tensor, ...]:
        boxes, scores, labels = module(images, sizes)
        return boxes + 0.3, scores, labels

    return run


def test_a_file_that_detects_something_else_is_refused(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(export, "_write", moved)
    words = (f"checkpoint={checkpoint}", f"output_dir={tmp_path}")
    assert detector(*words) == 1
    assert "boxes differ by at most 0.3 px" in capsys.readouterr().err
    assert {p.name for p in tmp_path.glob("*.onnx")} == {"detector.refused.onnx"}
    assert detector(*words, "box_tolerance_px=0.5") == 0
    assert {p.name for p in tmp_path.glob("*.onnx")} == {"detector.onnx"}


def test_a_refused_file_leaves_an_earlier_one_and_its_record(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "_write", moved)
    words = (f"checkpoint={checkpoint}", f"output_dir={tmp_path}")
    assert detector(*words, "box_tolerance_px=0.5") == 0
    kept = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert b"box_tolerance_px: 0.5" in kept["config.yaml"]
    assert detector(*words) == 1
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        **kept,
        "detector.refused.onnx": b"graph",
    }


def test_a_file_that_takes_one_size_only_is_refused(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Although all images of the data have it."""

    def rigid(options: export.Options, model: Predictor, file: Path) -> export.Run:
        file.write_bytes(b"graph")
        module = ExportableDetector(model.model)

        def run(images: torch.Tensor, sizes: torch.Tensor) -> tuple[torch.Tensor, ...]:
            if images.shape[2:] != (64, 64):
                raise IndexError("Got invalid dimensions")
            return module(images, sizes)

        return run

    monkeypatch.setattr(export, "_write", rigid)
    assert detector(f"checkpoint={checkpoint}", f"output_dir={tmp_path}") == 1
    message = capsys.readouterr().err
    assert "detector.refused.onnx does not run on images of shape (1, 3, 128, 96)" in message
    assert "Got invalid dimensions" in message
    assert {p.name for p in tmp_path.iterdir()} == {"detector.refused.onnx"}


def test_a_file_that_onnxruntime_cannot_open_is_refused(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(export, "recorded", lambda model, masks: None)
    monkeypatch.setattr(export, "write_onnx", lambda graph, file, **_: file.write_bytes(b"no graph"))
    assert detector(f"checkpoint={checkpoint}", f"output_dir={tmp_path}") == 1
    assert "detector.refused.onnx cannot be run: " in capsys.readouterr().err


def test_a_file_that_could_not_be_checked_is_refused(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def silent(options: export.Options, model: Predictor, file: Path) -> export.Run:
        assert isinstance(model.model.head, FCOSHead)
        model.model.head.score_threshold = 1.0
        file.write_bytes(b"graph")
        return ExportableDetector(model.model)

    monkeypatch.setattr(export, "_write", silent)
    assert detector(f"checkpoint={checkpoint}", f"output_dir={tmp_path}") == 1
    assert "nothing is detected in the 4 images" in capsys.readouterr().err
    assert {p.name for p in tmp_path.glob("*.onnx")} == {"detector.refused.onnx"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Give checkpoint="),
        (["checkpoint=nowhere.ckpt"], "nowhere.ckpt"),
        (["checkpoint=CHECKPOINT", "source=nowhere"], "source=nowhere: found no file"),
        (["checkpoint=CHECKPOINT", "format=tensorrt"], "format"),
        (["checkpoint=CHECKPOINT", "masks=image"], "masks=image needs a model that predicts masks"),
        *(
            ([f"name='{name}'"], f"name={name!r}: expected the name of a file without its ending")
            for name in ("a/b", "/a", "a\\b", "..", ".", "")
        ),
    ],
)
def test_wrong_use_is_told(
    arguments: list[str],
    message: str,
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = [word.replace("CHECKPOINT", str(checkpoint)) for word in arguments]
    assert detector(*words, f"output_dir={tmp_path / 'out'}") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_size_in_the_metadata_is_the_one_of_evaluation(checkpoint: Path) -> None:
    model = Predictor(checkpoint)
    model.image_size = ImageSize(min_size=(32, 48), max_size=64)
    assert json.loads(export._metadata(model)["image_size"]) == {"min_size": 48, "max_size": 64}


def test_the_threshold_of_the_best_f1_is_in_the_metadata(checkpoint: Path) -> None:
    model = Predictor(checkpoint)
    for threshold, text in ((0.41, "0.41"), (None, "null")):
        model.best_f1_threshold = threshold
        assert export._metadata(model)["best_f1_threshold"] == text


def test_the_range_of_values_is_in_the_metadata(checkpoint: Path) -> None:
    model = Predictor(checkpoint)
    assert json.loads(export._metadata(model)["image_range"]) == "full"
    model.reading = ReadOptions(image_range=(0.0, 4095.0))
    assert json.loads(export._metadata(model)["image_range"]) == [0, 4095]


def test_the_missing_extra_is_named(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert detector(f"checkpoint={checkpoint}", f"output_dir={tmp_path}") == 2
    assert 'pip install "detector[export]"' in capsys.readouterr().err


def test_differences_are_of_the_same_detections() -> None:
    """In another order; the last one, in which rounding chose another, does not count."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30], [20, 20, 30, 30], [50, 50, 60, 60]])
    labels = torch.tensor([0, 1, 0, 1])
    expected = Detections(boxes, torch.tensor([0.9, 0.8, 0.8, 0.1]), labels)
    order = torch.tensor([0, 2, 1, 3])
    moved = boxes[order] + torch.tensor([[0.25], [0], [0], [50]])
    actual = Detections(moved, torch.tensor([0.9, 0.8, 0.79, 0.1]), labels[order])
    result = difference([actual], [expected], score_tolerance=0.001, limit=4)
    assert (result.count, result.box_px, result.missing) == (4, 0.25, 0)
    assert result.score == pytest.approx(0.01)
    assert difference([actual], [expected], score_tolerance=0.001, limit=5).missing == 2  # none was cut off
    nothing = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    assert difference([nothing], [expected], score_tolerance=0.001, limit=100).missing == 4
    assert difference([nothing], [nothing], score_tolerance=0.001, limit=100).missing == 0


def test_deformable_roi_pooling_with_too_free_samples_is_refused_by_name() -> None:
    model = small_faster_rcnn(pooling=partial(DeformRoIPool, width=16), sampling_ratio=0)
    with pytest.raises(ValueError, match=r"head\.roi_heads\.pooling is deformable RoI pooling with sampling"):
        recorded(model)


def test_padding_is_no_detection() -> None:
    boxes, scores, labels = torch.ones(2, 3, 4), torch.ones(2, 3), torch.tensor([[0, 1, -1], [-1, -1, -1]])
    assert [len(actual) for actual in detections(boxes, scores, labels)] == [2, 0]
