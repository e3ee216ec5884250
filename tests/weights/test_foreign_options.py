"""What the names in a file of weights do not tell: options of its model, and layers that it lacks."""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torchvision.models import detection

from detector.backbones.resnet import Stage
from detector.layers.deform import DeformableStages, DeformConv2d, Modulation
from detector.layers.roi_pooling import DeformRoIPool
from detector.models.detector import Detector
from detector.weights.detectors import _check_modulation
from detector.weights.foreign import Converted, Sampling
from tests.weights.foreign_states import (
    CLASSES,
    MODULATED,
    STAGES,
    dry,
    faster_rcnn,
    fcos,
    load,
    mmdetection_faster_rcnn,
    small,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter")  # no values are loaded
LAST_STAGE: dict[str, Any] = {"stages": (5,), "blocks": "last"}


def test_another_modulation_is_an_error_that_names_the_option() -> None:
    doubled = dry(faster_rcnn, deform=DeformableStages(stages=STAGES))
    with pytest.raises(ValueError, match=r"Set model\.backbone\.deform\.modulation=sigmoid"):
        load(doubled, mmdetection_faster_rcnn())


@pytest.mark.parametrize(
    ("layer", "option"),
    [
        ("neck.layer_blocks.1.0", "neck.deform"),
        ("head.roi_heads.box_head.0.0", "head.roi.deform"),
    ],
)
def test_another_modulation_of_other_parts_names_their_option(layer: str, option: str) -> None:
    roi = {"num_convs": 1, "deformable_convs": 1}
    model = dry(small, roi=roi, neck={"deformable_levels": (3,)})
    state = {f"{layer}.offset.weight": torch.zeros(1)}
    with pytest.raises(ValueError, match=rf"Set model\.{option}\.modulation=sigmoid"):
        _check_modulation(model, "x.pth", Converted(state, {}, {option: Sampling("sigmoid")}))


def pooling(modulation: Modulation) -> dict[str, Any]:
    return {"pooling": partial(DeformRoIPool, modulation=modulation, width=4)}


def test_another_modulation_of_the_pooling_is_an_error_that_names_the_option() -> None:
    state = {"head.roi_heads.pooling.offset.0.mask.0.weight": torch.zeros(1)}
    converted = Converted(state, {}, {"head.roi.pooling": Sampling("sigmoid")})
    with pytest.raises(ValueError, match=r"Set model\.head\.roi\.pooling\.modulation=sigmoid"):
        _check_modulation(dry(small, roi=pooling("doubled_sigmoid")), "x.pth", converted)


def test_deformable_pooling_starts_anew_where_the_weights_have_none(caplog: pytest.LogCaptureFixture) -> None:
    load(dry(small, roi=pooling("doubled_sigmoid")), dry(small).state_dict())
    assert "40 entries of offset branches are new" in caplog.text


def test_depthwise_layers_start_anew_in_the_place_of_convolutions(caplog: pytest.LogCaptureFixture) -> None:
    """Of regular ones, and of deformable ones; their own weights load."""
    for name, options in (("regular", {}), ("v2", {"modulation": "doubled_sigmoid"}), ("v4", {"version": 4})):
        caplog.handler.stream = io.StringIO()
        stages = cast(tuple[Stage, ...], (5,) * bool(options))
        file = dry(small, deform=DeformableStages(stages=stages, **options)).state_dict()
        load(dry(small, deform=DeformableStages(stages=(5,), version=4)), file)
        of_file = {"regular": 2, "v2": 6, "v4": 0}[name]
        message = f"{of_file} entries of the file are of convolutions that are deformable and depth-wise here"
        assert (message in caplog.handler.stream.getvalue()) == (of_file > 0)
        assert "not used" not in caplog.handler.stream.getvalue()
        assert "are new" not in caplog.handler.stream.getvalue()


def test_depthwise_layers_take_the_place_of_deformable_convolutions_of_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    load(dry(faster_rcnn, deform=DeformableStages(stages=STAGES, version=4)), mmdetection_faster_rcnn())
    assert "39 entries of the file are of convolutions that are deformable and depth-wise" in caplog.text


def own_checkpoint(path: Path, model: Detector, **parts: Any) -> str:
    """As training writes it, with the configurations of these parts of the model."""
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    entry = {"weights": "model.", "config": {"model": parts}}
    torch.save({"state_dict": state, "detector": entry}, path)
    return str(path)


def test_another_modulation_of_our_own_checkpoint_is_an_error(tmp_path: Path) -> None:
    sigmoid = small(deform=DeformableStages(**LAST_STAGE, modulation="sigmoid"))
    file = own_checkpoint(tmp_path / "x.ckpt", sigmoid, backbone={"deform": {"modulation": "sigmoid"}})
    small(weights=file, deform=DeformableStages(**LAST_STAGE, modulation="sigmoid"))
    with pytest.raises(
        ValueError, match=r"conv2 was trained .*Set model\.backbone\.deform\.modulation=sigmoid"
    ):
        small(weights=file, deform=DeformableStages(**LAST_STAGE))


@pytest.mark.parametrize(
    "neck",
    [{"deform": {"modulation": "sigmoid"}}, {"modulation": "sigmoid"}],
    ids=["its deform", "format 1"],
)
def test_our_own_checkpoint_tells_the_modulation_of_each_part(neck: dict[str, Any]) -> None:
    """What the configuration leaves out is the default."""
    here = dry(small, deform=DeformableStages(**LAST_STAGE), neck={"deformable_levels": (3,)})
    with pytest.raises(ValueError, match=r"Set model\.neck\.deform\.modulation=sigmoid"):
        load(here, here.state_dict(), backbone={"deform": {"version": None}}, neck=neck)


def test_our_own_depthwise_layers_load_without_a_word_of_masks(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("WARNING")
    model = dry(small, deform=DeformableStages(**LAST_STAGE, version=3))
    load(model, model.state_dict(), backbone={"deform": {"version": 3}})
    load(model, model.state_dict())
    assert not caplog.text


def test_other_options_of_our_own_checkpoint_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("WARNING")
    deform: dict[str, Any] = {"max_offset_px": 4.0}
    here: dict[str, Any] = {
        "deform": DeformableStages(**LAST_STAGE, **deform),
        "neck": {"deformable_levels": (3,)},
    }
    file = dry(small, **here).state_dict()
    config = {
        "backbone": {"deform": deform},
        "neck": {"deform": {"max_offset_px": None}},
        "head": {"roi": {"aligned": True, "sampling_ratio": 2}},
    }
    bounded = {"deformable_levels": (3,), "deform": partial(DeformConv2d, max_offset_px=2.0)}
    load(dry(small, deform=DeformableStages(**LAST_STAGE), neck=bounded), file, **config)
    assert caplog.text.strip().endswith(
        "To reproduce its published results: model.head.roi.aligned=true "
        "model.backbone.deform.max_offset_px=4.0 model.neck.deform.max_offset_px=null"
    )
    caplog.clear()
    load(dry(small, **here, roi={"aligned": True}), file, **config)
    assert not caplog.text


def test_masks_that_a_file_does_not_tell_the_function_of_are_warned_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for modulation in ("sigmoid", "none"):
        caplog.clear()
        model = dry(small, deform=DeformableStages(**LAST_STAGE, modulation=modulation))
        load(model, model.state_dict())
        message = (
            "If they were not trained with model.backbone.deform.modulation=sigmoid, set it as they were"
        )
        assert (message in caplog.text) == (modulation == "sigmoid")


def test_half_an_offset_branch_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"pooling\.offset\.0\.mask\.0\.bias.*got nothing"):
        load(dry(small, roi=pooling("sigmoid")), dry(small, roi=pooling("none")).state_dict())


def test_options_that_the_weights_were_not_trained_with_are_reported(
    caplog: pytest.LogCaptureFixture,
) -> None:
    load(dry(faster_rcnn, deform=MODULATED), mmdetection_faster_rcnn())
    assert "model.head.roi.aligned=true model.head.roi.sampling_ratio=0" in caplog.text
    assert "model.head.rpn.anchor_generator.grid" not in caplog.text  # fits


def test_options_of_torchvisions_fcos_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    with torch.device("meta"):
        theirs = detection.fcos_resnet50_fpn(weights=None, weights_backbone=None, num_classes=CLASSES)
    load(dry(fcos, norm="batch"), theirs.state_dict())
    assert caplog.text.count("model.head.grid=torchvision") == 1
    assert "point_offset" not in caplog.text
