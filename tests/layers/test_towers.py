"""What makes the deformable convolutions of necks and heads."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from torch import nn

from detector.heads.fcos import FCOSHead
from detector.heads.roi import RoIHead
from detector.layers.deform import DeformConv2d
from detector.layers.deform_depthwise import DepthwiseDeformConv2d
from detector.layers.towers import require_deform_conv
from detector.necks.fpn import FPN
from detector.structures import FeatureSpec

LEVELS = [FeatureSpec(f"p{i}", 32, 2**i) for i in (3, 4, 5)]


@pytest.mark.parametrize(
    ("part", "option"),
    [
        (partial(FPN, LEVELS, deformable_levels=(3,)), "neck.deform"),
        (partial(FCOSHead, LEVELS, 3, deformable_convs="last"), "head.deform"),
        (partial(RoIHead, LEVELS, 3, num_convs=1, deformable_convs="last"), "head.roi.deform"),
    ],
    ids=["neck", "fcos", "roi"],
)
def test_another_layer_is_refused_with_its_place(part: Any, option: str) -> None:
    message = (
        f"{option}: expected detector.layers.DeformConv2d, got DepthwiseDeformConv2d.*model/backbone/deform"
    )
    with pytest.raises(ValueError, match=message):
        part(deform=partial(DepthwiseDeformConv2d, version=3))


def test_a_plain_convolution_is_refused() -> None:
    with pytest.raises(ValueError, match=r"got Conv2d"):
        require_deform_conv(nn.Conv2d, option="neck.deform", count=1)


@pytest.mark.parametrize(
    ("options", "count", "message"),
    [
        ({"modulation": "none", "offset_groups": 2}, 0, "modulation=none, offset_groups=2 changes nothing"),
        ({"modulation": "none"}, 1, ""),
        ({}, 0, ""),
        ({"modulation": "doubled_sigmoid", "offset_groups": 1, "max_offset_px": None}, 0, ""),
    ],
    ids=str,
)
def test_options_without_a_convolution_to_take_them_are_told(
    options: dict[str, Any], count: int, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    require_deform_conv(partial(DeformConv2d, **options), option="neck.deform", count=count)
    assert len(caplog.records) == bool(message)
    assert message in caplog.text


@pytest.mark.parametrize(
    ("part", "name"),
    [
        (partial(FPN, LEVELS), "neck.deform"),
        (partial(FCOSHead, LEVELS, 3), "head.deform"),
        (partial(RoIHead, LEVELS, 3), "head.roi.deform"),
    ],
    ids=["neck", "fcos", "roi"],
)
def test_parts_tell_of_options_that_they_have_no_use_for(
    part: Any, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    part(deform=partial(DeformConv2d, modulation="none"))
    assert f"model.{name}: modulation=none changes nothing" in caplog.text
