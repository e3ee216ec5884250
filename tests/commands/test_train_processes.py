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

from detector.checkpoint import load_checkpoint
from detector.evaluation.coco import CocoEvaluator
from detector.runs.inference import evaluate_checkpoint
from tests.training.tiny import tiny_overrides, write_dataset

pytestmark = pytest.mark.slow


# Python imports a module of this name at its start, in the workers of a loader too.
SITECUSTOMIZE = """
import os, socket
def refuse(target, *args, **kwargs):
    with open(os.environ["NETWORK_LOG"], "a") as log:
        log.write(f"{target} {args}\\n")
    raise OSError("no network")
def guarded(method):
    def call(self, *args):  # processes of a machine talk through sockets of the family AF_UNIX
        return method(self, *args) if self.family == socket.AF_UNIX else refuse(self, *args)
    return call
for name in ("connect", "connect_ex", "sendto"):
    setattr(socket.socket, name, guarded(getattr(socket.socket, name)))
socket.getaddrinfo = socket.gethostbyname = refuse
"""


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
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert "learning rate: 0.01 = optimizer.lr 0.01 x 4 images a step" in output
    (evaluated,) = evaluate_checkpoint(
        str(tmp_path / "run" / "checkpoints" / "best.ckpt"),
        data_overrides={},
        evaluator=CocoEvaluator,
        accelerator="cpu",
    )
    # One device has other batches, and float sums in another order.
    stored = json.loads((tmp_path / "run" / "metrics.json").read_text())
    again = evaluated.metrics.to_dict()
    assert again["AP"] == pytest.approx(stored["AP"], abs=1e-4)
    assert again["AR100"] == pytest.approx(stored["AR100"], abs=1e-4)


def test_sigterm_keeps_the_last_epoch_and_is_no_success(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "data")
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    process = start(root, tmp_path / "run", "training.max_epochs=500")
    while not last.is_file() and process.poll() is None:
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, output
    assert f"Kept: {last}" in output
    assert load_checkpoint(last).epoch >= 1


@pytest.mark.nightly
def test_no_network_is_touched(tmp_path: Path) -> None:
    """From the drawing of the data to the evaluation of the checkpoint, in processes that cannot connect."""
    (tmp_path / "sitecustomize.py").write_text(SITECUSTOMIZE)
    log = tmp_path / "attempts"
    env = {**os.environ, "PYTHONPATH": str(tmp_path), "NETWORK_LOG": str(log)}
    try_it = "import urllib.request; urllib.request.urlopen('http://localhost:9')"
    assert subprocess.run([sys.executable, "-c", try_it], env=env, capture_output=True).returncode == 1
    assert "localhost" in log.read_text()
    log.unlink()
    small = [
        "data.source.num_train=16",
        "data.source.num_val=8",
        "training.max_epochs=1",
        "data.num_workers=2",
    ]
    for words in (
        ["train", "output_dir=run", f"data.root={tmp_path}/shapes", *small],
        ["evaluate", "checkpoint=run/checkpoints/best.ckpt", "output_dir=evaluation"],
    ):
        command = [sys.executable, "-m", "detector", *words]
        done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert not log.exists()


@pytest.mark.nightly
def test_the_command_of_the_readme_learns(tmp_path: Path) -> None:
    """`detector train`, two of its five epochs, in which it reaches 0.57."""
    words = ["train", "output_dir=run", "training.max_epochs=2"]
    subprocess.run([sys.executable, "-m", "detector", *words], cwd=tmp_path, check=True)
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["AP50"] >= 0.5
