"""`detector evaluate` with a results file."""

import json
from pathlib import Path
from typing import Any

import pytest

from detector.cli.main import main
from detector.evaluation import errors, matching
from tests.evaluation.problems import ground_truth, perfect_results
from tests.evaluation.shapes import by_pycocotools, random_masks, random_poses
from tests.shared import shared_path


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """The overrides that evaluate a small perfect results file."""
    (tmp_path / "gt.json").write_text(json.dumps(ground_truth()))
    (tmp_path / "dt.json").write_text(json.dumps(perfect_results(ground_truth())))
    return [
        f"predictions={tmp_path}/dt.json",
        f"annotations={tmp_path}/gt.json",
        f"output_dir={tmp_path}/out",
    ]


def evaluate(monkeypatch: pytest.MonkeyPatch, *overrides: str) -> int:
    monkeypatch.setattr("sys.argv", ["detector", "evaluate", *overrides])
    return main()


def test_coco100_through_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shared_path("fixtures/eval/coco100")
    expected = json.loads((folder.parent / "pycocotools_values.json").read_text())["coco100/bbox"]
    code = evaluate(
        monkeypatch,
        f"predictions={folder}/dt_bbox.json",
        f"annotations={folder}/gt.json",
        f"output_dir={tmp_path}/out",
    )
    written = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert code == 0
    assert {key: written[key] for key in expected} == pytest.approx(expected, abs=1e-9, rel=0)
    assert len(written["per_class"]) == 80
    assert "AP50    0.6970" in capsys.readouterr().out
    report = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    scored = [name for name, numbers in written["per_class"].items() if numbers["AP"] >= 0]
    assert all(f"<td>{name}</td>" in report for name in scored)


def test_a_report_matches_the_detections_once(files: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Metrics have a backend of their own, and so has TIDE, for all detections and for the best ones."""
    calls: list[str] = []

    def count(module: Any, name: str) -> None:
        function = getattr(module, name)
        monkeypatch.setattr(
            module,
            name,
            lambda *arguments, **named: (
                calls.append(name)  # type: ignore[func-returns-value]  # None, so that the call follows
                or function(*arguments, **named)
            ),
        )

    count(matching, "_match_class")
    count(errors, "hotcoco_run")
    assert evaluate(monkeypatch, *files) == 0
    assert calls.count("_match_class") == len(ground_truth()["categories"])
    assert calls.count("hotcoco_run") == 2


def test_predictions_write_metrics_and_the_record(
    files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert evaluate(monkeypatch, *files) == 0
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {
        "metrics.json",
        "config.yaml",
        "overrides.txt",
        "environment.json",
        "report.html",
        "errors.json",
        "interval.json",
    }


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "Nothing to evaluate. Give checkpoint="),
        (["checkpoint=a.ckpt", "predictions=b.json"], "Both checkpoint=a.ckpt and predictions=b.json"),
        (["predictions=b.json"], "predictions=b.json needs its ground truth: annotations="),
        (["checkpoint=a.ckpt", "annotations=b.json"], "data.val.annotations=b.json"),
        (["predictions=b.json", "annotations=c.json", "data.num_workers=2"], "Leave out data.num_workers"),
        (["predictions=b.json", "annotations=nowhere.json"], "nowhere.json: no such file"),
        (["checkpoint=nowhere.ckpt"], "nowhere.ckpt: no such file"),
        (["checkpoint=a.ckpt", "data.val_batch_size=0"], "data.val_batch_size = 0: expected an integer >= 1"),
        (["predictions=a", "annotations=b", "evaluation.on_bad_box=dorp"], "Did you mean drop?"),
    ],
)
def test_a_wrong_request_is_explained(
    overrides: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.ckpt", "a", "b", "b.json", "c.json"):
        Path(name).touch()
    code = evaluate(monkeypatch, *overrides, f"output_dir={tmp_path}/out")
    error = capsys.readouterr().err
    assert code == 2
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_dropping_is_an_option(
    files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    truth: dict[str, Any] = ground_truth()
    truth["annotations"][0]["bbox"][2] = 0.0
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    assert evaluate(monkeypatch, *files) == 2
    assert evaluate(monkeypatch, *files, "evaluation.on_bad_box=drop") == 0
    assert "zero or negative width" in capsys.readouterr().err


def shape_files(folder: Path, problem: tuple[dict[str, Any], list[dict[str, Any]]]) -> list[str]:
    (folder / "gt.json").write_text(json.dumps(problem[0]))
    (folder / "dt.json").write_text(json.dumps(problem[1]))
    return [f"predictions={folder}/dt.json", f"annotations={folder}/gt.json", f"output_dir={folder}/out"]


def test_all_that_both_files_hold_is_evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    truth, results = random_poses(2)
    results = [{**result, "bbox": [10, 10, 30, 30]} for result in results]
    assert evaluate(monkeypatch, *shape_files(tmp_path, (truth, results))) == 0
    written = json.loads((tmp_path / "out" / "metrics.json").read_text())
    expected = by_pycocotools(truth, results, "keypoints").stats
    assert written["AP"] != written["keypoints/AP"] == expected[0]
    assert {"APs", "per_class"} <= written.keys()
    names = [name for name in written if name.startswith("keypoints/")]
    assert names[:6] == [f"keypoints/{name}" for name in ("AP", "AP50", "AP75", "APm", "APl", "AR")]
    assert {"AP", "keypoints/AP"} <= written["per_class"]["class 2"].keys()
    for folder in (tmp_path / "out", tmp_path / "out" / "keypoints"):
        assert {"report.html", "errors.json", "interval.json"} <= {file.name for file in folder.iterdir()}


def test_a_file_of_masks_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    problem = random_masks(1)
    assert evaluate(monkeypatch, *shape_files(tmp_path, problem)) == 0
    written = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert {name.partition("/")[0] for name in written} == {"segm", "per_class", "notes"}
    assert written["segm/AP"] == by_pycocotools(*problem, "segm").stats[0]
    assert "gt.json: masks" in capsys.readouterr().out
    assert "masks of " in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_the_tasks_can_be_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    truth, results = random_masks(1)
    results = [{**result, "bbox": [10, 10, 30, 30]} for result in results]
    assert evaluate(monkeypatch, *shape_files(tmp_path, (truth, results)), "tasks=[segm]") == 0
    written = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert {name.partition("/")[0] for name in written} == {"segm", "per_class", "notes"}


def test_the_report_of_a_task_that_is_no_longer_evaluated_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth, results = random_masks(1)
    files = shape_files(tmp_path, (truth, [{**result, "bbox": [10, 10, 30, 30]} for result in results]))
    assert evaluate(monkeypatch, *files) == 0
    report = tmp_path / "out" / "segm" / "report.html"
    assert report.is_file()
    (tmp_path / "out" / "keypoints").mkdir()
    (tmp_path / "out" / "keypoints" / "notes.txt").write_text("mine")
    assert evaluate(monkeypatch, *files, "tasks=[bbox]") == 0
    assert not report.parent.exists()
    assert (tmp_path / "out" / "keypoints" / "notes.txt").is_file()


def test_masks_that_the_truth_lacks_leave_the_boxes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    truth, results = random_masks(1)
    results = [{**result, "bbox": [10, 10, 30, 30]} for result in results]
    del truth["annotations"][0]["segmentation"]
    assert evaluate(monkeypatch, *shape_files(tmp_path, (truth, results))) == 0
    assert "segm/AP" not in json.loads((tmp_path / "out" / "metrics.json").read_text())
    error = capsys.readouterr().err
    assert "note: masks are not evaluated. " in error
    assert f"1 of {len(truth['annotations'])} annotations have no mask" in error


def test_boxes_do_not_depend_on_masks_that_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth, results = random_masks(1)
    results = [{**result, "bbox": [10, 10, 30, 30]} for result in results]
    expected = by_pycocotools(truth, results, "bbox").stats[0]
    truth["annotations"][0]["segmentation"] = [[0, 0, 1, 1]]
    files = shape_files(tmp_path, (truth, results))
    assert evaluate(monkeypatch, *files, "evaluation.on_bad_box=drop") == 0
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["AP"] == expected


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ("[keypoints]", "no category names its keypoints"),
        ("[bbox]", "has no bbox (only boxes with a score are evaluated)"),
        ("[]", "tasks names no task or one twice"),
        ("[segm,segm]", "tasks names no task or one twice"),
    ],
)
def test_tasks_that_cannot_be_evaluated(
    tasks: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert evaluate(monkeypatch, *shape_files(tmp_path, random_masks(1)), f"tasks={tasks}") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_sigmas_are_for_keypoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    truth, results = random_poses(2, keypoints=3)
    files = shape_files(tmp_path, (truth, [{**result, "bbox": [10, 10, 30, 30]} for result in results]))
    sigmas = "evaluation.sigmas=[0.1,0.1,0.1]"
    assert evaluate(monkeypatch, *files, sigmas, "tasks=[bbox]") == 2
    assert "evaluation.sigmas is for keypoints, and boxes are evaluated" in capsys.readouterr().err
    assert evaluate(monkeypatch, *files, sigmas) == 0
    assert {"AP", "keypoints/AP"} <= json.loads((tmp_path / "out" / "metrics.json").read_text()).keys()
