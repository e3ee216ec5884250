"""The verbs as Python functions: the command line's options, messages and files, and nothing left behind."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

import detector
from detector import DetectorError, Run
from detector.api import _words
from detector.cli.main import main
from detector.commands import compare, evaluate, export, predict, train
from detector.run_folder import RunFolder
from detector.runs.context import Context
from tests.training.tiny import SIZE, write_dataset

Calls = list[tuple[Any, Context]]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Calls:
    """The options and contexts that commands get, which do nothing."""
    recorded: Calls = []
    for command in (train, evaluate, compare, predict, export):
        monkeypatch.setattr(command, "run", lambda options, context: recorded.append((options, context)))
    monkeypatch.chdir(tmp_path)
    return recorded


@pytest.fixture(autouse=True)
def _hydra_as_before() -> Iterator[None]:
    yield
    assert not GlobalHydra.instance().is_initialized()


def test_keywords_are_options_of_the_command_line(calls: Calls) -> None:
    run = detector.train(
        "it's mine",
        model="fcos",
        epochs=3,
        batch_size=2,
        image_size=96,
        lr=1e-3,
        seed=7,
        device="cpu",
        resume="last.ckpt",
        overrides=["model.head.num_convs=1"],
    )
    ((options, context),) = calls
    assert (options.data.root, options.data.batch_size) == ("it's mine", 2)
    assert (options.data.image_size.min_size, options.data.image_size.max_size) == (96, 96)
    assert (options.training.max_epochs, options.training.accelerator) == (3, "cpu")
    assert options.training.resume == "last.ckpt"
    assert (options.optimizer.lr, options.seed) == (1e-3, 7)
    assert context.config["model"]["head"]["num_convs"] == 1
    assert "data.root='it\\'s mine'" in context.overrides
    assert Path(run.folder).match("runs/train/fcos/*")  # named by Hydra's choices and the time


def test_the_configuration_of_hydra_is_as_before(calls: Calls) -> None:
    before = HydraConfig.instance().cfg  # of a command that another test ran, or None
    detector.train(model="fcos")
    assert HydraConfig.instance().cfg is before


def test_without_arguments_it_is_the_command_lines_default(calls: Calls) -> None:
    detector.train()
    detector.train()  # one process composes as often as it likes
    assert [options.data.root for options, _ in calls] == ["data/warped_shapes"] * 2


def test_files_of_your_own_are_found(calls: Calls, tmp_path: Path) -> None:
    (tmp_path / "mine/experiment").mkdir(parents=True)
    (tmp_path / "mine/experiment/cells.yaml").write_text("# @package _global_\nseed: 5\n")
    detector.train(overrides=["--config-dir", "mine", "experiment=cells"])
    assert calls[0][0].seed == 5


def test_a_checkpoint_is_a_file_a_folder_or_a_run(calls: Calls, tmp_path: Path) -> None:
    best = tmp_path / "run/checkpoints/best.ckpt"
    best.parent.mkdir(parents=True)
    best.touch()
    for checkpoint in (best, str(best), tmp_path / "run", Run(tmp_path / "run")):
        detector.evaluate(checkpoint, "other", device="cpu")
        detector.predict(checkpoint, "photos", score_threshold=0.5)
        file = detector.export(checkpoint, format="torch_export", output_dir="out")
    assert {options.checkpoint for options, _ in calls} == {str(best)}
    assert (calls[0][0].data.root, calls[0][0].accelerator) == ("other", "cpu")
    assert (calls[1][0].source, calls[1][0].score_threshold) == ("photos", 0.5)
    assert file == Path("out/detector.pt2")


def test_variants_replace_those_of_the_file(calls: Calls) -> None:
    variants = {"plain": ["optimizer=sgd"], "v1 in C5": ["model.backbone.deform.stages=[5]", "optimizer=sgd"]}
    detector.compare("data", variants=variants, seeds=[0, 1], epochs=1)
    assert calls[0][0].compare.variants == variants
    assert list(calls[0][0].seeds) == [0, 1]


def test_runs_and_seeds_of_one_variant(calls: Calls) -> None:
    detector.compare(runs=[[Run("a"), Path("b=1")], ["c", "d"]])
    detector.compare(predictions=["a.json", "b.json"], annotations="gt.json")
    assert calls[0][0].runs == [["a", "b=1"], ["c", "d"]]
    assert (calls[1][0].predictions, calls[1][0].annotations) == (["a.json", "b.json"], "gt.json")


@pytest.mark.parametrize(
    "words",
    [
        ["model=fcoss"],
        ["model.head.nun_convs=2"],
        ["training.max_epochs=0"],
        ["seed"],
        ["data=coco", "data.root=nowhere"],
    ],
)
def test_mistakes_have_the_command_lines_message(
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DetectorError) as raised:
        detector.train(overrides=words)
    assert raised.value.__suppress_context__
    assert raised.value._render_traceback_() == [f"DetectorError: {raised.value}"]
    monkeypatch.setattr(sys, "argv", ["detector", "train", *words])
    assert main() == 2
    assert f"detector: {raised.value}\n" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["-m", "--cfg=job"])
def test_flags_that_make_no_run_are_refused(word: str) -> None:
    with pytest.raises(DetectorError, match=f"{word}: only the command line takes it"):
        detector.train(overrides=[word])


def test_several_devices_are_the_command_lines(calls: Calls) -> None:
    with pytest.raises(DetectorError, match=r"Python trains on one .* detector train training.devices=2"):
        detector.train(overrides=["training.devices=2"])
    assert calls == []


@pytest.mark.parametrize(
    ("end", "raised"),
    [(SystemExit(130), KeyboardInterrupt), (SystemExit(143), SystemExit), (KeyError("ours"), KeyError)],
)
def test_ends_that_are_no_message(
    end: BaseException, raised: type[BaseException], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def run(options: object, context: object) -> None:
        raise end

    monkeypatch.setattr(train, "run", run)
    with pytest.raises(raised):
        detector.train(output_dir=tmp_path / "run")


def test_every_public_name_is_there() -> None:
    assert all(hasattr(detector, name) for name in detector.__all__)
    import_module("detector.exporting.recording")  # a package of the same name would replace the function
    assert callable(detector.export)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run, trained in a thread, which may set no signals."""
    folder, runs = tmp_path_factory.mktemp("python"), []
    write_dataset(folder / "data")

    def work() -> None:
        overrides = ["data.num_workers=0", "model.neck.out_channels=32"]
        keywords: Any = {"batch_size": 4, "image_size": SIZE, "device": "cpu", "output_dir": folder / "run"}
        runs.append(detector.train(folder / "data", epochs=1, overrides=overrides, **keywords))

    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    (run,) = runs
    return run


def test_run_has_metrics_epochs_report_and_predictor(trained: Run) -> None:
    assert trained.metrics == RunFolder(Path(trained.folder)).read_metrics()
    assert [row["epoch"] for row in trained.epochs] == [1]
    assert trained.report.is_file()
    assert trained.predictor().class_names == ("disc", "square")


def test_run_is_shown_by_its_metrics(trained: Run) -> None:
    assert repr(trained) == f"Run({trained.folder}: AP {trained.metrics['AP']:.3f}, " + (
        f"AP50 {trained.metrics['AP50']:.3f}, AP75 {trained.metrics['AP75']:.3f})"
    )
    html = trained._repr_html_()
    assert "<th>square</th>" in html
    assert f'href="{trained.report}"' in html


def test_a_folder_without_results_is_shown(tmp_path: Path) -> None:
    assert repr(Run(tmp_path)) == f"Run({tmp_path}: no metrics)"
    assert "no results" in repr(detector.Comparison(tmp_path))


def test_a_run_is_resumed_from_its_folder(calls: Calls, trained: Run) -> None:
    detector.train(resume=trained)
    ((options, _),) = calls
    assert Path(options.training.resume) == trained.files.last
    assert Path(options.output_dir) == Path(trained.folder)


def test_numbers_of_numpy_are_numbers() -> None:
    assert _words(epochs=np.int64(7), lr=np.float32(0.5)) == ["training.max_epochs=7", "optimizer.lr=0.5"]


def test_one_value_where_a_list_is_expected_is_explained() -> None:
    with pytest.raises(detector.DetectorError, match="expected a list of at least two"):
        detector.compare(runs="runs/a")


def test_what_python_trained_is_evaluated_and_compared(trained: Run, tmp_path: Path) -> None:
    truth = Path(trained.folder).parent / "data/val.json"
    evaluated = detector.evaluate(
        predictions=trained.files.predictions, annotations=truth, output_dir=tmp_path / "evaluation"
    )
    assert evaluated.metrics["AP"] == trained.metrics["AP"]
    (tmp_path / "again.json").write_bytes(trained.files.predictions.read_bytes())
    compared = detector.compare(
        predictions=[trained.files.predictions, tmp_path / "again.json"],
        annotations=truth,
        output_dir=tmp_path / "comparison",
        overrides=["num_resamples=10"],
    )
    (verdict,) = compared.verdicts
    assert "identical predictions" in verdict
    assert verdict in repr(compared)
    assert "identical predictions" in compared._repr_markdown_()
    assert compared.report.is_file()
