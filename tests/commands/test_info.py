"""`detector info` says what a model is made of."""

from __future__ import annotations

import re

import pytest

from detector.cli.jobs import run_verb
from detector.profiling import latency


@pytest.fixture(autouse=True)
def _few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "SECONDS", 0.0)


def _info(capsys: pytest.CaptureFixture[str], *overrides: str) -> str:
    words = ["image_size=[64,64]", *overrides]
    assert run_verb("info", "detector.commands.info", "", words) == 0
    return capsys.readouterr().out


def test_a_regular_model_says_how_to_turn_deformable_layers_on(capsys: pytest.CaptureFixture[str]) -> None:
    out = _info(capsys)
    assert "Deformable layers: none" in out
    assert "model.backbone.deform.stages=[3,4,5]" in out


def test_operations_of_a_deformable_model_are_more(capsys: pytest.CaptureFixture[str]) -> None:
    def gflop(*overrides: str) -> list[float]:
        lines = _info(capsys, *overrides, "image_size=[128,256]", "latency=false").splitlines()
        start = lines.index("Operations for an image of 128 x 256")
        return [float(line.split()[-1]) for line in lines[start + 2 : start + 5]]

    plain, deformable = gflop(), gflop("model.backbone.deform.stages=[4,5]")
    assert plain[1] == 0
    assert all(b > a for a, b in zip(plain, deformable, strict=True))


def test_parameters_and_deformable_layers_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    out = _info(capsys, "model.backbone.deform.stages=[5]", "model.backbone.frozen_stages=1", "num_classes=3")
    total = next(line for line in out.splitlines() if line.startswith("total"))
    # two layers of 512 channels, 27 offset and mask channels, 3 x 3
    assert total.split()[-1] == f"{2 * (512 * 27 * 9 + 27):,}"
    assert "Deformable layers: 2" in out
    assert re.search(r"^C5\.1 +512 to 512", out, re.MULTILINE)
    assert out.count("auto: gather") == 2  # what a CPU gets
    parameters, trained = (int(n.replace(",", "")) for n in total.split()[2:4])
    assert parameters - trained == 64 * 3 * 7 * 7 + 2 * 64  # the stem


def test_depthwise_layers_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    out = _info(
        capsys,
        "model/backbone/deform=v3",
        "model.backbone.deform.stages=[5]",
        "num_classes=3",
        "latency=false",
    )
    total = next(line for line in out.splitlines() if line.startswith("total"))
    # two depth-wise convolutions, norms, and 108 outputs
    assert total.split()[-1] == f"{2 * (512 * 9 + 512 + 2 * 512 + 512 * 108 + 108):,}"
    (line,) = (line for line in out.splitlines() if line.startswith("C5.0"))
    assert line.split()[1:] == ["512", "to", "512", "auto:", "gather", "4", "softmax", "3x3", "1x1"]


def test_deformable_pooling_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    small = [
        "model=faster_rcnn_small",
        "model.neck.out_channels=8",
        "model.head.roi.width=8",
        "latency=false",
    ]
    out = _info(capsys, *small, "model/head/roi/pooling=deform_v1", "model.head.roi.pooling.width=8")
    total = next(line for line in out.splitlines() if line.startswith("total"))
    assert total.split()[-1] == f"{4 * (8 * 49 * 8 + 8 + 8 * 8 + 8 + 8 * 98 + 98):,}"
    (line,) = (line for line in out.splitlines() if line.startswith("head.roi_heads.pooling"))
    assert line.split() == ["head.roi_heads.pooling", "8", "gather", "1", "none", "7x7"]


def test_memory_and_time_are_told_of_the_image_size(capsys: pytest.CaptureFixture[str]) -> None:
    def kept_mb(message: str) -> float:
        (line,) = (line for line in message.splitlines() if line.startswith("Memory that"))
        assert "of an image of 64 x 96: " in line
        return float(line.split()[-2])

    size = "image_size=[64,96]"
    timed, deformable = _info(capsys, size), _info(capsys, size, "model.backbone.deform.stages=[3,4,5]")
    assert 0 < kept_mb(timed) < kept_mb(deformable)
    match = re.search(r"Time to detect in it: ([\d.]+) ms, in 95 % of 3 rounds at most ([\d.]+) ms", timed)
    assert match is not None
    assert 0 < float(match[1]) <= float(match[2])
    assert "Time to detect" not in _info(capsys, size, "latency=false")
