"""What may differ between a checkpoint and the run that goes on from it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

from detector.checkpoint import Checkpoint
from detector.data.datamodule import DetectionDataModule
from detector.data.transforms import ImageSize
from detector.runs.context import Context
from detector.runs.resume import keep_image_range, require_same_model

STAGES = {"_target_": "detector.layers.DeformableStages", "stages": [3]}


def checkpoint(**deform: object) -> Checkpoint:
    return Checkpoint(
        class_names=("cat",),
        category_ids=(1,),
        config={"model": {"backbone": {"deform": deform}}},
        path=Path("last.ckpt"),
        state_dict={},
        metrics={},
        epoch=1,
        step=1,
    )


def test_how_offsets_started_is_no_matter_to_a_run_that_goes_on() -> None:
    now = {"model": {"backbone": {"deform": {"offset_init": "zero"}}}}
    changes = require_same_model(checkpoint(), now, max_epochs=2)  # of a version without the option
    assert changes == ["model.backbone.deform.offset_init: None -> zero"]


def test_a_backend_computes_the_same() -> None:
    now = {"model": {"neck": {"deform": {"backend": "gather"}}}}
    assert require_same_model(checkpoint(), now, max_epochs=2) == [
        "model.neck.deform.backend: None -> gather"
    ]


def test_options_that_came_since_do_not_matter_at_their_defaults() -> None:
    now = {"model": {"backbone": {"deform": {**STAGES, "every": 1, "max_offset_px": None}}}}
    assert require_same_model(checkpoint(**STAGES), now, max_epochs=2) == []


def test_options_that_came_since_are_another_model_at_other_values() -> None:
    now = {"model": {"backbone": {"deform": {**STAGES, "every": 2}}}}
    with pytest.raises(ValueError, match=r"model\.backbone\.deform\.every: 1 -> 2"):
        require_same_model(checkpoint(**STAGES), now, max_epochs=2)


def test_another_bound_is_another_model() -> None:
    now = {"model": {"backbone": {"deform": {"max_offset_px": 4.0}}}}
    with pytest.raises(ValueError, match=r"max_offset_px: None -> 4\.0"):
        require_same_model(checkpoint(), now, max_epochs=2)


@pytest.mark.parametrize(
    ("trained", "now", "expected"),
    [([0.0, 255.0], "auto", [0.0, 255.0]), (None, "auto", "full"), ([0.0, 255.0], "full", "full")],
)
def test_a_run_that_goes_on_keeps_the_range_that_auto_stood_for(
    trained: object, now: Literal["auto", "full"], expected: object
) -> None:
    before = checkpoint()
    before.config["data"] = {} if trained is None else {"image_range": trained}
    context = Context({"data": {"image_range": now}}, recorded={"data": {"image_range": now}})
    data = DetectionDataModule(
        root=None,
        image_size=ImageSize(64, 64),
        batch_size=1,
        val_batch_size=1,
        num_workers=0,
        seed=0,
        image_range=now,
    )
    keep_image_range(before, data, context)
    assert context.config["data"]["image_range"] == expected
    assert context.recorded["data"]["image_range"] == expected
    if now == "auto":
        assert data.image_range == (tuple(expected) if isinstance(expected, list) else expected)
