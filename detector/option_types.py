"""Ranges of plain options, enforced by `config.check` on every parameter that is annotated with one."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Interval

PositiveInt = Annotated[int, Ge(1)]
NonNegativeInt = Annotated[int, Ge(0)]
PositiveFloat = Annotated[float, Gt(0)]
NonNegativeFloat = Annotated[float, Ge(0)]
Fraction = Annotated[float, Interval(ge=0, le=1)]
ScoreThreshold = Fraction | Literal["auto"]  # auto: that of the best F1 in the validation of the checkpoint

# Choices that several modules take.
WeightsImages = Literal["auto", "imagenet", "caffe"]  # how the images of pretrained weights were scaled
OnBadBox = Literal["error", "drop"]
OnBadImage = Literal["error", "skip"]
CheckImages = Literal["headers", "decode"]
FileNames = Literal["paths", "base"]
TaskName = Literal["bbox", "segm", "keypoints"]  # of an evaluation, as COCO names them
