"""Norms by name."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from detector.layers.norms import NormKind, norm_layer


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("frozen_batch", FrozenBatchNorm2d),
        ("batch", nn.BatchNorm2d),
        ("sync_batch", nn.SyncBatchNorm),
        ("group", nn.GroupNorm),
    ],
)
def test_a_kind_is_its_layer(kind: NormKind, expected: type[nn.Module]) -> None:
    assert type(norm_layer(kind)(64)) is expected


@pytest.mark.parametrize(("channels", "groups"), [(64, 32), (32, 16), (16, 8), (48, 16), (33, 1)])
def test_group_norm_has_32_groups_or_fewer_where_they_do_not_fit(channels: int, groups: int) -> None:
    layer = norm_layer("group")(channels)
    assert layer.num_groups == groups
    assert layer(torch.randn(1, channels, 2, 2)).shape == (1, channels, 2, 2)


def test_frozen_batch_norm_has_nothing_to_train() -> None:
    assert list(norm_layer("frozen_batch")(8).parameters()) == []
