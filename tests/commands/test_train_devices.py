"""`detector train` on two devices: the same numbers as on one, and one end for both."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.training.tiny import tiny_overrides, write_dataset

pytestmark = pytest.mark.slow


@contextmanager
def training(root: Path, output_dir: Path, *overrides: str) -> Iterator[subprocess.Popen[str]]:
    """The first process of a training; none is left behind."""
    process = subprocess.Popen(
        [sys.executable, "-m", "detector", "train", *tiny_overrides(root, output_dir), *overrides],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def trained(root: Path, output_dir: Path, *overrides: str) -> list[dict[str, str]]:
    """The rows of metrics.csv of a run."""
    with training(root, output_dir, *overrides) as process:
        output, _ = process.communicate(timeout=400)
        assert process.returncode == 0, output
    with (output_dir / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_two_devices_give_the_losses_of_one_with_the_same_batches(tmp_path: Path) -> None:
    """Seventeen images: the last batch has one, and the second device an empty one."""
    root = write_dataset(tmp_path / "data", val_images=17)
    same = ("model.backbone.norm=group", "data.val_batch_size=4", "data/augmentation=none")
    alone = trained(root, tmp_path / "one", *same, "data.batch_size=4")
    shared = trained(root, tmp_path / "two", *same, "data.batch_size=2", "training.devices=2")
    columns = [name for name in alone[0] if "loss" in name]
    assert {"train/loss", "val/loss"} < set(columns)
    for one, two in zip(alone, shared, strict=True):
        for name in columns:
            assert float(two[name]) == pytest.approx(float(one[name]), rel=1e-5, abs=1e-6), name


def test_a_device_without_validation_images_takes_part(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "data", val_images=1)
    rows = trained(root, tmp_path / "run", "training.devices=2", "data.batch_size=2")
    assert len(rows) == 2
    assert float(rows[-1]["val/loss"]) > 0


def other_rank(process: subprocess.Popen[str]) -> int:
    (other,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return int(other)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds processes in /proc")
@pytest.mark.parametrize(
    ("rank", "number", "code"),
    [
        (0, signal.SIGTERM, 143),
        pytest.param(1, signal.SIGTERM, 143, marks=pytest.mark.nightly),
        pytest.param(1, signal.SIGINT, 130, marks=pytest.mark.nightly),
        pytest.param(0, signal.SIGKILL, -signal.SIGKILL, marks=pytest.mark.nightly),
        (1, signal.SIGKILL, 1),
    ],
)
def test_one_that_ends_ends_all(tmp_path: Path, rank: int, number: signal.Signals, code: int) -> None:
    root, last = write_dataset(tmp_path / "data"), tmp_path / "run" / "checkpoints" / "last.ckpt"
    overrides = ("training.max_epochs=500", "training.devices=2", "data.batch_size=2")
    with training(root, tmp_path / "run", *overrides) as process:
        while not last.is_file() and process.poll() is None:
            time.sleep(0.2)
        other = other_rank(process)
        os.kill((process.pid, other)[rank], number)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == code, output
        assert "Traceback" not in output
        if number == signal.SIGKILL and rank == 1:
            assert "the process of device 1 ended first, killed (SIGKILL)" in output
        if code != -signal.SIGKILL:
            assert f"Kept: {last}" in output
    deadline = time.monotonic() + 30
    while Path(f"/proc/{other}").exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not Path(f"/proc/{other}").exists()


def test_the_error_of_one_device_comes_first_and_ends_the_others(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "data")
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    overrides = (
        "training.max_epochs=500",
        "training.devices=2",
        "data.batch_size=2",
        "data.val_batch_size=3",
    )
    with training(root, tmp_path / "run", *overrides) as process:
        while not last.is_file() and process.poll() is None:
            time.sleep(0.2)
        (root / "images" / "val205.png").unlink()  # of the second device
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 1, output
        assert "Traceback" not in output
        own, message = (
            output.index("val205.png"),
            output.index("the process of device 1 ended first, with exit code 2"),
        )
        assert own < message
