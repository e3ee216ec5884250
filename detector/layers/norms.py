"""Normalization layers, by name and besides torch's.

Two are written here although torchvision has them: its import takes longer than torch's.
"""

# N images, C channels

from __future__ import annotations

from collections.abc import Callable
from math import gcd
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

NormKind = Literal["frozen_batch", "batch", "sync_batch", "group"]

_GROUPS = 32  # Wu and He 2018


class FrozenBatchNorm2d(nn.Module):
    """A batch norm whose statistics and affine parameters are buffers, named as `nn.BatchNorm2d`'s."""

    def __init__(self, num_features: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", torch.ones(num_features))
        self.register_buffer("bias", torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *others: Any) -> None:
        state_dict.pop(f"{prefix}num_batches_tracked", None)  # of a batch norm that is not frozen
        super()._load_from_state_dict(state_dict, prefix, *others)

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        return x * scale[:, None, None] + shift[:, None, None]

    def extra_repr(self) -> str:
        return f"{len(self.weight)}, eps={self.eps}"


class LayerNorm2d(nn.LayerNorm):
    """A norm over the channels of each position."""

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
        channels_last = x.permute(0, 2, 3, 1)
        y = F.layer_norm(channels_last, self.normalized_shape, self.weight, self.bias, self.eps)
        return y.permute(0, 3, 1, 2)


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
