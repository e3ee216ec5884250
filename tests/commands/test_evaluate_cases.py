"""Results files that were once scored silently wrong, or refused though right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from detector.cli import main
from tests.evaluation.problems import ground_truth, perfect_results
from tests.shared import shared_path


def evaluate(predictions: Path, annotations: Path, out: Path) -> int:
    words = (f"predictions={predictions}", f"annotations={annotations}", f"output_dir={out}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["detector", "evaluate", *words])
        return main()


@pytest.mark.parametrize(
    ("predictions", "annotations", "expected"),
    [
        ("predict_like.json", "ids_other_order/val.json", "8 results name one image by image_id and another"),
        ("predict_like.json", "base/val.json", "4 results are of images that the ground truth does not have"),
        ("predict_right.json", "ids_other_order/val.json", 1.0),
        ("stems.json", "base/val.json", 1.0),
        ("wrapped.json", "base/val.json", 1.0),
        ("xyxy_dt.json", "base/val.json", "6 of 8 boxes reach beyond their image; read as x1, y1, x2, y2"),
        ("dense_dt.json", "dense_gt.json", 67 / 101),
        ("base/val.json", "base/val.json", "pass it as annotations="),
        ("wrapped.json", "predict_right.json", "pass it as predictions="),
    ],
)
def test_cases(
    predictions: str, annotations: str, expected: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = shared_path("cases")
    code = evaluate(cases / predictions, cases / annotations, tmp_path)
    if isinstance(expected, str):
        assert code == 2
        assert expected in capsys.readouterr().err
    else:
        assert code == 0
        assert json.loads((tmp_path / "metrics.json").read_text())["AP"] == pytest.approx(expected)


def test_notes_are_printed_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{**r, "image_id": {10: "a", 20: "b"}[r["image_id"]]} for r in perfect_results(ground_truth())]
    (tmp_path / "gt.json").write_text(json.dumps(ground_truth()))
    (tmp_path / "dt.json").write_text(json.dumps({"annotations": rows}))
    assert evaluate(tmp_path / "dt.json", tmp_path / "gt.json", tmp_path / "out") == 0
    (note,) = json.loads((tmp_path / "out/metrics.json").read_text())["notes"]
    assert '("a" for "a.jpg")' in note
    said = capsys.readouterr().out
    assert f"note: {note}" in said
    assert "another seed" not in said
    assert "call their images by file name" in (tmp_path / "out/report.html").read_text(encoding="utf-8")
