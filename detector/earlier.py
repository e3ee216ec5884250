"""The names of earlier versions: options as users still write them, and configurations as files hold them.

An old name is answered with the present one for one version. The tables are read in both directions: the
folders of comparisons are named by configurations in the names of the version that introduced them.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from copy import deepcopy
from functools import cache
from typing import Any

from detector.processes import is_first_process

_LIMITS = "model.head.rpn.limits"
OPTIONS = {  # each keeps its place: only the last part of the name differs
    "compare.arms": "compare.variants",
    "compare.points": "compare.conditions",
    "data.image_size.longer": "data.image_size.max_size",
    "data.image_size.shorter": "data.image_size.min_size",
    "data.source.colour_distance": "data.source.color_distance",
    "model.head.candidates_per_level": "model.head.topk_candidates",
    "model.head.roi.sampled": "model.head.roi.batch_size_per_image",
    "model.head.rpn.anchors": "model.head.rpn.anchor_generator",
    "model.head.rpn.sampled": "model.head.rpn.batch_size_per_image",
    f"{_LIMITS}.after_nms": f"{_LIMITS}.post_nms_top_n_test",
    f"{_LIMITS}.before_nms": f"{_LIMITS}.pre_nms_top_n_test",
    f"{_LIMITS}.train_after_nms": f"{_LIMITS}.post_nms_top_n_train",
    f"{_LIMITS}.train_before_nms": f"{_LIMITS}.pre_nms_top_n_train",
    "replicates": "num_resamples",
    "schedule": "lr_scheduler",
    "training.accumulate_batches": "training.accumulate_grad_batches",
    "training.gradient_clip_norm": "training.gradient_clip_val",
    "training.validate_every_n_epochs": "training.check_val_every_n_epoch",
}
TARGETS = {
    "detector.heads.Anchors": "detector.heads.AnchorGenerator",
    "detector.heads.anchors.Anchors": "detector.heads.anchors.AnchorGenerator",
    "detector.models.assemble": "detector.models.build_detector",
}
MOVED = {  # options that went to another place: answered with the present name, not converted
    f"model.head.{part}.smooth_l1_beta": f"model.head.{part}.box_loss.beta" for part in ("rpn", "roi")
}
LOSSES = {"loss_box": "loss_box_reg", "loss_rpn_box": "loss_rpn_box_reg"}

_WORD = re.compile(r"(?P<sign>[+~]*)(?P<key>[^=]*)(?P<equals>=?)(?P<value>.*)", re.DOTALL)


@cache
def tell(old: str, new: str, *, where: str = "") -> None:
    """Print once that a name has changed; `where` is the file that has the old one."""
    if is_first_process():
        prefix = f"{where}: " if where else ""
        text = f"warning: {prefix}{old} is now called {new}; the old name goes with the next version."
        print(text, file=sys.stderr, flush=True)


def present_key(key: str) -> str:
    """Return the present name of an option or a group, such as lr_scheduler.gamma for schedule.gamma."""
    for old, new in OPTIONS.items():
        if key == old or key.startswith(f"{old}."):
            return new + key.removeprefix(old)
    return key


def present_word(word: str) -> str:
    """Return an override of the command line with present names."""
    match = _WORD.fullmatch(word)
    assert match is not None
    sign, key, equals, value = match.groups()
    return f"{sign}{present_key(key)}{equals}{TARGETS.get(value, value)}"


def present_row(row: Mapping[str, int | float]) -> dict[str, int | float]:
    """Return a row of metrics.csv, or logged metrics, with the present names of losses."""
    return {_present_column(column): value for column, value in row.items()}


def _present_column(column: str) -> str:
    stage, slash, name = column.partition("/")
    return f"{stage}/{LOSSES[name]}" if slash and name in LOSSES else column


def renamed(config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return a configuration, or a file of one, in present names, and those that it has by old name."""
    return _renamed(config, OPTIONS, TARGETS)


def with_earlier_names(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration in the names before this version, as folders of comparisons are named by it."""
    options, targets = ({new: old for old, new in table.items()} for table in (OPTIONS, TARGETS))
    return _renamed(config, options, targets)[0]


def _renamed(
    config: Mapping[str, Any], options: Mapping[str, str], targets: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, str]]:
    changed: dict[str, str] = {}
    now = _with_targets(config, targets, changed)
    for old, new in options.items():
        *path, key = old.split(".")
        node = now
        for name in path:
            node = node.get(name) if isinstance(node, dict) else None
        if not (isinstance(node, dict) and key in node and _is_ours(node)):
            continue
        value, name = node.pop(key), new.rpartition(".")[2]
        both = isinstance(value, dict) and isinstance(node.get(name), dict)
        node[name] = {**value, **node[name]} if both else node.get(name, value)
        changed[old] = new
    return now, changed


def _is_ours(node: Mapping[str, Any]) -> bool:
    """Return whether a node is not of a user's class, which may have an option by an old name of ours."""
    return str(node.get("_target_", "detector.")).startswith("detector.")


def _with_targets(value: Any, targets: Mapping[str, str], changed: dict[str, str]) -> Any:
    """Copy a configuration with the `_target_` names of `targets`, and note them in `changed`."""
    if isinstance(value, list):
        return [_with_targets(item, targets, changed) for item in value]
    if not isinstance(value, dict):
        return value
    copy = {key: _with_targets(item, targets, changed) for key, item in value.items()}
    name = copy.get("_target_")
    if isinstance(name, str) and name in targets:
        copy["_target_"] = changed[name] = targets[name]
    return copy


def updated(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration stored by an earlier version in the form that this version writes."""
    now = deepcopy(dict(config))
    model = _part(now, "model")
    head = _part(model, "head")
    for part in (_part(model, "neck"), head, _part(head, "roi")):
        _move_modulation(part)
    for part in (_part(head, "rpn"), _part(head, "roi")):
        _name_box_loss(part)
    return renamed(now)[0]


def _move_modulation(part: dict[str, Any]) -> None:
    """Move `modulation` into `deform`: format 1 had it among the options of deformable necks and heads."""
    if "modulation" in part and str(part.get("_target_")).startswith(("detector.necks.", "detector.heads.")):
        deform = {"_target_": "detector.layers.DeformConv2d", "_partial_": True}
        part["deform"] = {**deform, "modulation": part.pop("modulation")}


def _name_box_loss(part: dict[str, Any]) -> None:
    """Turn a box loss name into its class: format 2 named it by a string, with `smooth_l1_beta` beside it."""
    if not str(part.get("_target_")).startswith("detector.heads."):
        return
    beta = {"beta": part["smooth_l1_beta"]} if "smooth_l1_beta" in part else {}
    kind = part.get("box_loss", "smooth_l1" if beta else None)
    if kind in ("smooth_l1", "l1", "giou"):
        part.pop("smooth_l1_beta", None)
        part["box_loss"] = {
            "smooth_l1": {"_target_": "detector.ops.SmoothL1", **beta},
            "l1": {"_target_": "detector.ops.L1"},
            "giou": {"_target_": "detector.ops.GIoU"},
        }[kind]


def _part(config: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a part of a configuration, or an empty dict if it has none."""
    part = config.get(name)
    return part if isinstance(part, dict) else {}
