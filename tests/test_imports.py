"""What a statement loads in a fresh interpreter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.forks import ROOT, forked

TRAINING = "import detector.commands.train"
FEW_FILES = {"import detector.layers": 12, "from detector.layers import DeformConv2d": 26}
NOT_LOADED = {
    "from detector import Predictor": {"lightning", "hydra", "albumentations", "matplotlib"},
    "import detector.commands.predict": {"lightning", "scipy", "matplotlib"},
    "import detector.commands.export": {"lightning", "scipy", "matplotlib"},
    "from detector.layers import DeformConv2d": {"lightning", "scipy", "matplotlib"},
    # A layer on a CPU does without the backend of GPUs.
    "from detector.layers import DeformConv2d; "
    "DeformConv2d(2, 2, 3)(torch.randn(1, 2, 4, 4)).sum().backward()": {
        f"detector.ops.deform_conv.{name}" for name in ("triton", "triton_kernels", "triton_launch")
    },
    # onnxruntime is told before its import.
    "os.environ.pop('ORT_DISABLE_TELEMETRY', None); import detector.exporting.onnx_graph; "
    "assert os.environ['ORT_DISABLE_TELEMETRY'] == '1'": {"onnxruntime"},
}
STATEMENTS = tuple(dict.fromkeys((TRAINING, *FEW_FILES, *NOT_LOADED)))


@pytest.fixture(scope="module")
def loaded() -> Callable[[str], set[str]]:
    """The modules of a process after one of the statements."""
    scripts = [f"import os, sys, torch\n{statement}\nprint(*sys.modules)" for statement in STATEMENTS]
    done = dict(zip(STATEMENTS, forked(scripts, loaded="import torch, torchvision"), strict=True))

    def loaded(statement: str) -> set[str]:
        assert done[statement].returncode == 0, done[statement].stderr
        return {*done[statement].stdout.split()}

    return loaded


def ours(modules: set[str]) -> list[Path]:
    paths = [ROOT.joinpath(*name.split(".")) for name in modules if name.partition(".")[0] == "detector"]
    return [path / "__init__.py" if path.is_dir() else path.with_suffix(".py") for path in paths]


def test_training_imports_no_more_than_it_needs(loaded: Callable[[str], set[str]]) -> None:
    files = ours(loaded(TRAINING))
    assert sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files) <= 9_000


@pytest.mark.parametrize(("statement", "limit"), FEW_FILES.items())
def test_a_layer_loads_few_files(statement: str, limit: int, loaded: Callable[[str], set[str]]) -> None:
    assert len(ours(loaded(statement))) <= limit


@pytest.mark.parametrize("statement", NOT_LOADED)
def test_what_is_not_needed_is_not_loaded(statement: str, loaded: Callable[[str], set[str]]) -> None:
    assert not NOT_LOADED[statement] & loaded(statement)


def test_a_model_detects_on_a_cpu_without_torchvision() -> None:
    script = """
import sys
from detector.backbones import ResNet
from detector.heads import FCOSHead
from detector.models import build_detector
from detector.necks import FPN
from detector.ops.nms import class_nms
from detector.profiling.noise import random_batch

model = build_detector(backbone=ResNet(18), neck=FPN, head=FCOSHead, num_classes=3)
with torch.inference_mode():
    model.eval().predict(random_batch(num_classes=3, image_size=(64, 64)))
boxes, scores = torch.rand(9, 4).cumsum(1), torch.rand(9)
class_nms(boxes, scores=scores, labels=torch.zeros(9).long(), iou_threshold=0.5, limit=5)
assert not {"torchvision", "torch._dynamo"} & sys.modules.keys()
"""
    [done] = forked([f"import torch\n{script}"], loaded="import torch")
    assert done.returncode == 0, done.stderr
