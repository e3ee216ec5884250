"""`detector VERB --help`: options with comments, ranges and choices, of a verb or a part."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from detector.cli import main as cli
from detector.config.group_files import ConfigFiles
from detector.config.paths import config_dir
from detector.config.reference import options_of

Detector = Callable[..., tuple[int, str, str]]


@pytest.fixture
def detector(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Detector:
    monkeypatch.setenv("COLUMNS", "120")

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["detector", *words])
        return (cli.main(), *capsys.readouterr())

    return run


@pytest.mark.parametrize("verb", cli.VERBS)
def test_help_has_every_option_of_its_verb(detector: Detector, verb: str) -> None:
    code, out, _ = detector(verb, "--help")
    assert code == 0
    shown = set(re.findall(r"^  ([a-z][\w.]*)=", out, re.MULTILINE))
    files = ConfigFiles([config_dir()], verb, ())
    assert shown == {option.key for option in options_of(files, cli.VERBS[verb].module)}


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["train", "--help"], "passes over the training images [an integer >= 1]"),
        (["train", "--help"], "[one of auto, cpu, gpu, mps]"),
        (["train", "--help"], "  optimizer                                 adamw*, sgd"),
        (["train", "--help"], "  model.backbone.out_stages=[3, 4]"),  # of the recipe
        (["train", "optimizer=sgd", "--help"], "  optimizer.momentum=0.9"),
        (["train", "experiment=faster_rcnn_r50_1x", "--help"], "  model.head.rpn.nms_iou_threshold=0.7"),
        (["train", "--help", "model/backbone"], "ResNet-50 backbone"),
        (["train", "--help", "model.head"], "  model.head.num_convs="),
        (["train", "--help", "training.devices"], "number of devices of this machine; auto: all"),
        (["help", "train", "data"], "  data.val_batch_size="),
        (["predict", "-h"], "score_threshold=auto"),
    ],
)
def test_help_shows(detector: Detector, words: list[str], shown: str) -> None:
    code, out, _ = detector(*words)
    assert code == 0
    assert shown in out


@pytest.mark.parametrize(
    ("words", "hidden"),
    [
        (["train", "--help", "model.head"], "training."),
        (["train", "--help", "data"], "model"),
        (["predict", "--help"], "faster_rcnn_r50_1x"),
        (["predict", "--help"], "model/"),
    ],
)
def test_help_leaves_out_other_parts(detector: Detector, words: list[str], hidden: str) -> None:
    assert f"  {hidden}" not in detector(*words)[1]


def test_help_knows_own_files(detector: Detector, tmp_path: Path) -> None:
    (tmp_path / "optimizer").mkdir()
    (tmp_path / "optimizer" / "mine.yaml").write_text("# Of mine.\nrate: 3  # per hour\n")
    words = ["train", "optimizer=mine", "--config-dir", str(tmp_path), "--help", "optimizer"]
    _, out, _ = detector(*words)
    assert re.search(r"^  optimizer.rate=3 +per hour \[an integer\]$", out, re.MULTILINE)
    assert re.search(r"^  mine +Of mine\.$", out, re.MULTILINE)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "--help", "model.haed"], "Did you mean model.head?"),
        (["train", "--help", "optimizer=adam"], "Did you mean optimizer=adamw?"),
    ],
)
def test_wrong_help_is_told(detector: Detector, words: list[str], message: str) -> None:
    code, _, err = detector(*words)
    assert code == 2
    assert message in err
