"""Loading of weights of whole detectors, ours or others', with possibly new classes and offset branches."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torchvision.models import detection

from detector.layers.deform import DeformConv2d
from detector.layers.deformable import Deformable, replaced_convolutions
from detector.option_types import WeightsImages
from detector.weights.class_rows import CLASS_LAYERS, KEYPOINT_LAYERS, classes_of, matched_rows
from detector.weights.fit import first_names, require_usable
from detector.weights.foreign import DEFORMABLE_PARTS, KEYPOINTS, MASKS, Converted, State, convert
from detector.weights.published import read_weights
from detector.weights.state import without_prefix

_log = logging.getLogger(__name__)

_PUBLISHED = {
    f"{name}.{entry.name}": entry.url
    for name, entries in (
        ("fasterrcnn_resnet50_fpn", detection.FasterRCNN_ResNet50_FPN_Weights),
        ("fasterrcnn_resnet50_fpn_v2", detection.FasterRCNN_ResNet50_FPN_V2_Weights),
        ("fcos_resnet50_fpn", detection.FCOS_ResNet50_FPN_Weights),
        ("maskrcnn_resnet50_fpn", detection.MaskRCNN_ResNet50_FPN_Weights),
        ("maskrcnn_resnet50_fpn_v2", detection.MaskRCNN_ResNet50_FPN_V2_Weights),
        ("keypointrcnn_resnet50_fpn", detection.KeypointRCNN_ResNet50_FPN_Weights),
    )
    for entry in entries
}
# Their batch norms divide by sqrt(variance), ours by sqrt(variance + epsilon): the variance is adjusted.
_TRAINED_WITHOUT_EPSILON = tuple(
    f"{model}_resnet50_fpn.COCO_V1" for model in ("fasterrcnn", "maskrcnn", "keypointrcnn")
)
_EPSILON = 1e-5
# COCO's 80 classes have ids up to 90. torchvision's models have a class for every id from 0.
_COCO_IDS = [i for i in range(1, 91) if i not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]
_FCOS_CLASSES = "head.classification_head.cls_logits."
_RCNN_CLASSES = "head.roi_heads.box_predictor.cls_score."
_RCNN_BOXES = "head.roi_heads.box_predictor.bbox_pred."
_MASKS = ("doubled_sigmoid", "sigmoid")  # these have the same shape


def load_detector_weights(
    model: nn.Module, weights: str, *, images: WeightsImages = "auto", class_names: Sequence[str] = ()
) -> None:
    """Load all entries that fit, and log those that are not loaded.

    `weights` is a published name such as "fasterrcnn_resnet50_fpn.COCO_V1" (downloaded to torch's hub folder
    and checked by hash) or a file with a state dict of ours, torchvision's, MMDetection's or Detectron2's
    names, trained on `images` (see `convert`). Rows of classes go to the class of the same name if names are
    known on both sides, `class_names` being those of the model. Rows and layers of other classes, offset
    branches missing from the file, and depth-wise deformable layers that replace its convolutions keep their
    initialization.

    Raises:
        ValueError: the file cannot be read, is of another model, or has values that are not finite.
    """
    stored = read_weights(weights, option="model.weights", published=_PUBLISHED)
    state, prefix = without_prefix(stored.state, lambda name: name.startswith("backbone."))
    if prefix:
        _log.info("%s: the %d entries that begin with %s are taken", weights, len(state), prefix)
    converted = convert(state, images=images, config=stored.config)
    own = model.state_dict()
    theirs = classes_of(converted.state, stored.class_names, converted.project)
    state = _with_rows_by_class(converted.state, own, weights, theirs=theirs, ours=tuple(class_names))
    if weights in _TRAINED_WITHOUT_EPSILON:
        state = {k: v - _EPSILON if k.endswith("running_var") else v for k, v in state.items()}
    misfits = [name for name, value in state.items() if name in own and own[name].shape != value.shape]
    other_classes = [name for name in misfits if name.startswith(CLASS_LAYERS)]
    other_keypoints = [name for name in misfits if name.startswith(KEYPOINT_LAYERS)]
    lacking = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    replaced = tuple(f"{name}." for name in replaced_convolutions(model, state))
    new_entries = [name for name in lacking if name.startswith(replaced)]
    branches = {_branch(name) for name in state}
    offsets = [name for name in lacking if ".offset." in name and _branch(name) not in branches]
    if wrong := sorted({*misfits, *lacking} - {*other_classes, *other_keypoints, *offsets, *new_entries}):
        raise _other_model_error(weights, own, state, wrong)
    require_usable(state, own, source=f"model.weights={weights}")
    _check_modulation(model, weights, converted)
    _report_other_options(model, weights, converted)
    model.load_state_dict(
        {k: v for k, v in state.items() if k in own and k not in (*other_classes, *other_keypoints)},
        strict=False,
    )
    _report(
        weights,
        loaded=len(own) - len(lacking) - len(other_classes) - len(other_keypoints),
        other_classes=other_classes,
        other_keypoints=other_keypoints,
        offsets=[name for name in offsets if name not in new_entries],
        replaced=[k for k in state if k.startswith(replaced)],
        unused=[
            k
            for k in state
            if k not in own and not k.endswith("num_batches_tracked") and not k.startswith(replaced)
        ],
    )


def _branch(name: str) -> str:
    """Return the offset branch that a parameter belongs to."""
    return name.partition(".offset.")[0] + ".offset"


_MODELS = {
    "Faster R-CNN": "faster_rcnn",
    "Mask R-CNN": "mask_rcnn",
    "Keypoint R-CNN": "keypoint_rcnn",
    "FCOS": "fcos",
}


def _kind(state: State) -> str | None:
    """Return the architecture of a detector's state dict; None if it is none of ours."""
    starts = {
        MASKS: "Mask R-CNN",
        KEYPOINTS: "Keypoint R-CNN",
        "head.rpn.": "Faster R-CNN",
        "head.classification_head.": "FCOS",
    }
    return next((kind for start, kind in starts.items() if any(k.startswith(start) for k in state)), None)


def _other_model_error(weights: str, own: State, state: State, wrong: list[str]) -> ValueError:
    theirs, ours = _kind(state), _kind(own)
    if theirs and ours and theirs != ours:
        return ValueError(
            f"model.weights={weights}: the weights of a {theirs}; this model is a {ours}. "
            f"Choose model={_MODELS[theirs]}."
        )
    first = wrong[0]
    actual = tuple(state[first].shape) if first in state else "nothing"
    return ValueError(
        f"model.weights={weights}: not the weights of this model: {len(wrong)} of {len(own)} entries are "
        f"missing or have another shape, such as {first}: expected {tuple(own[first].shape)}, got "
        f"{actual}. Choose the model, backbone, norms and head that the file was made for."
    )


def _trained_layers(model: nn.Module, converted: Converted) -> dict[str, tuple[Deformable, str]]:
    """Return the deformable layers whose branch is in the file, with the path of their options."""
    replaced = replaced_convolutions(model, converted.state)
    branches = {_branch(name) for name in converted.state if ".offset." in name}
    return {
        name: (layer, next(part for start, part in DEFORMABLE_PARTS if name.startswith(start)))
        for name, layer in model.named_modules()
        if isinstance(layer, Deformable) and name not in replaced and f"{name}.offset" in branches
    }


def _check_modulation(model: nn.Module, weights: str, converted: Converted) -> None:
    """Raise ValueError if masks were trained with another function, and warn if it is unknown.

    It would scale every response, and go unnoticed otherwise.
    """
    assumed = {}
    for name, (layer, part) in _trained_layers(model, converted).items():
        if layer.modulation not in _MASKS:
            continue
        if part not in converted.sampling:
            assumed[f"model.{part}.modulation"] = layer.modulation
        elif (trained := converted.sampling[part].modulation) != layer.modulation:
            raise ValueError(
                f"model.weights={weights}: {name} was trained with a mask of {trained}, here it has "
                f"{layer.modulation}. Set model.{part}.modulation={trained}"
            )
    if assumed:
        _log.warning(
            "%s does not say which function the masks of its deformable layers are. If they were not trained "
            "with %s, set it as they were.",
            weights,
            _as_overrides(assumed),
        )


def _report_other_options(model: nn.Module, weights: str, converted: Converted) -> None:
    others = {
        f"model.{path}": value
        for path, value in converted.trained_with.items()
        if _option(model, path) not in (None, value)
    }
    for layer, part in _trained_layers(model, converted).values():
        if isinstance(layer, DeformConv2d) and part in converted.sampling:
            bound_px = converted.sampling[part].max_offset_px
            if layer.max_offset_px != bound_px:
                others[f"model.{part}.max_offset_px"] = bound_px
    if others:
        _log.warning(
            "%s was trained with other options than this model's. To reproduce its published results: %s",
            weights,
            _as_overrides(others),
        )


def _as_overrides(options: Mapping[str, object]) -> str:
    values = {path: "null" if value is None else str(value).lower() for path, value in options.items()}
    return " ".join(f"{path}={value}" for path, value in values.items())


def _option(model: nn.Module, path: str) -> object:
    """Return the model's value of an option of its configuration; None if it has no such option."""
    value: object = model
    for name in path.replace("head.roi.", "head.roi_heads.").split("."):
        value = getattr(value, name, None)
    return value


def _with_rows_by_class(
    state: State, own: State, weights: str, *, theirs: tuple[str, ...], ours: tuple[str, ...]
) -> State:
    """Return `state` with its class rows moved to the model's classes of the same names, if known."""
    if not ours:
        return _with_rows_of_coco(state, own, weights)
    if not theirs:
        _report_unnamed_rows(state, own, weights, ours)
        return state
    if theirs == ours:
        return state
    matched = matched_rows(state, own, theirs=theirs, ours=ours)
    if not matched.reused:
        _log.warning(
            "%s: of its %d classes (%s) none is among the %d here (%s): the rows of all of them start anew",
            weights, len(theirs), first_names(theirs), len(ours), first_names(ours),
        )  # fmt: skip
        untrained = {name: own[name] for name in state if name in own and name.startswith(CLASS_LAYERS)}
        return {**state, **untrained}
    _log.log(
        logging.WARNING if matched.new else logging.INFO,
        "%s: its rows of classes are taken by name: for %d of %d classes (%s)%s",
        weights, len(matched.reused), len(ours), first_names(matched.reused),
        f"; {len(matched.new)} start anew ({first_names(matched.new)})" if matched.new else "",
    )  # fmt: skip
    return {**state, **matched.state}


def _report_unnamed_rows(state: State, own: State, weights: str, ours: tuple[str, ...]) -> None:
    """Warn that, without names, rows are taken in their order if their number matches."""
    if any(
        name in own and own[name].shape == state[name].shape
        for name in state
        if name.startswith(CLASS_LAYERS)
    ):
        _log.warning(
            "%s does not say which classes it was trained on: its %d rows of classes are taken in their "
            "order, as %s. If they are others, they start as those all the same.",
            weights, len(ours), first_names(ours),
        )  # fmt: skip


def _with_rows_of_coco(state: State, own: State, weights: str) -> State:
    converted = {name: _of_80_coco_classes(name, value, own.get(name)) for name, value in state.items()}
    if any(converted[name] is not state[name] for name in state):
        _log.warning(
            "%s: the 80 classes of this model start as COCO's 80, in COCO's order. If yours are others, they "
            "start as those all the same.",
            weights,
        )
    return converted


def _of_80_coco_classes(name: str, value: Tensor, own: Tensor | None) -> Tensor:
    """Select the rows of COCO's 80 classes from a layer with a row for every id, if ours has 80 classes."""
    if own is None or own.shape == value.shape or not name.startswith(CLASS_LAYERS):
        return value
    ids = torch.tensor(_COCO_IDS if name.startswith(_FCOS_CLASSES) else [0, *_COCO_IDS])
    rows = (4 * ids[:, None] + torch.arange(4)).flatten() if name.startswith(_RCNN_BOXES) else ids
    all_rows = 91 * 4 if name.startswith(_RCNN_BOXES) else 91
    return value[rows] if len(value) == all_rows and len(own) == len(rows) else value


def _report(
    weights: str,
    *,
    loaded: int,
    other_classes: list[str],
    other_keypoints: list[str],
    offsets: list[str],
    replaced: list[str],
    unused: list[str],
) -> None:
    _log.info("loaded %d entries of %s", loaded, weights)
    for names, fate in (
        (other_classes, "of the class layers are for other classes and keep their initialization"),
        (other_keypoints, "of the keypoint layers are for another number and keep their initialization"),
        (offsets, "of offset branches are new and keep their initialization"),
        (replaced, "of the file are of convolutions that are deformable and depth-wise here and start anew"),
        (unused, "of the file are not used"),
    ):
        if names:
            _log.warning("%d entries %s: %s", len(names), fate, first_names(names))
