"""`detector train` as a whole, on a tiny dataset."""

from __future__ import annotations

import csv
import io
import json
import shutil
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import yaml

from detector.checkpoint import load_checkpoint, read_content
from detector.evaluation.coco import CocoEvaluator
from detector.exceptions import RunError
from detector.models.detector import Detector
from detector.predictor import restore_model
from detector.runs.inference import evaluate_checkpoint
from detector.runs.parts import require_hardware
from detector.training.module import DetectionModule, NonFiniteLossError, RunLength
from detector.training.resumable import require_entries
from detector.training.trainer import TrainingOptions
from tests.samples import total
from tests.training.tiny import assembled, run_training, write_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def finished(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs with a moving average."""
    return run_training(dataset, tmp_path_factory.mktemp("runs") / "finished", "training.ema_decay=0.9")


@pytest.fixture(scope="module")
def interrupted(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The `finished` run with loader processes, interrupted in its second epoch, and what it said."""
    run = tmp_path_factory.mktemp("runs") / "interrupted"
    with redirect_stderr(io.StringIO()) as output:
        interrupt_in_epoch_2(dataset, run, "data.num_workers=2", "training.ema_decay=0.9")
    return run, output.getvalue()


def interrupt_in_epoch_2(dataset: Path, run: Path, *overrides: str) -> None:
    def interrupt(module: DetectionModule) -> None:
        if module.current_epoch == 1:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as context:
        context.setattr(DetectionModule, "on_train_epoch_start", interrupt)
        with pytest.raises(SystemExit) as caught:
            run_training(dataset, run, *overrides)
    assert caught.value.code == 130


@pytest.fixture(scope="module")
def stopped(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run on parts of the images that learns nothing and is stopped for it, and what it said."""
    with redirect_stdout(io.StringIO()) as output:
        run = run_training(
            dataset,
            tmp_path_factory.mktemp("runs") / "stopped",
            "optimizer.lr=1e-9",
            "training.max_epochs=9",
            "training.early_stopping_patience=1",
            "training.check_val_every_n_epoch=2",
            "training.limit_train_batches=1",
            "training.limit_val_batches=1",
            "data.val_batch_size=2",
        )
    return run, output.getvalue()


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def same_weights(a: Path, b: Path) -> bool:
    states = [load_checkpoint(run / "checkpoints" / "last.ckpt").state_dict for run in (a, b)]
    return all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_everything_lies_in_the_output_dir_and_nothing_else(finished: Path) -> None:
    files = {
        str(p.relative_to(finished))
        for p in finished.rglob("*")
        if p.is_file() and "tensorboard" not in str(p)
    }
    assert files == {
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "config.yaml",
        "environment.json",
        "errors.json",
        "interval.json",
        "metrics.csv",
        "metrics.json",
        "overrides.txt",
        "predictions.json",
        "report.html",
    }
    assert [p.name.split(".")[0] for p in (finished / "tensorboard").iterdir()] == ["events"]


def test_checkpoint_knows_original_classes_and_config(finished: Path) -> None:
    checkpoint = load_checkpoint(finished / "checkpoints" / "best.ckpt")
    assert dict(zip(checkpoint.category_ids, checkpoint.class_names, strict=True)) == {3: "disc", 7: "square"}
    assert checkpoint.config == yaml.safe_load((finished / "config.yaml").read_text())


def test_best_checkpoint_has_no_state_of_the_optimizer(finished: Path) -> None:
    best, last = (read_content(finished / "checkpoints" / f"{name}.ckpt") for name in ("best", "last"))
    assert "optimizer_states" in last
    assert "optimizer_states" not in best
    with pytest.raises(ValueError, match="holds weights alone"):
        require_entries(best, source="training.resume=best.ckpt")
    sizes = [(finished / "checkpoints" / f"{name}.ckpt").stat().st_size for name in ("best", "last")]
    assert sizes[0] < 0.4 * sizes[1]


def test_checkpoint_holds_the_metrics_of_its_validation(finished: Path) -> None:
    checkpoint = load_checkpoint(finished / "checkpoints" / "best.ckpt")
    stored = json.loads((finished / "metrics.json").read_text())
    assert checkpoint.metrics["val/AP50"] == pytest.approx(stored["AP50"], abs=1e-6)
    assert {"val/loss", "val/loss_cls"} <= checkpoint.metrics.keys()


def test_checkpoint_holds_the_threshold_of_the_best_f1_of_its_validation(
    dataset: Path, tmp_path: Path
) -> None:
    trainer, module, data = assembled(dataset, tmp_path / "run")
    module.trainer = trainer
    truth = json.loads((dataset / "val.json").read_text())["annotations"]
    rows: list[list[dict[str, Any]]] = [[] for _ in data.val_set.annotations.file_names]
    for object_ in truth:
        row = {key: object_[key] for key in ("image_id", "category_id", "bbox")}
        wrong = {**row, "bbox": [0, 0, 1, 1], "score": 0.4}
        rows[object_["image_id"] - 200] += [{**row, "score": 0.9}, wrong]
    module.validation.collector.merge(dict(enumerate(rows)))
    module._val_losses.add({"loss": torch.zeros(())}, images=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "log_dict", lambda values: None)
        module.on_validation_epoch_end()
    for is_validated in (True, False):
        module.validated_epoch = 0 if is_validated else -1
        content: dict[str, Any] = {"state_dict": {}, "loops": {"fit_loop": {"epoch_progress": {}}}}
        module.on_save_checkpoint(content)
        threshold = content["detector"]["best_f1_threshold"]
        assert threshold == (pytest.approx(0.41) if is_validated else None)
        assert threshold is None or type(threshold) is float


def test_metrics_csv_has_one_row_an_epoch_with_both_losses_and_metrics(finished: Path) -> None:
    assert [row["epoch"] for row in rows(finished)] == ["1", "2"]
    assert all(float(row[name]) > 0 for row in rows(finished) for name in ("train/loss", "val/loss", "lr"))
    assert "val/AP50" in rows(finished)[0]


def test_metrics_csv_counts_images_and_tells_the_peak_of_memory(finished: Path) -> None:
    """Two batches of four an epoch; a process with torch holds more than 100 MB."""
    assert [row["images_seen"] for row in rows(finished)] == ["8", "16"]
    peaks = [float(row["peak_memory_mb"]) for row in rows(finished)]
    assert 100 < peaks[0] <= peaks[1] < 100_000


def test_predictions_have_original_ids(finished: Path) -> None:
    results = json.loads((finished / "predictions.json").read_text())
    assert {result["image_id"] for result in results} <= set(range(200, 206))
    assert {result["category_id"] for result in results} <= {3, 7}
    assert results


def test_a_report_tells_the_metrics_and_shows_images(finished: Path) -> None:
    report = (finished / "report.html").read_text(encoding="utf-8")
    ap = json.loads((finished / "metrics.json").read_text())["AP"]
    assert f"<b>{ap:.4f}</b>" in report
    assert "data-gallery" in report
    assert "data:image/jpeg" in report


def test_a_plain_model_logs_no_offsets(finished: Path) -> None:
    assert not [name for row in rows(finished) for name in row if "offsets" in name]
    assert "<h2>Offsets</h2>" not in (finished / "report.html").read_text(encoding="utf-8")


def test_evaluating_the_best_checkpoint_gives_its_validation_again(finished: Path) -> None:
    (evaluation,) = evaluate_checkpoint(
        str(finished / "checkpoints" / "best.ckpt"),
        data_overrides={},
        evaluator=CocoEvaluator,
        accelerator="cpu",
    )
    assert evaluation.metrics.to_dict() == json.loads((finished / "metrics.json").read_text())
    assert evaluation.results == json.loads((finished / "predictions.json").read_text())


def test_evaluated_weights_are_the_average_not_the_trained_ones(finished: Path) -> None:
    path = finished / "checkpoints" / "last.ckpt"
    evaluated = restore_model(load_checkpoint(path), device=torch.device("cpu")).state_dict()
    trained = torch.load(path, weights_only=True)["state_dict"]
    name = "head.classification_head.cls_logits.weight"
    assert not torch.equal(evaluated[name], trained[f"model.{name}"])
    assert torch.equal(evaluated[name], trained[f"averaged.model.{name}"])


def test_same_seed_gives_the_same_weights_though_a_run_is_interrupted_and_resumed(
    dataset: Path, finished: Path, interrupted: tuple[Path, str], tmp_path: Path
) -> None:
    """Bit for bit, and with loader processes or without."""
    shutil.copytree(interrupted[0], tmp_path / "resumed")
    require_same_end(dataset, finished, tmp_path / "resumed", "data.num_workers=2", "training.ema_decay=0.9")


@pytest.mark.parametrize(
    "model",
    [
        pytest.param("fcos", marks=pytest.mark.nightly),
        pytest.param("faster_rcnn_small", marks=pytest.mark.slow),
    ],
)
def test_resumed_run_ends_bit_for_bit_like_an_uninterrupted_one(
    dataset: Path, tmp_path: Path, model: str
) -> None:
    options = ("training.ema_decay=0.9", f"model={model}")
    straight = run_training(dataset, tmp_path / "straight", *options)
    interrupt_in_epoch_2(dataset, tmp_path / "resumed", *options)
    require_same_end(dataset, straight, tmp_path / "resumed", *options)


def require_same_end(dataset: Path, straight: Path, run: Path, *options: str) -> None:
    run_training(dataset, run, *options, f"training.resume={run}/checkpoints/last.ckpt")
    assert same_weights(straight, run)
    for column in ("val/loss", "images_seen"):
        assert [row[column] for row in rows(straight)] == [row[column] for row in rows(run)]


@pytest.mark.slow
def test_images_of_epochs_in_another_folder_count(dataset: Path, finished: Path, tmp_path: Path) -> None:
    last = finished / "checkpoints" / "last.ckpt"
    overrides = (f"training.resume={last}", "training.ema_decay=0.9", "training.max_epochs=3")
    assert [row["images_seen"] for row in rows(run_training(dataset, tmp_path / "on", *overrides))] == ["24"]


def test_finished_run_is_not_overwritten(dataset: Path, finished: Path) -> None:
    with pytest.raises(ValueError, match="already holds a run"):
        run_training(dataset, finished)


def test_resuming_another_model_names_the_difference(dataset: Path, finished: Path, tmp_path: Path) -> None:
    last = finished / "checkpoints" / "last.ckpt"
    overrides = (f"training.resume={last}", "training.max_epochs=3", "model.head.num_convs=2")
    with pytest.raises(ValueError, match=r"model\.head\.num_convs: 4 -> 2"):
        run_training(dataset, tmp_path / "run", *overrides, "training.ema_decay=0.9")


def test_resuming_a_finished_run_says_that_nothing_is_left(
    dataset: Path, finished: Path, tmp_path: Path
) -> None:
    last = finished / "checkpoints" / "last.ckpt"
    with pytest.raises(ValueError, match=r"finished 2 epochs.*Raise training\.max_epochs"):
        run_training(dataset, tmp_path / "run", f"training.resume={last}", "training.ema_decay=0.9")


def test_epochs_without_a_validation_have_no_metrics_in_their_row(stopped: tuple[Path, str]) -> None:
    assert [bool(row["val/AP"]) for row in rows(stopped[0])] == [False, True, False, True]


def test_part_of_the_validation_is_scored_against_that_part_and_said(stopped: tuple[Path, str]) -> None:
    run, output = stopped
    results = json.loads((run / "predictions.json").read_text())
    assert {result["image_id"] for result in results} <= {200, 201}
    limits = "training.limit_train_batches=1 of 2 batches, training.limit_val_batches=1 of 3 batches"
    assert f"note: epochs are shortened, for trials: {limits}\n" in output
    subject = "on the first 2 of 6 validation images (training.limit_val_batches=1)"
    assert subject in output
    assert subject in (run / "report.html").read_text()


def test_training_stops_when_the_metric_does_not_improve_and_says_so(stopped: tuple[Path, str]) -> None:
    run, output = stopped
    assert [row["epoch"] for row in rows(run)] == ["1", "2", "3", "4"]
    note = (
        "stopped after epoch 4 of 9: no better val/AP in 1 validation (training.early_stopping_patience=1); "
        "the schedule was planned for 9 epochs"
    )
    assert f"note: {note}\n" in output
    assert note in (run / "report.html").read_text()
    assert (run / "stopped.txt").read_text() == f"{note}\n"


def test_accumulated_batches_scale_the_rate_and_the_steps(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer, module, _ = assembled(
        dataset,
        tmp_path / "run",
        "training.accumulate_grad_batches=2",
        "data.batch_size=2",
        "optimizer.lr=0.01",
        "optimizer.reference_batch_size=2",
    )
    plan = capsys.readouterr().out
    assert "learning rate: 0.02 = optimizer.lr 0.01 x 4 images a step" in plan
    assert "note: the model starts from random weights" in plan
    groups = cast(Any, module.configure_optimizers())["optimizer"].param_groups
    assert {group["initial_lr"] for group in groups} == {0.02}
    assert trainer.accumulate_grad_batches == 2
    assert module.length == RunLength(epochs=2, steps_per_epoch=2, images_per_step=4)


def test_deterministic_algorithms_train_deformable_stages(dataset: Path, tmp_path: Path) -> None:
    options = ("training.deterministic=true", "model.backbone.deform.stages=[5]")
    try:
        _, module, data = assembled(dataset, tmp_path / "run", *options)
        assert torch.are_deterministic_algorithms_enabled()
        losses, _ = module.model.loss_and_predict(next(iter(data.val_dataloader())))
        total(losses).backward()
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("training.precision=16-mixed", "needs a GPU"),
        ("training.accelerator=gpu", "this machine has none"),
    ],
)
def test_missing_hardware_is_told_before_anything_is_read(tmp_path: Path, option: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_training(tmp_path / "no data here", tmp_path / "run", option)


def test_more_devices_than_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match=r"training\.devices=3: this machine has 2"):
        require_hardware(TrainingOptions(max_epochs=1, devices=3))


def test_output_dir_that_cannot_be_is_told_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="file is no folder"):
        run_training(tmp_path / "no data here", tmp_path / "file" / "run")


def test_non_finite_loss_of_the_validation_is_told_with_its_images(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    both = Detector.loss_and_predict

    def broken(model: Detector, batch: Any) -> Any:
        losses, detections = both(model, batch)
        return {**losses, "loss_cls": torch.tensor(float("inf"))}, detections

    monkeypatch.setattr(Detector, "loss_and_predict", broken)
    with pytest.raises(RunError, match="no best checkpoint: in every validation a loss was not finite"):
        run_training(dataset, tmp_path / "run", "training.max_epochs=1", "training.limit_train_batches=1")
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert "loss of the validation is not finite" in caplog.text
    assert "loss_cls is inf, for the images with the ids [200, 201" in caplog.text
    assert "loss_box_reg" not in caplog.text


def test_non_finite_loss_names_term_step_and_images(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss = Detector.loss

    def broken(model: Detector, batch: Any) -> dict[str, torch.Tensor]:
        return {**loss(model, batch), "loss_box_reg": torch.tensor(float("nan"))}

    monkeypatch.setattr(Detector, "loss", broken)
    with pytest.raises(NonFiniteLossError) as caught:
        run_training(dataset, tmp_path / "run", "data.batch_size=8")
    text = str(caught.value)
    assert "epoch 1, step 1: loss_box_reg is nan" in text
    assert "loss_cls" not in text
    assert "training.gradient_clip_val=10" not in text, "it is set"
    assert all(str(image_id) in text for image_id in range(100, 108))


def test_interrupted_run_says_what_is_kept(interrupted: tuple[Path, str]) -> None:
    run, output = interrupted
    last = run / "checkpoints" / "last.ckpt"
    assert f"Kept: {last}, after epoch 1." in output
    assert f"training.resume={last}" in output
