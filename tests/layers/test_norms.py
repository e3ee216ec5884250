"""Norms by name."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models.convnext import LayerNorm2d as TorchvisionLayerNorm
from torchvision.ops import FrozenBatchNorm2d as TorchvisionFrozenBatchNorm

from detector.layers.norms import FrozenBatchNorm2d, LayerNorm2d, NormKind, norm_layer


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_frozen_batch_norm_is_torchvisions(dtype: torch.dtype) -> None:
    own, theirs = FrozenBatchNorm2d(5).to(dtype), TorchvisionFrozenBatchNorm(5).to(dtype)
    trained = nn.BatchNorm2d(5).to(dtype)
    for value in [*trained.parameters(), trained.running_mean, trained.running_var]:
        assert value is not None
        nn.init.uniform_(value.data, 0.5, 2)
    for norm in (own, theirs):  # the count of batches is left out
        norm.load_state_dict(trained.state_dict())
    x = torch.randn(2, 5, 3, 4, dtype=dtype)
    assert torch.equal(own(x), theirs(x))
    assert torch.allclose(own(x), trained.eval()(x), atol=1e-5)
    assert repr(own) == repr(theirs)


def test_layer_norm_of_maps_is_torchvisions() -> None:
    own, theirs = LayerNorm2d(6, eps=1e-6), TorchvisionLayerNorm(6, eps=1e-6)
    for value in own.parameters():
        nn.init.uniform_(value)
    theirs.load_state_dict(own.state_dict())
    x = torch.randn(2, 6, 3, 4)
    assert torch.equal(own(x), theirs(x))
