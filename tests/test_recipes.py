"""The recipes of published results: complete, and with the arithmetic of their schedule."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from detector.commands.train import Options
from detector.config.build import build
from detector.config.check import check
from detector.config.paths import config_dir
from detector.layers.deform import DeformConv2d
from detector.layers.roi_pooling import DeformRoIPool
from detector.runs.parts import build_model
from detector.training.optimization import scaled_lr

ROOT = Path(__file__).resolve().parents[1]
RECIPES = sorted((config_dir() / "experiment").glob("*.yaml"))
NAMES = [recipe.stem for recipe in RECIPES]
ROWS = (
    "faster_rcnn_r50_1x",
    "faster_rcnn_r50_2x",
    "faster_rcnn_r101_1x",
    "faster_rcnn_x101_1x",
    "mask_rcnn_r50_1x",
    "keypoint_rcnn_r50_1x",
    "fcos_r50_1x",
)


def composed(name: str) -> DictConfig:
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        words = [f"experiment={name}", "data.root=coco", "name=x", "output_dir=x"]
        weights = ["model.backbone.weights=x101.pth"] if "x101" in name else []
        return compose("train", overrides=[*words, *weights])


def test_each_row_has_a_plain_recipe_and_both_deformable_ones() -> None:
    assert {f"{row}{kind}" for row in ROWS for kind in ("", "_dcn_v1", "_dcn_v2")} <= set(NAMES)


@pytest.mark.parametrize("recipe", RECIPES, ids=NAMES)
def test_first_comment_gives_the_published_ap_and_says_that_it_was_not_run(recipe: Path) -> None:
    package, first = recipe.read_text().splitlines()[:2]
    assert package == "# @package _global_"
    assert re.match(r"# (\d\d\.\d AP|No published AP) on COCO val2017", first)
    assert first.endswith("Not run here.")


@pytest.mark.parametrize("name", NAMES)
def test_page_of_recipes_lists_it_with_its_number(name: str) -> None:
    (line,) = [
        x for x in (ROOT / "docs" / "recipes.md").read_text().splitlines() if x.startswith(f"| `{name}` ")
    ]
    first = (config_dir() / "experiment" / f"{name}.yaml").read_text().splitlines()[1]
    number = re.match(r"# (\d\d\.\d)", first)
    assert f"| {number[1] if number else '-'} |" in line


@pytest.mark.parametrize("name", NAMES)
def test_recipe_composes_and_builds_with_its_schedule(name: str) -> None:
    cfg = composed(name)
    check(cfg, Options)
    assert cfg.data.batch_size * cfg.training.devices == 16
    epochs, milestones = (24, [16, 22]) if "2x" in name else (12, [8, 11])
    assert (cfg.training.max_epochs, list(cfg.lr_scheduler.milestones)) == (epochs, milestones)
    lr = 0.01 if name.startswith("fcos") else 0.02
    assert scaled_lr(build(cfg.optimizer), global_batch_size=16) == pytest.approx(lr)

    cfg.model.backbone.weights = None
    with torch.device("meta"):  # shapes without numbers: fast
        model = build_model(build(cfg.model), 80)
    deformable = [m for m in model.backbone.modules() if isinstance(m, DeformConv2d)]
    blocks = {"r50": 4 + 6 + 3, "101": 4 + 23 + 3}["101" if "101" in name else "r50"]
    assert len(deformable) == (blocks if "dcn" in name else 0)
    assert {m.modulation for m in deformable} <= {"none" if "v1" in name else "doubled_sigmoid"}
    assert all(m.offset_groups == (4 if "g4" in name else 1) for m in deformable)
    pooling = {"droi_v1": "none", "droi_v2": "doubled_sigmoid"}.get(name[-7:])
    assert [m.modulation for m in model.modules() if isinstance(m, DeformRoIPool)] == [pooling] * bool(
        pooling
    )
    frozen = [n for n, p in model.backbone.named_parameters() if not p.requires_grad]
    assert {n.split(".")[0] for n in frozen} == {"conv1", "layer1"}


@pytest.mark.parametrize(
    ("milestones", "step", "factor"),
    [([8, 11], 8 * 7330 - 1, 1.0), ([8, 11], 8 * 7330, 0.1), ([8, 11], 11 * 7330, 0.01)],
)
def test_rate_drops_after_epochs_8_and_11(milestones: list[int], step: int, factor: float) -> None:
    lr_scheduler = build(composed("faster_rcnn_r50_1x").lr_scheduler)
    assert list(lr_scheduler.milestones) == milestones
    assert lr_scheduler.factor(step, total_steps=12 * 7330, steps_per_epoch=7330) == pytest.approx(factor)
