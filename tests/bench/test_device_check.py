"""The check of a device: what fails is told, and does not hide the rest."""

from __future__ import annotations

import importlib.metadata
import math
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from bench import device_check, device_report
from bench.device_check import Check, check_row, checks

from tests.scripts import ROOT, load


@pytest.fixture(autouse=True)
def _without_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton's takes minutes."""
    monkeypatch.setattr("detector.ops.deform_conv.triton_launch.INTERPRETED", False)


def test_a_skipped_check_is_no_failure_and_says_why() -> None:
    check = Check("x", math.nan, 1e-4, skipped="no GPU")
    assert check.passed
    assert "skipped: no GPU" in check_row(check)
    assert not Check("x", math.nan, 1e-4).passed


def test_a_check_that_raises_is_a_failed_row_and_the_next_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(device: str) -> float:
        raise RuntimeError("CUDA error: an illegal | access\nand more")

    monkeypatch.setattr(device_check, "_iou_error", broken)
    by_name = {check.name: check for check in checks("cpu")}
    failed = by_name.pop("pairwise IoU")
    assert not failed.passed
    assert check_row(failed).endswith(r"| FAILED: RuntimeError: CUDA error: an illegal \| access |")
    assert all(check.passed for check in by_name.values())
    assert list(by_name)[-1].startswith("Faster R-CNN")


@pytest.mark.parametrize("ends", [None, ValueError("wrong")])
def test_checks_are_in_full_float32_and_leave_what_was_set(
    ends: Exception | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    matmul, convolution = torch.backends.cuda.matmul, cast(Any, torch.backends.cudnn).conv
    seen = []

    def look(device: str) -> float:
        seen.append((matmul.fp32_precision, convolution.fp32_precision))
        if ends is not None:
            raise ends
        return 0.0

    monkeypatch.setattr(device_check, "_iou_error", look)
    before = matmul.fp32_precision, convolution.fp32_precision
    try:
        matmul.fp32_precision = convolution.fp32_precision = "tf32"
        list(checks("cpu"))
        assert seen == [("ieee", "ieee")]
        assert (matmul.fp32_precision, convolution.fp32_precision) == ("tf32", "tf32")
    finally:
        matmul.fp32_precision, convolution.fp32_precision = before


def test_the_report_is_on_disk_while_it_is_made_and_tells_what_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, seen = tmp_path / "report.md", []
    monkeypatch.setattr(device_report, "checks", lambda device: [Check("first", 0.0, 1e-4)])

    def look() -> str:
        seen.append(path.read_text())
        return "| a table |"

    def broken() -> str:
        raise torch.OutOfMemoryError("too much\nof it")

    timings = {"One": look, "Two": broken, "Three": look}
    monkeypatch.setattr(device_report, "_timings", lambda device, **given: timings)
    well = device_report.write_device_report(path, device="cpu", tiny=True, repeats=1)
    assert not well
    assert "| first | 0.0e+00 | 1e-04 | passed |" in seen[0]
    assert "TF32 is off in the checks" in seen[0]
    assert "Two: FAILED: OutOfMemoryError: too much\n" in seen[1]
    assert path.read_text().endswith("Three:\n\n| a table |\n")


def test_a_report_without_failures_is_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_report, "checks", lambda device: [Check("first", 0.0, 1e-4)])
    monkeypatch.setattr(device_report, "_timings", lambda device, **given: {})
    assert device_report.write_device_report(tmp_path / "report.md", device="cpu", tiny=True, repeats=1)


@pytest.mark.parametrize("well", [True, False])
def test_the_exit_code_says_whether_all_is_well(well: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_report, "write_device_report", lambda path, **given: well)
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", "--device", "cpu"])
    assert load("gpu_check").main() == int(not well)


def test_missing_packages_are_all_named(monkeypatch: pytest.MonkeyPatch) -> None:
    script = load("gpu_check")
    monkeypatch.setattr(sys, "argv", ["gpu_check.py"])
    monkeypatch.setattr(script, "find_spec", lambda name: None if name in ("yaml", "jaxtyping") else name)
    with pytest.raises(
        SystemExit, match=r"needs these packages, which .* lacks: jaxtyping, PyYAML\. Install"
    ):
        script.main()


@pytest.mark.slow
def test_no_other_package_is_needed() -> None:
    """Of the project's; those of torch and torchvision come with them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    names = {re.split(r"[<>=,;\[ ]", one)[0].lower() for one in declared}
    others = names - {name.lower() for name in load("gpu_check").NEEDED.values()} - {"pillow"}
    modules = importlib.metadata.packages_distributions().items()
    blocked = {module for module, owners in modules if others & {owner.lower() for owner in owners}}
    assert {"hydra", "omegaconf", "lightning", "albumentations", "pycocotools", "cv2", "rich"} <= blocked
    block = f"import sys; sys.modules.update(dict.fromkeys({sorted(blocked)!r}))"
    code = f"{block}; sys.path.insert(0, 'scripts'); import bench.device_report"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
