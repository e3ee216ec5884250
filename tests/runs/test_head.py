"""The head of a report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from detector.reports.study import Curve
from detector.run_folder import RunFolder
from detector.runs.head import data_name, evaluation_head, model_name, training_head

MODEL = {
    "_target_": "detector.models.assemble",
    "head": {"_target_": "detector.heads.FCOSHead"},
    "backbone": {"_target_": "detector.backbones.ResNet", "depth": 18, "deform": {"stages": [4, 5]}},
}
ENVIRONMENT = {
    "detector": "0.1.0",
    "git": {"commit": "0123456789abcdef", "changed": True},
    "python": "3.11.7",
    "packages": {"torch": "2.15.0"},
    "cpu": {"name": "Xeon", "count": 8, "torch_threads": 2},
    "gpus": ["H200", "H200"],
}


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (MODEL, "FCOS, ResNet-18, deformable C4, C5"),
        ({"head": {"_target_": "detector.heads.FasterRCNNHead"}}, "Faster R-CNN"),
        ({"head": {"_target_": "mine.Head"}, "backbone": {"_target_": "mine.Net"}}, "Head, Net"),
        ({"_target_": "mine.Model"}, "Model"),
    ],
)
def test_models_are_named_by_their_parts(model: dict[str, Any], name: str) -> None:
    assert model_name(model) == name


def test_data_is_named_by_its_folder_or_file() -> None:
    assert data_name({"root": "/data/bccd/"}) == "bccd"
    assert data_name({"root": None, "val": {"annotations": "x/val.json"}}) == "val"


def test_the_head_says_what_was_run_where_and_how(tmp_path: Path) -> None:
    files = RunFolder(tmp_path)
    config = {"model": MODEL, "data": {"root": "data/bccd"}, "training": {"max_epochs": 12}}
    files.write_record(config=config, overrides=["optimizer.lr=0.1", "name=a b"], environment=ENVIRONMENT)
    curve = Curve((1, 2), (0.3, 0.2), (3000.0, 700.0), (1.0, 1.0), (8, 16), (None, None), (500, 1000))
    head = training_head(tmp_path, curve, checkpoint="best.ckpt", contents="3 classes")
    assert head.title == "FCOS, ResNet-18, deformable C4, C5 on bccd"
    assert head.command == "detector train optimizer.lr=0.1 'name=a b'"
    assert "max_epochs: 12" in head.config
    assert head.facts == {
        "checkpoint": "best.ckpt",
        "data": "data/bccd: 3 classes",
        "epochs": "2 of 12, 1,000 steps; best: epoch 1",
        "training time": "1 h 1 min",
        "device": "2 x H200",
        "code": "detector 0.1.0, commit 0123456789, with changes; torch 2.15.0, Python 3.11.7",
    }


def test_an_evaluation_is_told_by_its_own_record(tmp_path: Path) -> None:
    files = RunFolder(tmp_path)
    files.write_record(
        config={"name": "coco"}, overrides=["predictions=a.json"], environment={**ENVIRONMENT, "gpus": []}
    )
    head = evaluation_head(tmp_path, model="a", data="val", facts={"results": "a.json"})
    assert head.command == "detector evaluate predictions=a.json"
    assert head.facts["device"] == "Xeon, 2 threads"
    assert head.facts["results"] == "a.json"
