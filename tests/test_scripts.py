"""The scripts that the README names."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.scripts import ROOT, load


def test_fetch_coco_downloads_what_is_asked_for_and_unpacks_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, asked = load("fetch_coco"), []
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        file.writestr("val2017/1.jpg", "picture")
    checksum = hashlib.md5(content.getvalue()).hexdigest()

    def download(url: str, target: Path, *, md5: str, progress: Any) -> None:
        asked.append((url, md5))
        progress(1, 2)
        target.parent.mkdir(parents=True)
        target.write_bytes(content.getvalue())

    monkeypatch.setattr(script, "download", download)
    monkeypatch.setitem(script.MD5, "zips/val2017.zip", checksum)
    command = ["fetch_coco.py", str(tmp_path), "--server", "http://mirror", "--only", "val2017.zip"]
    monkeypatch.setattr(sys, "argv", command)
    script.main()
    assert asked == [("http://mirror/zips/val2017.zip", checksum)]
    assert (tmp_path / "val2017/1.jpg").read_text() == "picture"


@pytest.mark.parametrize(
    ("recipe", "ap", "code", "output"),
    [
        ("faster_rcnn_r50_1x", 0.371, 0, "37.1 AP, published 37.4 (-0.3)"),
        ("faster_rcnn_r50_1x", 0.360, 1, "36.0 AP, published 37.4 (-1.4)"),
        ("fcos_r50_1x_dcn_v1", 0.400, 0, "40.0 AP; no published number"),
    ],
)
def test_reproduce_trains_the_recipe_and_compares(
    recipe: str,
    ap: float,
    code: int,
    output: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    commands: list[list[str]] = []

    def run(command: list[str], *, check: bool) -> None:
        assert check
        commands.append(command[2:])
        (tmp_path / "metrics.json").write_text(json.dumps({"AP": ap}))

    monkeypatch.setattr(subprocess, "run", run)
    arguments = ["reproduce.py", recipe, "--root", "coco", "--output", str(tmp_path), "seed=1"]
    monkeypatch.setattr(sys, "argv", arguments)
    assert load("reproduce").main() == code
    assert output in capsys.readouterr().out
    assert commands == [
        ["detector", "train", f"experiment={recipe}", "data.root=coco", f"output_dir={tmp_path}", "seed=1"]
    ]


@pytest.mark.slow
def test_gpu_check_runs_to_its_end_without_a_gpu(tmp_path: Path) -> None:
    report = tmp_path / "report.md"
    done = subprocess.run(
        [
            str(ROOT / "scripts/gpu_check.sh"),
            "--device",
            "cpu",
            "--tiny",
            "--repeats",
            "1",
            "--output",
            report,
        ],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "TRITON_INTERPRET": "0",
        },
    )
    assert done.returncode == 0, done.stdout + done.stderr
    text = report.read_text()
    assert text.count("skipped: needs tensors on CUDA, but x is on cpu") == 2
    assert "On a GPU: skipped" in text
    assert "FAILED" not in text
    assert text.count("passed") >= 10
    assert text.count("| a step |") == 2
