"""Training compiled, on images of many shapes."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import pytest

from tests.training.tiny import run_training, write_dataset

SETTINGS = ("data.batch_size=1", "data.image_size.max_size=256", "training.max_epochs=1")
# Without generating code, which needs a compiler and minutes; with less patience than there are shapes.
SCRIPT = """
import sys
from pathlib import Path
import torch
torch._dynamo.config.recompile_limit = 2
torch.nn.Module.compile = lambda self, **options: setattr(
    self, "_compiled_call_impl", torch.compile(self._call_impl, backend="aot_eager", **options)
)
from tests.training.tiny import run_training
run_training(Path(sys.argv[1]), Path(sys.argv[2]), "training.compile=true", *sys.argv[3:])
assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 2
"""


def widen(root: Path) -> None:
    """Every image of the training split gets another width."""
    content = json.loads((root / "train.json").read_text())
    for number, image in enumerate(content["images"]):
        path, right = root / "images" / image["file_name"], 32 * (number % 4)
        pixels = np.pad(cast(np.ndarray, cv2.imread(str(path))), ((0, 0), (0, right), (0, 0)))
        cv2.imwrite(str(path), pixels)
        image["width"] += right
    (root / "train.json").write_text(json.dumps(content))


def train_loss(folder: Path) -> float:
    with (folder / "metrics.csv").open(newline="") as file:
        return float([*csv.DictReader(file)][-1]["train/loss"])


@pytest.mark.nightly
def test_more_shapes_than_the_compiler_takes_train_all_the_same(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "data")
    widen(root)
    expected = run_training(root, tmp_path / "plain", *SETTINGS)
    words = [sys.executable, "-c", SCRIPT, str(root), str(tmp_path / "compiled"), *SETTINGS]
    done = subprocess.run(words, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert train_loss(tmp_path / "compiled") == pytest.approx(train_loss(expected), rel=1e-3)
