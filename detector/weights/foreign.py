"""Conversion of torchvision, MMDetection and Detectron2 state dicts to our names, and ours to torchvision's.

All three have a network's parts in the same order and shapes, except for the position of the background
class, the box layer (with or without four rows for background) and, in weights derived from Caffe, the color
order and scale of the images.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from detector.option_types import WeightsImages

State = dict[str, Tensor]
Rules = Sequence[tuple[str, str]]
Project = Literal["torchvision", "mmdetection", "detectron2", "detector"]

MASKS, KEYPOINTS = (f"head.roi_heads.branches.{branch}." for branch in ("mask", "keypoint"))
# Our names and torchvision's differ only by the paths of the parts.
_PARTS = (
    ("backbone.body.", "backbone."),
    ("backbone.fpn.", "neck."),
    ("rpn.", "head.rpn."),
    ("roi_heads.", "head.roi_heads."),
    *((f"roi_heads.mask_{part}.", f"{MASKS}mask_{part}.") for part in ("head", "predictor")),
    *((f"roi_heads.keypoint_{part}.", f"{KEYPOINTS}keypoint_{part}.") for part in ("head", "predictor")),
    ("head.", "head."),
)
# Before torchvision 0.11 (and in its published Faster R-CNN) no Sequential wrapped these layers.
_OLD_TORCHVISION: Rules = (
    (r"^(backbone\.fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)$", r"\1.0.\2"),
    (r"^rpn\.head\.conv\.(weight|bias)$", r"rpn.head.conv.0.0.\1"),
    *((rf"^roi_heads\.mask_head\.mask_fcn{n + 1}\.", f"roi_heads.mask_head.{n}.0.") for n in range(4)),
)
_MMDETECTION: Rules = (
    (r"\.conv2_offset\.", ".conv2.offset."),
    (r"\.conv_offset\.", ".offset."),
    (r"^neck\.lateral_convs\.(\d+)\.conv\.", r"neck.inner_blocks.\1.0."),
    (r"^neck\.fpn_convs\.([0-2])\.conv\.", r"neck.layer_blocks.\1.0."),
    (r"^rpn_head\.rpn_conv\.", "head.rpn.head.conv.0.0."),
    (r"^rpn_head\.rpn_cls\.", "head.rpn.head.cls_logits."),
    (r"^rpn_head\.rpn_reg\.", "head.rpn.head.bbox_pred."),
    (r"^roi_head\.bbox_roi_extractor\.roi_layers\.", "head.roi_heads.pooling.offset."),
    (r"\.offset_fc\.", ".shift."),
    (r"\.mask_fc\.", ".mask."),
    (r"^roi_head\.bbox_head\.shared_fcs\.0\.", "head.roi_heads.box_head.fc6."),
    (r"^roi_head\.bbox_head\.shared_fcs\.1\.", "head.roi_heads.box_head.fc7."),
    (r"^roi_head\.bbox_head\.fc_cls\.", "head.roi_heads.box_predictor.cls_score."),
    (r"^roi_head\.bbox_head\.fc_reg\.", "head.roi_heads.box_predictor.bbox_pred."),
    (r"^roi_head\.mask_roi_extractor\.roi_layers\.", f"{MASKS}pooling.offset."),
    (r"^roi_head\.mask_head\.convs\.(\d+)\.conv\.", rf"{MASKS}mask_head.\1.0."),
    (r"^roi_head\.mask_head\.upsample\.", f"{MASKS}mask_predictor.conv5_mask."),
    (r"^roi_head\.mask_head\.conv_logits\.", f"{MASKS}mask_predictor.mask_fcn_logits."),
    (r"^bbox_head\.conv_cls\.", "head.classification_head.cls_logits."),
    (r"^bbox_head\.conv_reg\.", "head.regression_head.bbox_reg."),
    (r"^bbox_head\.conv_centerness\.", "head.regression_head.bbox_ctrness."),
    (r"^bbox_head\.scales\.(\d+)\.scale$", r"head.regression_head.scales.\1"),
)
_DETECTRON2: Rules = (
    (r"^backbone\.bottom_up\.stem\.conv1\.norm\.", "backbone.bn1."),
    (r"^backbone\.bottom_up\.stem\.", "backbone."),
    (r"^backbone\.bottom_up\.", "backbone."),
    (r"\.shortcut\.norm\.", ".downsample.1."),
    (r"\.shortcut\.", ".downsample.0."),
    (r"\.conv([123])\.norm\.", r".bn\1."),
    (r"\.conv2_offset\.", ".conv2.offset."),
    (r"^proposal_generator\.rpn_head\.conv\.", "head.rpn.head.conv.0.0."),
    (r"^proposal_generator\.rpn_head\.objectness_logits\.", "head.rpn.head.cls_logits."),
    (r"^proposal_generator\.rpn_head\.anchor_deltas\.", "head.rpn.head.bbox_pred."),
    (r"^roi_heads\.box_head\.fc1\.", "head.roi_heads.box_head.fc6."),
    (r"^roi_heads\.box_head\.fc2\.", "head.roi_heads.box_head.fc7."),
    (r"^roi_heads\.box_predictor\.", "head.roi_heads.box_predictor."),
    *((rf"^roi_heads\.mask_head\.mask_fcn{n + 1}\.", f"{MASKS}mask_head.{n}.0.") for n in range(4)),
    (r"^roi_heads\.mask_head\.deconv\.", f"{MASKS}mask_predictor.conv5_mask."),
    (r"^roi_heads\.mask_head\.predictor\.", f"{MASKS}mask_predictor.mask_fcn_logits."),
    *(
        (rf"^roi_heads\.keypoint_head\.conv_fcn{n + 1}\.", f"{KEYPOINTS}keypoint_head.{2 * n}.")
        for n in range(8)
    ),
    (r"^roi_heads\.keypoint_head\.score_lowres\.", f"{KEYPOINTS}keypoint_predictor.kps_score_lowres."),
)
_IMAGE_STD = 255 * torch.tensor([0.229, 0.224, 0.225])
_CAFFE_IMAGES = (True, torch.ones(3))  # BGR, and not divided by its standard deviation
_STEM = "backbone.conv1.weight"


@dataclass(frozen=True)
class Sampling:
    """Options of a deformable layer that its parameters do not show: the mask's function and offset bound."""

    modulation: str
    max_offset_px: float | None = None


@dataclass(frozen=True)
class Converted:
    """A `state` under our names, and the facts known about its model.

    `trained_with` has options of that model, by their path in ours; `sampling` those of deformable layers, if
    known, by the path of their options; `project` is the one whose names it had.
    """

    state: State
    trained_with: Mapping[str, object] = field(default_factory=dict)
    sampling: Mapping[str, Sampling] = field(default_factory=dict)
    project: Project = "detector"


DEFORMABLE_PARTS = (  # path of deformable layers' options, by prefix of the layers' names
    ("backbone.", "backbone.deform"),
    ("neck.", "neck.deform"),
    ("head.roi_heads.pooling", "head.roi.pooling"),
    *(
        (f"head.roi_heads.branches.{branch}.{layers}", f"head.roi.branches.{branch}.{option}")
        for branch in ("mask", "keypoint")
        for layers, option in (("pooling", "pooling"), (branch, "deform"))
    ),
    ("head.roi_heads.", "head.roi.deform"),
    ("head.", "head.deform"),
)
_POOLING = ("head.roi", "head.roi.branches.mask", "head.roi.branches.keypoint")
_TORCHVISION_OPTIONS = {
    "head.grid": "torchvision",
    "head.point_offset": 0.0,
    "head.rpn.anchor_generator.grid": "torchvision",
    **{f"{pooling}.aligned": False for pooling in _POOLING},
    **{f"{pooling}.sampling_ratio": 2 for pooling in _POOLING},
}
_THEIR_OPTIONS = {
    "head.grid": "stride",
    "head.point_offset": 0.5,
    "head.rpn.anchor_generator.grid": "stride",
    **{f"{pooling}.aligned": True for pooling in _POOLING},
    **{f"{pooling}.sampling_ratio": 0 for pooling in _POOLING},
}
_THEIR_SAMPLING = {part: Sampling("sigmoid") for _, part in DEFORMABLE_PARTS}


def convert(
    state: Mapping[str, Tensor], *, images: WeightsImages = "auto", config: Mapping[str, Any] | None = None
) -> Converted:
    """Convert a state dict with names of any of the four projects to our names.

    `config` is that of the model if known, as in our checkpoints. `images` is the format of the training
    images: "imagenet" is RGB minus ImageNet's mean, divided by its standard deviation; "caffe" is BGR in
    0..255 minus the mean, as in MMDetection's *_caffe_* models; "auto" is the format recorded in a Detectron2
    file, or "caffe" if it records none, and "imagenet" for all other files.
    """
    if any(name.startswith("backbone.body.") for name in state):
        converted = Converted(from_torchvision(state), _TORCHVISION_OPTIONS, project="torchvision")
    elif any(name.startswith("backbone.bottom_up.") for name in state):
        converted = Converted(from_detectron2(state), _THEIR_OPTIONS, _THEIR_SAMPLING, "detectron2")
        if images == "auto":
            _use_our_images(converted.state, *_detectron2_images(state))
    elif any(name.startswith(("neck.lateral_convs.", "bbox_head.", "rpn_head.")) for name in state):
        converted = Converted(from_mmdetection(state), _THEIR_OPTIONS, _THEIR_SAMPLING, "mmdetection")
    elif config:
        converted = _configured(state, config)
    else:
        converted = Converted(dict(state))
    if images == "caffe":
        _use_our_images(converted.state, *_CAFFE_IMAGES)
    return converted


def _configured(state: Mapping[str, Tensor], config: Mapping[str, Any]) -> Converted:
    options = {path: _at(config, path) for path in _TORCHVISION_OPTIONS}
    sampling = {}
    for _, part in DEFORMABLE_PARTS:
        # Checkpoints of format 1 had the modulation of necks and heads among their other options.
        layers = _at(config, part) or _at(config, part.rpartition(".")[0]) or {}
        modulation = layers.get("modulation") or "doubled_sigmoid"
        sampling[part] = Sampling(modulation, layers.get("max_offset_px"))
    return Converted(dict(state), {k: v for k, v in options.items() if v is not None}, sampling)


def _at(config: Mapping[str, Any], path: str) -> Any:
    """Return the option at a dotted path; None if the configuration has no such option."""
    value: Any = config
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def from_torchvision(state: Mapping[str, Tensor]) -> State:
    """Convert FCOS and Faster, Mask and Keypoint R-CNN of torchvision, of all its versions."""
    return {_with_part(_renamed(name, _OLD_TORCHVISION), 0, 1): value for name, value in state.items()}


def to_torchvision(state: Mapping[str, Tensor]) -> State:
    """Invert `from_torchvision`. Offset branches keep their names: torchvision has none."""
    return {_with_part(name, 1, 0): value for name, value in state.items()}


def from_mmdetection(state: Mapping[str, Tensor]) -> State:
    """Convert Faster R-CNN, Mask R-CNN and FCOS on ResNet-FPN, plain or with `dcn` stages and towers.

    Its deformable layers have sigmoid masks, and it has no Keypoint R-CNN.

    Choose `deform.modulation=sigmoid` for `DCNv2`, `none` for `DCN`; for FCOS `head.level_scales=true` and,
    with `dcn_on_last_conv`, `head.deformable_convs=1 head.deform.modulation=sigmoid`; for `DeformRoIPoolPack`
    `model/head/roi/pooling=deform_v1`, for `ModulatedDeformRoIPoolPack` `deform_v2` and
    `head.roi.pooling.modulation=sigmoid`; for the caffe models `backbone.stride_in_1x1=true`.
    """
    ours = {}
    is_fcos = any(name.startswith("bbox_head.") for name in state)
    for name, value in state.items():
        new = _renamed(name, _MMDETECTION)
        if match := re.match(r"^neck\.fpn_convs\.(\d+)\.conv\.(.*)", new):
            new = f"neck.layer_blocks.{match[1]}.0.{match[2]}"
            if is_fcos and int(match[1]) > 2:
                new = f"neck.extra_blocks.p{int(match[1]) + 3}.{match[2]}"
        if is_fcos:
            new = _fcos_tower(new)
        ours[new] = value
    return _background_first(ours)


def from_detectron2(state: Mapping[str, Tensor]) -> State:
    """Convert Faster, Mask and Keypoint R-CNN on ResNet-FPN, plain or with deformable stages.

    Choose `deform.modulation=sigmoid` for `DEFORM_MODULATED`, `none` without; for the caffe models
    `backbone.stride_in_1x1=true`.
    """
    ours = {}
    for name, value in state.items():
        new = _renamed(name, _DETECTRON2)
        if match := re.match(r"^backbone\.res(\d)\.(.*)", new):
            new = f"backbone.layer{int(match[1]) - 1}.{match[2]}"
        if match := re.match(r"^backbone\.fpn_(lateral|output)(\d)\.(.*)", name):
            blocks = "inner_blocks" if match[1] == "lateral" else "layer_blocks"
            new = f"neck.{blocks}.{int(match[2]) - 2}.0.{match[3]}"
        if name not in ("pixel_mean", "pixel_std") and ".anchor_generator." not in name:
            ours[new] = value
    return _background_first(ours)


def _detectron2_images(state: Mapping[str, Tensor]) -> tuple[bool, Tensor]:
    """Return whether images are BGR, and their deviation; Caffe's if not in the file (newest Detectron2)."""
    if "pixel_std" not in state or "pixel_mean" not in state:
        return _CAFFE_IMAGES
    blue, _, red = state["pixel_mean"].flatten().tolist()
    return blue < red, state["pixel_std"].flatten()


def _use_our_images(state: State, bgr: bool, std: Tensor) -> None:
    """Adapt the first convolution, trained on 0..255 images of that order and deviation, to our images."""
    if _STEM in state:
        weight = state[_STEM] / std.view(1, 3, 1, 1)
        state[_STEM] = (weight.flip(1) if bgr else weight) * _IMAGE_STD.view(1, 3, 1, 1)


def _renamed(name: str, rules: Rules) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def _with_part(name: str, theirs: int, ours: int) -> str:
    """Replace the path of the part in `name`, by the longest that matches."""
    fitting = [part for part in _PARTS if name.startswith(part[theirs])]
    if not fitting:
        return name
    part = max(fitting, key=lambda part: len(part[theirs]))
    return part[ours] + name[len(part[theirs]) :]


def _fcos_tower(name: str) -> str:
    """Map bbox_head.cls_convs.2.gn.weight to head.classification_head.conv.7.weight, and the like.

    Each layer is a convolution, a norm and a ReLU.
    """
    match = re.match(r"^bbox_head\.(cls|reg)_convs\.(\d+)\.(conv|gn)\.(.*)", name)
    if not match:
        return name
    head = "classification_head" if match[1] == "cls" else "regression_head"
    return f"head.{head}.conv.{3 * int(match[2]) + (match[3] == 'gn')}.{match[4]}"


def _background_first(state: State) -> State:
    """Move background from last to first in logits, and add its missing rows to box and mask layers."""
    logits, boxes = (f"head.roi_heads.box_predictor.{layer}." for layer in ("cls_score", "bbox_pred"))
    masks = f"{MASKS}mask_predictor.mask_fcn_logits."
    for kind in ("weight", "bias"):
        if (name := logits + kind) in state:
            state[name] = state[name].roll(1, dims=0)
            num_classes = len(state[name]) - 1
            if len(state[boxes + kind]) == 4 * num_classes:
                state[boxes + kind] = _after_zeros(state[boxes + kind], 4)
            if masks + kind in state and len(state[masks + kind]) == num_classes:
                state[masks + kind] = _after_zeros(state[masks + kind], 1)
    return state


def _after_zeros(value: Tensor, rows: int) -> Tensor:
    return torch.cat([torch.zeros_like(value[:rows]), value])
