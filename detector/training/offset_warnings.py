"""Warnings about offsets that do not learn or that leave the image."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from detector.layers.deformable import Deformable

_log = logging.getLogger(__name__)

# Learned offsets are tenths of a pixel to a few pixels long: Dai et al. 2017, table 2, found effective
# dilations of 2 to 8. Nearly all sampling points stay inside the feature map.
_STILL_PX = 0.01
_STILL_AFTER_STEPS, _STILL_AFTER_SHARE = 100, 0.1  # share of the run; whichever is later
_MOST_REACHES = 10.0
_MOST_OUTSIDE = 0.25


class _Cause(NamedTuple):
    problem: str
    advice: str


class OffsetWatch:
    """A watch that warns, once for each layer and cause, about offsets that do not move or blow up.

    `total_steps` counts the whole run; `lr_multiplier` is the `offset_lr_multiplier` of its optimizer.
    Create it before the first step: it keeps a copy of the initial weights.
    """

    def __init__(self, layers: Mapping[str, Deformable], *, total_steps: int, lr_multiplier: float) -> None:
        self._layers = layers
        self._start = {name: [p.detach().clone() for p in _branch(layer)] for name, layer in layers.items()}
        self._still_after = max(_STILL_AFTER_STEPS, _STILL_AFTER_SHARE * total_steps)
        self._lr_multiplier = lr_multiplier
        self._reported: set[tuple[str, str]] = set()

    def check(self, statistics: Mapping[str, Mapping[str, float]], *, step: int) -> None:
        """Log a warning for each cause with new layers: their names, their values, and the remedy.

        `statistics` are those that `OffsetMeter` measured for each layer at optimizer step `step`, from 1.
        """
        new: dict[_Cause, list[str]] = {}
        for name, values in statistics.items():
            cause, value = self._blown_up(name, values) or self._still(name, values, step) or (None, "")
            if cause is not None and (name, cause.problem) not in self._reported:
                self._reported.add((name, cause.problem))
                new.setdefault(cause, []).append(f"{name} ({value})")
        for cause, layers in new.items():
            _log.warning(
                "Offsets %s at step %d: %s. %s", cause.problem, step, ", ".join(layers), cause.advice
            )

    def _blown_up(self, name: str, values: Mapping[str, float]) -> tuple[_Cause, str] | None:
        advice = self._slower_or_bounded(self._layers[name])
        mean_px, reach_px = values["mean_px"], self._layers[name].reach_px
        if not math.isfinite(mean_px):
            return _Cause("are not finite", advice), f"{mean_px} px on average"
        if values["outside"] > _MOST_OUTSIDE:
            return _Cause("leave the feature map", advice), f"{values['outside']:.0%} of its samples"
        if mean_px > _MOST_REACHES * reach_px:
            value = f"{mean_px:.1f} px on average, and without offsets it reaches {reach_px:g}"
            return _Cause("blow up", advice), value
        return None

    def _slower_or_bounded(self, layer: Deformable) -> str:
        """Return advice against growing offsets that is not followed already."""
        slower = (
            f"optimizer.offset_lr_multiplier={self._lr_multiplier / 10:g} (it was {self._lr_multiplier:g})"
            if self._lr_multiplier > 0
            else "a lower optimizer.lr"
        )
        bound = "bound those of v1 and v2 convolutions: deform.max_offset_px of the backbone, neck or head"
        if layer.max_offset_px is not None:
            bound = f"lower deform.max_offset_px (it is {layer.max_offset_px:g})"
        return (
            "Samples outside of the feature map are 0 and teach their offsets nothing. Start again with "
            f"{slower}, or {bound}."
        )

    def _still(self, name: str, values: Mapping[str, float], step: int) -> tuple[_Cause, str] | None:
        if step < self._still_after:
            return None
        branch = _branch(self._layers[name])
        is_frozen = not any(p.requires_grad for p in branch)
        stayed = not is_frozen and all(map(torch.equal, self._start[name], branch))  # frozen may be intended
        if values["mean_px"] >= _STILL_PX and not stayed:
            return None
        value = f"{values['mean_px']:.2g} px on average"
        if is_frozen:
            advice = "They are frozen: lower model.backbone.frozen_stages, or leave these layers regular."
        elif self._lr_multiplier == 0:
            advice = "optimizer.offset_lr_multiplier=0 keeps them as they are: 0.1 or 1 lets them learn."
        else:
            if "gradient_norm" in values:
                value += f", gradient norm {values['gradient_norm']:.2g}"
            advice = (
                f"Raise optimizer.offset_lr_multiplier (it is {self._lr_multiplier:g}) or optimizer.lr. A "
                "gradient norm of 0 means that nothing which the layer feeds learns."
            )
        return _Cause("do not move", advice), value


def _branch(layer: Deformable) -> list[Tensor]:
    return [*layer.offset.parameters()]
