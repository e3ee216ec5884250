"""What torch raises for want of a machine, in words that help."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from detector.cli.jobs import FAILED, report
from detector.data.datamodule import DetectionDataModule
from detector.data.transforms import ImageSize
from detector.exceptions import RunError, out_of_memory_message
from detector.runs.failures import explained


@pytest.fixture
def data(tmp_path: Path) -> DetectionDataModule:
    return DetectionDataModule(
        root=str(tmp_path),
        image_size=ImageSize(800, 1333),
        batch_size=16,
        val_batch_size=4,
        num_workers=2,
        seed=0,
    )


def message_on(data: DetectionDataModule, error: Exception) -> str:
    with (
        pytest.raises(RunError) as caught,
        explained(data, batch_option="batch_size", lower=("data.num_workers",)),
    ):
        raise error
    return str(caught.value)


def real_cpu_error() -> RuntimeError:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(10**15, dtype=torch.uint8)
    return caught.value


def real_numpy_error() -> MemoryError:
    with pytest.raises(MemoryError) as caught:
        np.empty(10**16, dtype=np.uint8)
    return caught.value


@pytest.mark.parametrize("error", [real_cpu_error, real_numpy_error])
def test_out_of_memory_says_what_was_asked_for_and_what_to_lower(
    data: DetectionDataModule, error: Callable[[], Exception]
) -> None:
    text = message_on(data, error())
    assert "The memory of the machine is not enough" in text
    for words in (
        "data.batch_size=16",
        "min_size=800",
        "max_size=1333",
        "Lower data.batch_size",
        "data.num_workers",
    ):
        assert words in text


@pytest.mark.parametrize(
    ("error", "amount"),
    [
        (real_cpu_error(), "1e+06 GB"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has"), "2.50 GiB"),
        (
            RuntimeError(
                "OpenCV(5.0) error: (-4:Insufficient memory) Failed to allocate 2000000000 bytes in"
            ),
            "2 GB",
        ),
    ],
)
def test_the_amount_that_was_asked_for_is_told(error: Exception, amount: str) -> None:
    assert f"{amount} more were requested" in (out_of_memory_message(error) or "")


def test_other_errors_are_no_lack_of_memory(data: DetectionDataModule) -> None:
    assert out_of_memory_message(RuntimeError("shapes do not fit")) is None
    with pytest.raises(RuntimeError, match="shapes"), explained(data, batch_option="batch_size", lower=()):
        raise RuntimeError("shapes do not fit")


def test_memory_that_runs_out_elsewhere_is_a_message_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(MemoryError()) == FAILED
    message = capsys.readouterr().err
    assert "The memory of the machine is not enough" in message
    assert "Traceback" not in message


def test_a_killed_worker_names_its_images_and_the_kernel(
    data: DetectionDataModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = {41: ["7 (a.jpg)", "9 (b.jpg)"]}
    monkeypatch.setattr(data, "images_of_worker", lambda process_id: read[process_id])
    text = message_on(data, RuntimeError("DataLoader worker (pid 41) is killed by signal: Killed. "))
    for words in ("7 (a.jpg), 9 (b.jpg)", "kernel", "memory", "data.num_workers=0"):
        assert words in text
    text = message_on(data, RuntimeError("DataLoader worker (pid(s) 41) exited unexpectedly"))
    assert "a.jpg" in text
    assert "kernel" not in text


def test_a_loader_that_gives_nothing_names_its_time_out(data: DetectionDataModule) -> None:
    text = message_on(data, RuntimeError("DataLoader timed out after 300 seconds"))
    assert "data.worker_timeout_s=300" in text
    assert "data.num_workers=0" in text


def test_too_many_open_files_name_the_limit(data: DetectionDataModule) -> None:
    for error in (OSError(24, "Too many open files"), RuntimeError("received 0 items of ancdata")):
        assert "ulimit -n" in message_on(data, error)
