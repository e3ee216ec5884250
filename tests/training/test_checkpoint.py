"""Checkpoint files: what is in them, and what is said about those that are none."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir

from detector.checkpoint import ModelRecord, describe_checkpoint, load_checkpoint, save_atomically
from detector.config.build import build
from detector.config.paths import config_dir
from detector.config.plain import resolved
from detector.files import write_atomically
from detector.ops import L1, SmoothL1
from detector.predictor import Predictor
from detector.training.checkpoint_io import AtomicCheckpointIO

RECORD = ModelRecord(
    class_names=("cat", "dog"), category_ids=(3, 7), config={"seed": 1, "model": {"depth": 18}}
)


def content(weights: str = "model.") -> dict[str, Any]:
    return {
        "state_dict": {
            "model.w": torch.arange(100_000.0),
            "averaged.model.w": torch.ones(2),
            "averaged._extra_state": {"updates": 3},
        },
        "detector": describe_checkpoint(RECORD, weights=weights, metrics={"val/AP": 0.5}, epoch=2, step=10),
    }


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save_atomically(content(), tmp_path / "checkpoints" / "best.ckpt")
    return tmp_path / "checkpoints" / "best.ckpt"


def test_round_trip(path: Path) -> None:
    checkpoint = load_checkpoint(path)
    assert (checkpoint.class_names, checkpoint.category_ids) == (("cat", "dog"), (3, 7))
    assert checkpoint.config == RECORD.config
    assert (checkpoint.metrics, checkpoint.epoch, checkpoint.step) == ({"val/AP": 0.5}, 2, 10)
    assert list(checkpoint.state_dict) == ["w"]
    assert torch.equal(checkpoint.state_dict["w"], torch.arange(100_000.0))


def test_averaged_weights_are_the_ones_read_where_they_were_evaluated(tmp_path: Path) -> None:
    save_atomically(content(weights="averaged.model."), tmp_path / "a.ckpt")
    state = load_checkpoint(tmp_path / "a.ckpt").state_dict
    assert list(state) == ["w"]
    assert torch.equal(state["w"], torch.ones(2))


def test_file_holds_plain_containers_only(path: Path) -> None:
    assert torch.load(path, weights_only=True)["detector"]["class_names"] == ["cat", "dog"]


def test_threshold_of_the_best_f1_may_be_missing_but_not_wrong(tmp_path: Path) -> None:
    file, other = tmp_path / "a.ckpt", content()
    for value in (0.41, None):
        save_atomically({**other, "detector": {**other["detector"], "best_f1_threshold": value}}, file)
        assert load_checkpoint(file).best_f1_threshold == value
    for wrong in (1.5, float("nan"), "0.4", True):
        save_atomically({**other, "detector": {**other["detector"], "best_f1_threshold": wrong}}, file)
        with pytest.raises(ValueError, match=r"best_f1_threshold is .*, expected a number >= 0 and <= 1"):
            load_checkpoint(file)
    del other["detector"]["best_f1_threshold"]  # as in files of earlier versions
    save_atomically(other, file)
    assert load_checkpoint(file).best_f1_threshold is None


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no such file.*checkpoints/best\.ckpt"):
        load_checkpoint(tmp_path / "none.ckpt")


def test_folder_of_a_run_names_the_file_to_pass(path: Path) -> None:
    with pytest.raises(ValueError, match=f"a folder.*Pass {path}"):
        load_checkpoint(path.parent.parent)


@pytest.mark.parametrize("kept", [0, 1000, 200_000])
def test_cut_off_file(path: Path, kept: int) -> None:
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match="cut off"):
        load_checkpoint(path)


def test_file_that_is_no_torch_file(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ValueError, match="not a torch file"):
        load_checkpoint(tmp_path / "notes.txt")


def test_weights_without_a_record_are_sent_to_the_backbone(tmp_path: Path) -> None:
    torch.save({"conv1.weight": torch.ones(3)}, tmp_path / "resnet18.pth")
    with pytest.raises(ValueError, match=r"model\.backbone\.weights="):
        load_checkpoint(tmp_path / "resnet18.pth")


class Exploit:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("exploited",)


def test_file_with_code_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"detector": Exploit()}, tmp_path / "bad.ckpt")
    with pytest.raises(ValueError, match="could run code"):
        load_checkpoint(tmp_path / "bad.ckpt")
    assert not (tmp_path / "exploited").exists()


def test_checkpoint_of_another_format_names_both(tmp_path: Path) -> None:
    other = content()
    other["detector"]["format"] = 99
    save_atomically(other, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match="format 99, this version reads 1 to 4"):
        load_checkpoint(tmp_path / "a.ckpt")


def test_options_that_the_first_format_had_elsewhere_are_moved(tmp_path: Path) -> None:
    def part(kind: str, **options: object) -> dict[str, object]:
        return {"_target_": kind, **options}

    def deform(modulation: str) -> dict[str, object]:
        return part("detector.layers.DeformConv2d", _partial_=True, modulation=modulation)

    def moved(**model: object) -> dict[str, object]:
        first = content()
        first["detector"] |= {"format": 1, "config": {"model": model}}
        save_atomically(first, tmp_path / "a.ckpt")
        return load_checkpoint(tmp_path / "a.ckpt").config["model"]

    neck, fcos, roi = "detector.necks.FPN", "detector.heads.FCOSHead", "detector.heads.RoIHead"
    assert moved(neck=part(neck, modulation="none"), head=part(fcos, modulation="sigmoid")) == {
        "neck": part(neck, deform=deform("none")),
        "head": part(fcos, deform=deform("sigmoid")),
    }
    assert moved(head={"roi": part(roi, modulation="none", width=8)}) == {
        "head": {"roi": part(roi, deform=deform("none"), width=8)}
    }
    own = {"neck": None, "head": part("mine.Head", modulation="none")}
    assert moved(**own) == own


@pytest.mark.parametrize("format", [1, 2])
def test_box_losses_that_earlier_formats_had_as_texts_are_named(tmp_path: Path, format: int) -> None:
    def converted(**head: object) -> dict[str, object]:
        earlier = content()
        earlier["detector"] |= {"format": format, "config": {"model": {"head": head}}}
        save_atomically(earlier, tmp_path / "a.ckpt")
        return load_checkpoint(tmp_path / "a.ckpt").config["model"]["head"]

    rpn, roi = {"_target_": "detector.heads.RPN"}, {"_target_": "detector.heads.RoIHead"}
    smooth, l1, giou = ({"_target_": f"detector.ops.{name}"} for name in ("SmoothL1", "L1", "GIoU"))
    assert converted(
        rpn={**rpn, "box_loss": "smooth_l1", "smooth_l1_beta": 0.25},
        roi={**roi, "box_loss": "giou", "smooth_l1_beta": 0.25, "width": 8},
    ) == {"rpn": {**rpn, "box_loss": {**smooth, "beta": 0.25}}, "roi": {**roi, "box_loss": giou, "width": 8}}
    assert converted(rpn={**rpn, "box_loss": "l1"}, roi={**roi, "smooth_l1_beta": 1.0}) == {
        "rpn": {**rpn, "box_loss": l1},
        "roi": {**roi, "box_loss": {**smooth, "beta": 1.0}},
    }
    others = {
        "rpn": {"_target_": "mine.RPN", "box_loss": "l1", "smooth_l1_beta": 1.0},
        "roi": {**roi, "box_loss": "nonsense"},
    }
    assert converted(**others) == others


def test_a_model_whose_losses_format_2_had_as_texts_is_restored(tmp_path: Path) -> None:
    """Every option of an entry of format 2 finds its place in the signatures of today."""
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = compose("train", overrides=["model=faster_rcnn_small"])
    stored = {name: resolved(config[name]) for name in ("model", "data")}
    for part, kind in (("rpn", "l1"), ("roi", "smooth_l1")):
        stored["model"]["head"][part] |= {"box_loss": kind, "smooth_l1_beta": 0.5}
    model = build(config.model)(num_classes=2)
    earlier = content(weights="")
    earlier["state_dict"] = model.state_dict()
    earlier["detector"] |= {"format": 2, "config": stored}
    save_atomically(earlier, tmp_path / "a.ckpt")
    head: Any = Predictor(tmp_path / "a.ckpt").model.head
    assert head.rpn.box_loss == L1()
    assert head.roi_heads.box_loss == SmoothL1(beta=0.5)


def test_failed_write_leaves_the_old_file_and_no_litter(path: Path) -> None:
    before = path.read_bytes()

    def fail(temporary: Path) -> None:
        temporary.write_bytes(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, fail)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == ["best.ckpt"]


def test_lightning_writes_beside_the_file_not_through_tmpdir(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    renames: Any = []
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (renames.append((Path(a), Path(b))), replace(a, b)))
    AtomicCheckpointIO().save_checkpoint(content(), path)
    assert [(a.parent, b) for a, b in renames] == [(path.parent, path)]
