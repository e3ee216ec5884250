"""Normalization layers by name."""

from __future__ import annotations

from collections.abc import Callable
from math import gcd
from typing import Literal, get_args

from torch import nn
from torchvision.ops import FrozenBatchNorm2d

NormKind = Literal["frozen_batch", "batch", "sync_batch", "group"]

_GROUPS = 32  # Wu and He 2018


def norm_layer(kind: NormKind) -> Callable[[int], nn.Module]:
    """Return a constructor of the norm that takes the number of channels.

    `frozen_batch` keeps statistics and affine parameters as buffers, unchanged by training. `group` has 32
    groups, or fewer if 32 does not divide the channels or leaves one channel per group.
    """
    layers: dict[str, Callable[[int], nn.Module]] = {
        "frozen_batch": FrozenBatchNorm2d,
        "batch": nn.BatchNorm2d,
        "sync_batch": nn.SyncBatchNorm,
        "group": _group_norm,
    }
    if kind not in layers:
        raise ValueError(f"norm must be one of {get_args(NormKind)}, got {kind!r}.")
    return layers[kind]


def _group_norm(channels: int) -> nn.GroupNorm:
    # At least two channels per group: torch rejects a single one if the map of one image has a single cell.
    groups = gcd(_GROUPS, channels)
    return nn.GroupNorm(groups // 2 if 1 < groups == channels else groups, channels)
