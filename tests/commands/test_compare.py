"""`detector compare`: files, finished runs, and variants that it trains."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from detector.backbones.resnet import ResNet
from detector.commands import compare
from detector.comparing import latency as comparing_latency
from detector.comparing import training
from detector.comparing.latency import with_latencies
from detector.comparing.plan import PlannedRun
from detector.comparing.subjects import Subject
from detector.comparing.training import TrainRuns
from detector.evaluation.coco import CocoEvaluator
from detector.exceptions import RunError
from detector.profiling import latency
from detector.run_folder import RunFolder
from detector.runs.curves import read_curve
from tests.comparing.command import command_words, comparison, detector, variants
from tests.comparing.finished import write_run
from tests.evaluation.problems import ground_truth, perfect_results
from tests.evaluation.worlds import run_of, world
from tests.training.tiny import copy_run, run_training, write_dataset


@pytest.fixture(autouse=True)
def _few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "SECONDS", 0.0)


# --- results files


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """gt.json; a.json and its better rival b.json."""
    random = np.random.default_rng(0)
    truth = world(60, random)
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    for name, skill in (("a", 0.5), ("b", 0.9), ("c", 0.5)):
        (tmp_path / f"{name}.json").write_text(json.dumps(run_of(truth, random, skill=skill)))
    return tmp_path


def compare_files(files: Path, *names: str, out: str = "out") -> int:
    paths = ",".join(str(files / f"{name}.json") for name in names)
    return detector(
        f"predictions=[{paths}]",
        f"annotations={files / 'gt.json'}",
        f"output_dir={files / out}",
        "num_resamples=200",
    )


def test_two_results_files(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare_files(files, "a", "b") == 0
    (condition,) = comparison(files / "out")["conditions"]
    actual = condition["comparisons"]["b.json"]
    truth = json.loads((files / "gt.json").read_text())
    scores = [CocoEvaluator(truth).evaluate(json.loads((files / f"{x}.json").read_text())).AP for x in "ab"]
    assert actual["metrics"]["AP"]["delta"] == pytest.approx(scores[1] - scores[0])
    assert actual["verdict"].startswith("b.json is better than a.json with 1 seed and 60 images: AP ")
    assert "interval is of image noise alone" in actual["verdict"]
    assert "another seed" not in actual["verdict"]  # whose training is not known
    assert condition["shown_runs"] == {}
    output = capsys.readouterr().out
    assert actual["verdict"] in output
    report = (files / "out/report.md").read_text(encoding="utf-8")
    assert report.startswith("# Comparison: b.json against a.json\n")
    assert actual["verdict"] in report
    assert "| AP50 |" in report
    assert "| oLRP |" in report
    assert "| thing |" in report


def test_worse_and_not_distinguishable(files: Path) -> None:
    assert compare_files(files, "b", "a", "c") == 0
    (condition,) = comparison(files / "out")["conditions"]
    assert condition["comparisons"]["a.json"]["verdict"].startswith("a.json is worse than b.json")
    assert compare_files(files, "a", "c", out="other") == 0
    (condition,) = comparison(files / "other")["conditions"]
    assert (
        "c.json is not distinguishable from a.json with 1 seed"
        in condition["comparisons"]["c.json"]["verdict"]
    )


def test_seeds_of_files_make_an_interval_with_both_noises(files: Path) -> None:
    truth = json.loads((files / "gt.json").read_text())
    random = np.random.default_rng(1)
    for name, skill in (("a1", 0.5), ("b1", 0.9)):
        (files / f"{name}.json").write_text(json.dumps(run_of(truth, random, skill=skill)))
    a, b = (
        "[" + ",".join(str(files / f"{variant}{seed}.json") for seed in ("", "1")) + "]" for variant in "ab"
    )
    words = (f"predictions=[{a},{b}]", f"annotations={files / 'gt.json'}", f"output_dir={files / 'out'}")
    assert detector(*words, "num_resamples=100") == 0
    (condition,) = comparison(files / "out")["conditions"]
    actual = condition["comparisons"]["b.json"]
    assert len(actual["seed_deltas"]) == 2
    of_a, of_b = (condition["metrics"][variant] for variant in condition["metrics"])
    deltas = [of_b[seed]["AP"] - of_a[seed]["AP"] for seed in of_a]
    assert deltas == pytest.approx(actual["seed_deltas"])
    assert actual["metrics"]["AP"]["seed_error"] > 0
    assert "2 seeds and 60 images" in actual["verdict"]
    assert condition["shown_runs"] == {"a.json": "a.json, one of 2", "b.json": "b.json, one of 2"}
    runs = "a.json: a.json, one of 2; b.json: b.json, one of 2"
    report = (files / "out/report.md").read_text(encoding="utf-8")
    assert f"### Errors ({runs})" in report
    assert "b.json (b) against a.json (a), means of 2 seeds" in report
    page = (files / "out/report.html").read_text(encoding="utf-8")
    assert f"Errors ({runs})</h2>" in page
    assert "(a), means of 2 seeds</h3>" in page


def test_identical_predictions_are_named(files: Path) -> None:
    (files / "same.json").write_text((files / "a.json").read_text())
    assert compare_files(files, "a", "same") == 0
    (condition,) = comparison(files / "out")["conditions"]
    assert "have identical predictions" in condition["comparisons"]["same.json"]["verdict"]


def test_mistakes_in_what_to_compare(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, truth = files / "a.json", f"annotations={files / 'gt.json'}"
    for words, expected in (
        ([f"predictions=[{a},{files / 'none.json'}]", truth], "no such file"),
        ([truth], "is the ground truth of predictions="),
        ([f"predictions=[{a},{a}]", f"runs=[{a},{a}]", truth], "Both runs= and predictions= are given"),
        ([f"predictions=[{a},{a}]", truth, "latency=true"], "latency=true would have no effect"),
    ):
        assert detector(*words, f"output_dir={files / 'out'}") == 2
        assert expected in capsys.readouterr().err


def test_results_for_unknown_images_name_the_arm(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = json.loads((files / "b.json").read_text())
    strange = [{**row, "image_id": row["image_id"] + 1000} for row in rows]
    (files / "b.json").write_text(json.dumps(strange))
    assert compare_files(files, "a", "b") == 2
    output = capsys.readouterr().err
    assert "b.json: " in output
    assert "results name images that the ground truth does not have" in output


def test_a_ground_truth_without_small_objects_leaves_them_out(tmp_path: Path) -> None:
    truth = ground_truth()
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    results = perfect_results(truth)
    for name, kept in (("a", results), ("b", results[:1])):
        (tmp_path / f"{name}.json").write_text(json.dumps(kept))
    assert compare_files(tmp_path, "a", "b") == 0
    (condition,) = comparison(tmp_path / "out")["conditions"]
    assert "APl" not in condition["comparisons"]["b.json"]["metrics"]


# --- runs


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("compared") / "data")


@pytest.fixture(scope="module")
def trained(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs."""
    return run_training(dataset, tmp_path_factory.mktemp("trained") / "run")


def test_finished_runs(dataset: Path, trained: Path, tmp_path: Path) -> None:
    a = write_run(tmp_path / "a", dataset, "training.max_epochs=1")
    b = copy_run(trained, tmp_path / "b")
    assert detector(f"runs=[{a},{b}]", f"output_dir={tmp_path / 'out'}", "num_resamples=20") == 0
    (condition,) = comparison(tmp_path / "out")["conditions"]
    assert condition["baseline"] == "a"
    assert "The variants differ in training.max_epochs, too: 1, 2." in condition["notes"]
    curve = condition["curves"]["b"]["0"]
    assert len(curve["ap"]) == 2
    assert curve["images_seen"] == [8, 16]
    assert all(peak > 100 for peak in curve["peak_memory_mb"])


def test_runs_are_timed_on_one_image_and_on_a_validation_batch(trained: Path, tmp_path: Path) -> None:
    """Not those whose checkpoint is gone."""
    for name in "abc":
        copy_run(trained, tmp_path / name)
    (tmp_path / "b/checkpoints/best.ckpt").unlink()

    def compared(*words: str) -> dict[str, Any]:
        runs = ",".join(str(tmp_path / name) for name in "abc")
        assert detector(f"runs=[{runs}]", f"output_dir={tmp_path / 'out'}", "num_resamples=10", *words) == 0
        condition = comparison(tmp_path / "out")["conditions"][0]
        assert isinstance(condition, dict)
        return condition

    condition = compared()
    for variant in "ac":
        assert [one["batch_size"] for one in condition["latencies"][variant]] == [1, 4]
        assert all(0 < one["p50_ms"] <= one["p95_ms"] for one in condition["latencies"][variant])
        assert all(one["rounds"] == latency.FEWEST_ROUNDS for one in condition["latencies"][variant])
    assert condition["ap_per_ms"].keys() == {"a", "c"}
    assert "b" not in condition["latencies"]
    (note,) = condition["notes"]
    assert note.startswith("The latency of b is not known:")
    assert "best.ckpt: no such file" in note
    without = compared("latency=false")
    assert without["latencies"] is None
    assert without["notes"] == []


def test_latency_is_measured_once_for_the_same_models(
    dataset: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = copy_run(trained, tmp_path / "a"), copy_run(trained, tmp_path / "b")
    config = RunFolder(b).read_config()
    config["model"]["neck"]["out_channels"] = 16
    RunFolder(b).config.write_text(yaml.safe_dump(config, sort_keys=False))
    measured: list[tuple[str, ...]] = []

    def measure(calls: dict[str, Any], *, batch_size: int, device: str) -> dict[str, latency.Latency]:
        measured.append((*calls, str(batch_size)))
        return {variant: latency.Latency("cpu", batch_size, 1.0, 2.0, 3) for variant in calls}

    monkeypatch.setattr(comparing_latency, "measure_latencies", measure)
    evaluator = CocoEvaluator(json.loads((dataset / "val.json").read_text()))
    subjects = [
        Subject(name, evaluator, {}, folders=folders)
        for name, folders in (("1", {"x": a, "y": b}), ("2", {"x": a, "y": b}), ("3", {"x": a, "y": a}))
    ]
    actual = with_latencies(
        [*subjects, Subject("4", evaluator, {})], accelerator="cpu", generate_into=tmp_path / "data"
    )
    assert measured == [("x", "y", "1"), ("x", "y", "4")] * 2
    assert [subject.latencies is None for subject in actual] == [False, False, False, True]


def test_runs_at_a_time_have_a_device_each(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert variants(dataset, tmp_path, "parallel=2", "training.devices=auto") == 2
    assert "parallel=2 gives each run one device, and training.devices=auto" in capsys.readouterr().err


def test_images_seen_of_runs_that_did_not_count_them(trained: Path, tmp_path: Path) -> None:
    run = copy_run(trained, tmp_path / "run")
    counted = read_curve(run)
    lines = [row.split(",") for row in (run / "metrics.csv").read_text().splitlines()]
    kept = [n for n, name in enumerate(lines[0]) if name not in ("images_seen", "peak_memory_mb")]
    text = "".join(",".join(row[n] for n in kept) + "\n" for row in lines)
    (run / "metrics.csv").write_text(text)
    old = read_curve(run)
    assert old.images_seen == counted.images_seen == (8, 16)
    assert old.peak_memory_mb == (None, None)
    for wanted, expected in (
        ({"devices": 2}, 16),
        ({"devices": "auto", "accelerator": "auto"}, 24),
        ({"accumulate_grad_batches": 2}, 16),
    ):
        config = yaml.safe_load((run / "config.yaml").read_text())
        config["training"] = {**config["training"], "devices": 1, "accumulate_grad_batches": 1, **wanted}
        (run / "config.yaml").write_text(yaml.safe_dump(config))
        (run / "environment.json").write_text(json.dumps({"gpus": ["one"] * 3}))
        assert read_curve(run).images_seen[0] == expected


# --- variants


def planned_alone(monkeypatch: pytest.MonkeyPatch) -> list[PlannedRun]:
    """What gets planned from here on; nothing is trained."""
    planned: list[PlannedRun] = []

    def stop(runs: list[PlannedRun], *, train: TrainRuns) -> dict[Path, str]:
        planned.extend(runs)
        raise RunError("planned")

    monkeypatch.setattr(compare, "train_all", stop)
    return planned


@pytest.mark.slow
def test_arms_are_trained_once(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert variants(dataset, tmp_path) == 0
    output = capsys.readouterr().out
    assert "2 runs, 2 of them to train" in output
    assert "note: the model starts from random weights" in output
    (condition,) = comparison(tmp_path / "out")["conditions"]
    assert len(condition["comparisons"]["deformable"]["seed_deltas"]) == 1
    regular, deformable = condition["sizes"]["regular"], condition["sizes"]["deformable"]
    assert all(deformable[key] > regular[key] for key in regular)
    assert condition["errors"].keys() == {"regular", "deformable"}
    assert "Images that changed most, regular to deformable" in (tmp_path / "out/report.html").read_text()
    configs = [path.read_text() for path in (tmp_path / "runs").glob("*/config.yaml")]
    assert len(configs) == 2
    # The same command again trains nothing.
    before = {path: path.stat().st_mtime for path in (tmp_path / "runs").rglob("*.ckpt")}
    assert variants(dataset, tmp_path, out="again") == 0
    output = capsys.readouterr().out
    assert "2 runs, 0 of them to train" in output
    assert "random weights" not in output
    assert before == {path: path.stat().st_mtime for path in (tmp_path / "runs").rglob("*.ckpt")}
    assert comparison(tmp_path / "again")["conditions"][0]["comparisons"] == condition["comparisons"]


def test_every_mistake_of_every_arm_is_told_before_anything_is_trained(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = "+compare.variants.bad=['model.backbone.deform.stagess=[5]']"
    assert variants(dataset, tmp_path, bad, "+compare.variants.worse=['training.max_epochs=-1']") == 2
    output = capsys.readouterr().err
    assert "variant bad: model.backbone.deform.stagess: there is no such option" in output
    assert "variant worse: training.max_epochs = -1" in output
    assert variants(dataset, tmp_path, "compare.stages=[7]") == 2
    assert "variant deformable:" in capsys.readouterr().err
    assert variants(dataset, tmp_path, "seed=3") == 2
    assert "seed=3: a comparison has seeds=[3]" in capsys.readouterr().err
    assert variants(dataset, tmp_path, "~compare.variants.deformable") == 2
    assert "expected at least 2, got 1: regular" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_nothing_is_without_effect(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert variants(dataset, tmp_path, "model.backbone.deform.stages=[4]") == 2
    output = capsys.readouterr().err
    assert (
        "model.backbone.deform.stages=[4]: has no effect, every variant sets model.backbone.deform.stages"
        in output
    )
    assert detector("runs=[a,b]", "seeds=[0,1]", "model=fcos", f"output_dir={tmp_path}/out") == 2
    assert (
        "runs= compares existing files: seeds=[0,1], model=fcos would have no effect"
        in capsys.readouterr().err
    )


def test_weights_of_the_last_arm_are_tried_before_anything_is_trained(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert variants(dataset, tmp_path, "+compare.variants.tuned=['model.weights=/none/x.pth']") == 2
    assert "variant tuned: model.weights: no such file: /none/x.pth" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_other_content_of_a_file_of_weights_is_another_run(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = planned_alone(monkeypatch)
    state = ResNet(18).state_dict()
    for _ in range(2):
        state["conv1.weight"] += 1
        torch.save(state, tmp_path / "resnet.pth")
        assert variants(dataset, tmp_path, f"model.backbone.weights={tmp_path / 'resnet.pth'}") == 1
    assert len({run.folder for run in planned}) == 4


def test_what_is_logged_of_offsets_makes_no_other_run(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = planned_alone(monkeypatch)
    for every in (50, 10):
        assert variants(dataset, tmp_path, f"training.log_offsets_every_n_steps={every}") == 1
    assert len({run.folder for run in planned}) == 2


def test_a_run_that_another_command_trains_is_left_alone(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def train_all(runs: list[PlannedRun], *, train: TrainRuns) -> dict[Path, str]:
        with ExitStack() as locks:
            for planned in runs:
                planned.folder.mkdir(parents=True)
                lock = locks.enter_context(planned.folder.with_suffix(".lock").open("w"))
                fcntl.flock(lock, fcntl.LOCK_EX)
            return training.train_all(runs, train=train)

    monkeypatch.setattr(compare, "train_all", train_all)
    assert variants(dataset, tmp_path) == 1
    assert "another command is training it" in capsys.readouterr().err
    assert len([path for path in (tmp_path / "runs").iterdir() if path.is_dir()]) == 2  # none set aside


def test_arms_with_other_validation_images_are_refused(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_dataset(tmp_path / "data", seed=1)
    assert variants(dataset, tmp_path, f"compare.variants={{deformable:['data.root={other}']}}") == 2
    assert "have different validation images or boxes" in capsys.readouterr().err


def test_the_arms_that_were_trained_are_compared_and_the_report_names_the_one_that_failed(
    dataset: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train_run(run: PlannedRun, **_: Any) -> str:
        if run.variant == "broken":
            return "exit code 1: the disk is full"
        copy_run(trained, run.folder)
        (run.folder / "finished.txt").touch()
        return ""

    monkeypatch.setattr(training, "train_run", train_run)
    assert variants(dataset, tmp_path, "+compare.variants.broken=['optimizer.lr=0.02']", "seeds=[0,1]") == 0
    (condition,) = comparison(tmp_path / "out")["conditions"]
    assert list(condition["comparisons"]) == ["deformable"]
    assert len(condition["comparisons"]["deformable"]["seed_deltas"]) == 2
    notes = [
        *(f"broken, seed {seed} failed: exit code 1: the disk is full" for seed in (0, 1)),
        "broken is left out: no seed of it and of regular was trained.",
    ]
    assert condition["notes"] == notes
    for name in ("report.md", "report.html"):
        report = (tmp_path / "out" / name).read_text(encoding="utf-8")
        assert all(note in report for note in notes)


@pytest.mark.nightly
def test_a_run_that_fails_ends_only_itself(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its loss is not finite: the report has the other seed, and says so."""
    bad = "compare.variants={deformable:['optimizer.lr=1e30','training.gradient_clip_val=null']}"
    assert variants(dataset, tmp_path, bad) == 1
    output = capsys.readouterr()
    assert "deformable, seed 0: failed: exit code 1" in output.out
    assert "no seed with which regular and another variant were trained" in output.err
    assert "lower optimizer.lr" in output.err


@pytest.mark.nightly
def test_the_same_command_goes_on_after_an_interrupt(dataset: Path, tmp_path: Path) -> None:
    epochs = "training.max_epochs=6"
    words = [w for w in command_words(dataset, tmp_path, out="cut") if not w.startswith("training.max")]
    command = [sys.executable, "-m", "detector", "compare", *words, epochs]
    process = subprocess.Popen(
        command,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # whoever started the tests
    )
    while not any(len(p.read_text().splitlines()) > 2 for p in (tmp_path / "runs").glob("*/metrics.csv")):
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert not list((tmp_path / "runs").glob("*/finished.txt"))
    (log,) = (tmp_path / "runs").glob("*.log")
    assert variants(dataset, tmp_path, epochs, out="on") == 0
    assert "training.resume=" in log.read_text()
    assert [
        len(curve["0"]["ap"]) for curve in comparison(tmp_path / "on")["conditions"][0]["curves"].values()
    ] == [6, 6]


def test_own_arms_and_what_they_name_reach_the_runs(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in (
        ("compare/heads", "variants: {regular: [], thin: [experiment=thin]}"),
        ("experiment/thin", "# @package _global_\nmodel: {neck: {out_channels: 16}}"),
    ):
        (tmp_path / "mine" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mine" / f"{name}.yaml").write_text(text)
    planned: list[PlannedRun] = []
    flags: list[str] = []

    def stop(runs: list[PlannedRun], *, train: TrainRuns) -> dict[Path, str]:
        planned.extend(runs)
        assert isinstance(train, partial)
        flags.extend(train.keywords["flags"])
        raise RunError("planned")

    monkeypatch.setattr(compare, "train_all", stop)
    words = [
        w for w in command_words(dataset, tmp_path, out="out") if not w.startswith(("compare.", "model."))
    ]
    assert detector("--config-dir", tmp_path / "mine", *words, "compare=heads") == 1
    assert [run.config["model"]["neck"]["out_channels"] for run in planned] == [256, 16]
    assert flags == ["--config-dir", str(tmp_path / "mine")]


def test_points_are_planned_each_with_all_arms(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = planned_alone(monkeypatch)
    conditions = "compare.conditions={one:['optimizer.lr=0.01'],two:['optimizer.lr=0.02']}"
    assert variants(dataset, tmp_path, conditions, "seeds=[3,4]") == 1
    actual = [(run.condition, run.variant, run.seed, run.config["optimizer"]["lr"]) for run in planned]
    assert actual == [
        (condition, variant, seed, lr)
        for condition, lr in (("one", 0.01), ("two", 0.02))
        for variant in ("regular", "deformable")
        for seed in (3, 4)
    ]
    assert len({run.folder for run in planned}) == 8
