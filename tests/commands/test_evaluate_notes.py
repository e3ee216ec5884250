"""What `detector evaluate` tells besides the numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from detector.cli.main import main
from tests.evaluation.problems import ground_truth, perfect_results


def evaluate(predictions: Path, annotations: Path, out: Path) -> int:
    words = (f"predictions={predictions}", f"annotations={annotations}", f"output_dir={out}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["detector", "evaluate", *words])
        return main()


def test_notes_are_printed_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{**r, "image_id": {10: "a", 20: "b"}[r["image_id"]]} for r in perfect_results(ground_truth())]
    (tmp_path / "gt.json").write_text(json.dumps(ground_truth()))
    (tmp_path / "dt.json").write_text(json.dumps({"annotations": rows}))
    assert evaluate(tmp_path / "dt.json", tmp_path / "gt.json", tmp_path / "out") == 0
    (note,) = json.loads((tmp_path / "out/metrics.json").read_text())["notes"]
    assert '("a" for "a.jpg")' in note
    output = capsys.readouterr().out
    assert f"note: {note}" in output
    assert "another seed" not in output
    assert "call their images by file name" in (tmp_path / "out/report.html").read_text(encoding="utf-8")
