"""`detector train` as processes: several devices, and a signal from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from detector.commands.inference import evaluate_checkpoint
from detector.evaluation import CocoEvaluator
from detector.training import load_checkpoint
from tests.training.tiny import tiny_overrides, write_dataset

pytestmark = pytest.mark.slow


def start(root: Path, output_dir: Path, *overrides: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "detector", "train", *tiny_overrides(root, output_dir), *overrides],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def test_two_devices_score_all_images_once_and_scale_the_rate(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "data", val_images=7)  # uneven: three for one device, four for the other
    process = start(
        root, tmp_path / "run", "training.devices=2", "data.batch_size=2", "data.val_batch_size=4"
    )
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert "learning rate: 0.01 = optimizer.lr 0.01 x 4 images a step" in said
    metrics = evaluate_checkpoint(
        str(tmp_path / "run" / "checkpoints" / "best.ckpt"),
        data_overrides={},
        evaluator=CocoEvaluator,
        accelerator="cpu",
    ).metrics
    # One device has other batches, and float sums in another order.
    stored = json.loads((tmp_path / "run" / "metrics.json").read_text())
    again = metrics.to_dict()
    assert again["AP"] == pytest.approx(stored["AP"], abs=1e-4)
    assert again["AR100"] == pytest.approx(stored["AR100"], abs=1e-4)


def test_sigterm_keeps_the_last_epoch_and_is_no_success(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "data")
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    process = start(root, tmp_path / "run", "training.max_epochs=500")
    while not last.is_file() and process.poll() is None:
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, said
    assert f"Kept: {last}" in said
    assert load_checkpoint(last).epoch >= 1


def test_the_command_of_the_readme_learns(tmp_path: Path) -> None:
    """`detector train`, two of its five epochs, in which it reaches 0.57."""
    words = ["train", "output_dir=run", "training.max_epochs=2"]
    subprocess.run([sys.executable, "-m", "detector", *words], cwd=tmp_path, check=True)
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["AP50"] >= 0.5
